//! Datagrams with the local address that they came to and have to be answered from.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd as _};

use nix::libc;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
    sockopt,
};

/// One datagram.
pub(crate) struct Datagram {
    pub(crate) bytes: Vec<u8>,
    pub(crate) source: SocketAddr,
    /// The address that it was sent to. IPv4 addresses are written as such, whatever the socket.
    pub(crate) reached_on: IpAddr,
}

/// Makes a socket report the address that each datagram was sent to.
pub(crate) fn report_destination(socket: &impl AsFd, ipv6: bool) -> io::Result<()> {
    if ipv6 {
        setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    } else {
        setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?;
    }
    Ok(())
}

/// Makes a connected socket report every ICMP error. Without this only some come through: a port
/// that is closed, but not a host that cannot be reached.
pub(crate) fn report_all_errors(socket: &impl AsFd, ipv6: bool) -> io::Result<()> {
    if ipv6 {
        setsockopt(socket, sockopt::Ipv6RecvErr, &true)?;
    } else {
        setsockopt(socket, sockopt::Ipv4RecvErr, &true)?;
    }
    Ok(())
}

/// Takes one datagram, without waiting for it.
pub(crate) fn receive(socket: &impl AsFd) -> io::Result<Datagram> {
    let mut buffer = vec![0; 2048];
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let mut control = nix::cmsg_space!(libc::in6_pktinfo, libc::in_pktinfo);
    let fd = socket.as_fd().as_raw_fd();
    let flags = MsgFlags::MSG_DONTWAIT;
    let received = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut control), flags)?;
    let mut reached_on = None;
    for message in received.cmsgs()? {
        if let ControlMessageOwned::Ipv4PacketInfo(info) = message {
            reached_on = Some(IpAddr::from(info.ipi_addr.s_addr.to_ne_bytes()));
        } else if let ControlMessageOwned::Ipv6PacketInfo(info) = message {
            reached_on = Some(IpAddr::from(info.ipi6_addr.s6_addr));
        }
    }
    let source = received.address.as_ref().and_then(socket_address);
    let length = received.bytes;
    buffer.truncate(length);
    match (source, reached_on) {
        (Some(source), Some(reached_on)) => {
            Ok(Datagram { bytes: buffer, source, reached_on: reached_on.to_canonical() })
        }
        _ => Err(io::Error::other("a datagram without addresses")),
    }
}

/// Sends `bytes` to `to` from a certain address of this machine.
pub(crate) fn send_from(
    socket: &impl AsFd,
    from: IpAddr,
    to: SocketAddr,
    bytes: &[u8],
) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    let parts = [IoSlice::new(bytes)];
    let address = SockaddrStorage::from(to);
    match (from, to) {
        (IpAddr::V4(from), SocketAddr::V4(_)) => {
            let source = libc::in_addr { s_addr: u32::from_ne_bytes(from.octets()) };
            let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: source, ipi_addr: source };
            let control = [ControlMessage::Ipv4PacketInfo(&info)];
            sendmsg(fd, &parts, &control, MsgFlags::empty(), Some(&address))?;
        }
        (from, SocketAddr::V6(_)) => {
            let from = match from {
                IpAddr::V4(from) => from.to_ipv6_mapped(),
                IpAddr::V6(from) => from,
            };
            let source = libc::in6_addr { s6_addr: from.octets() };
            let info = libc::in6_pktinfo { ipi6_addr: source, ipi6_ifindex: 0 };
            let control = [ControlMessage::Ipv6PacketInfo(&info)];
            sendmsg(fd, &parts, &control, MsgFlags::empty(), Some(&address))?;
        }
        (IpAddr::V6(_), SocketAddr::V4(_)) => {
            return Err(io::Error::other("an IPv6 source cannot send to an IPv4 address"));
        }
    }
    Ok(())
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|it| SocketAddrV4::from(*it).into());
    v4.or_else(|| address.as_sockaddr_in6().map(|it| SocketAddrV6::from(*it).into()))
}
