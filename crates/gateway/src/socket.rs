//! Opens listening sockets, and says who has a port that cannot be opened.

mod holder;

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

pub(crate) use holder::holder;

/// Visitors that the kernel may keep for us while we do other things; its own limit is
/// `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// What is asked for as the receive buffer of UDP sockets, in bytes. The kernel gives at most
/// `net.core.rmem_max`.
pub(crate) const UDP_BUFFER: usize = 4 << 20;

/// Visitors that are gone without a word are noticed after about a minute and a half.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(10))
    .with_retries(3);

/// Opens a listening socket for visitors. The address `::` takes IPv4 too, where the machine has
/// IPv6; where it has none, `0.0.0.0` takes its place.
///
/// Options that accepted connections inherit are set here, once, and not for each visitor.
pub(crate) fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    let (socket, at) = open(at, Type::STREAM, Protocol::TCP)?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_keepalive(true)?;
    socket.set_tcp_keepalive(&KEEPALIVE)?;
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Opens a UDP socket that tells for each datagram which of our addresses it came to.
pub(crate) fn bind(at: SocketAddr) -> io::Result<UdpSocket> {
    let (socket, at) = open(at, Type::DGRAM, Protocol::UDP)?;
    prepare(&socket, at)?;
    socket.bind(&at.into())?;
    Ok(socket.into())
}

/// A listening socket that was handed over.
pub(crate) fn adopt_tcp(listener: TcpListener) -> io::Result<tokio::net::TcpListener> {
    listener.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(listener)
}

/// A UDP socket that was handed over.
pub(crate) fn adopt_udp(socket: UdpSocket) -> io::Result<tokio::net::UdpSocket> {
    socket.set_nonblocking(true)?;
    tokio::net::UdpSocket::from_std(socket)
}

fn prepare(socket: &Socket, at: SocketAddr) -> io::Result<()> {
    // Both are told for an IPv6 socket that takes IPv4 too.
    setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?;
    if at.is_ipv6() {
        setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    }
    // The larger one is for those who may; less than was asked for is no error.
    if setsockopt(socket, sockopt::RcvBufForce, &UDP_BUFFER).is_err() {
        socket.set_recv_buffer_size(UDP_BUFFER)?;
    }
    if setsockopt(socket, sockopt::SndBufForce, &UDP_BUFFER).is_err() {
        socket.set_send_buffer_size(UDP_BUFFER)?;
    }
    Ok(())
}

fn open(at: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<(Socket, SocketAddr)> {
    match Socket::new(Domain::for_address(at), kind, Some(protocol)) {
        Ok(socket) => {
            if at.is_ipv6() {
                socket.set_only_v6(!at.ip().is_unspecified())?;
            }
            socket.set_nonblocking(true)?;
            Ok((socket, at))
        }
        Err(error) if at.ip() == std::net::Ipv6Addr::UNSPECIFIED && no_ipv6(&error) => {
            open(SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), at.port()), kind, protocol)
        }
        Err(error) => Err(error),
    }
}

fn no_ipv6(error: &io::Error) -> bool {
    error.raw_os_error() == Some(nix::errno::Errno::EAFNOSUPPORT as i32)
}

/// Makes the close of a connection a reset, so that the visitor knows at once.
pub(crate) fn reset_on_close(stream: &tokio::net::TcpStream) {
    // A connection that is gone already needs no reset.
    let _gone = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
