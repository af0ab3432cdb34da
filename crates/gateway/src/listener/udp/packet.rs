//! Datagrams with the address of ours that they came to: a machine with several addresses answers
//! from the one that was asked.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd as _};

use nix::libc;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg,
};

use crate::port::canonical;

/// A datagram that came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Packet {
    pub(super) length: usize,
    /// Who sent it; IPv4 as IPv4.
    pub(super) visitor: SocketAddr,
    pub(super) way: Way,
}

/// Which way a datagram came, for the answer to go back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Way {
    /// Which of our addresses; IPv4 as IPv4.
    pub(super) local: IpAddr,
    /// Which interface, where the address alone does not say it (link-local).
    interface: u32,
    /// The socket is an IPv6 one, also when the datagram is IPv4.
    socket_v6: bool,
}

/// Takes one datagram; `WouldBlock` when there is none.
pub(super) fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Packet> {
    let mut parts = [IoSliceMut::new(buffer)];
    let mut control = nix::cmsg_space!(libc::in_pktinfo, libc::in6_pktinfo);
    let received = recvmsg::<SockaddrStorage>(
        socket.as_fd().as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::MSG_DONTWAIT,
    )?;
    let nonsense = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let from = received.address.and_then(|it| address(&it)).ok_or_else(|| nonsense("no source"))?;
    let mut way = None;
    for message in received.cmsgs()? {
        if let ControlMessageOwned::Ipv6PacketInfo(it) = message {
            way = Some((IpAddr::V6(it.ipi6_addr.s6_addr.into()), it.ipi6_ifindex));
        } else if let ControlMessageOwned::Ipv4PacketInfo(it) = message
            && way.is_none()
        {
            let address = Ipv4Addr::from(u32::from_be(it.ipi_spec_dst.s_addr));
            way = Some((IpAddr::V4(address), 0));
        }
    }
    let (local, interface) = way.ok_or_else(|| nonsense("no destination"))?;
    let link_local = matches!(local, IpAddr::V6(it) if it.is_unicast_link_local());
    Ok(Packet {
        length: received.bytes,
        visitor: canonical(from),
        way: Way {
            local: local.to_canonical(),
            interface: if link_local { interface } else { 0 },
            socket_v6: from.is_ipv6(),
        },
    })
}

/// Sends one datagram back; `WouldBlock` when the socket's buffer is full.
pub(super) fn send(
    socket: impl AsFd,
    payload: &[u8],
    visitor: SocketAddr,
    way: Way,
) -> io::Result<()> {
    let parts = [IoSlice::new(payload)];
    let fd = socket.as_fd().as_raw_fd();
    let flags = MsgFlags::MSG_DONTWAIT;
    match (way.local, way.socket_v6) {
        (IpAddr::V4(local), false) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: local.to_bits().to_be() },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            let to = SockaddrStorage::from(visitor);
            sendmsg(fd, &parts, &[ControlMessage::Ipv4PacketInfo(&info)], flags, Some(&to))?;
        }
        (local, _) => {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr { s6_addr: mapped(local).octets() },
                ipi6_ifindex: way.interface,
            };
            let to = match visitor {
                SocketAddr::V4(it) => SocketAddrV6::new(it.ip().to_ipv6_mapped(), it.port(), 0, 0),
                SocketAddr::V6(it) => it,
            };
            let to = SockaddrStorage::from(to);
            sendmsg(fd, &parts, &[ControlMessage::Ipv6PacketInfo(&info)], flags, Some(&to))?;
        }
    }
    Ok(())
}

fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(it) => it.to_ipv6_mapped(),
        IpAddr::V6(it) => it,
    }
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(it) = storage.as_sockaddr_in() {
        return Some(SocketAddr::new(it.ip().into(), it.port()));
    }
    let it = storage.as_sockaddr_in6()?;
    let scope = if it.ip().is_unicast_link_local() { it.scope_id() } else { 0 };
    Some(SocketAddrV6::new(it.ip(), it.port(), 0, scope).into())
}
