//! The sockets of the tunnel port.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the kernel keeps for us before we take them.
const BACKLOG: i32 = 4096;

/// The sockets of the tunnel port: one number, TCP and UDP. Either list may be empty. Made here,
/// or handed over by whoever had them before.
#[derive(Debug, Default)]
pub struct Sockets {
    /// For carriers over TCP; listening.
    pub tcp: Vec<TcpListener>,
    /// For carriers over UDP.
    pub udp: Vec<UdpSocket>,
}

impl Sockets {
    /// Binds each address for TCP and for UDP. With port 0 the system chooses, the same number for
    /// both. An IPv6 address takes no IPv4.
    ///
    /// # Errors
    ///
    /// What the system says, for the first address that cannot be had.
    pub fn bind(addresses: &[SocketAddr]) -> io::Result<Self> {
        let mut sockets = Self::default();
        for address in addresses {
            let tcp = listener(*address)?;
            let udp = datagrams(tcp.local_addr()?)?;
            sockets.tcp.push(tcp);
            sockets.udp.push(udp);
        }
        Ok(sockets)
    }
}

fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn datagrams(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
