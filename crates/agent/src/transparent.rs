//! Sockets that speak with a visitor's address, so that an unchanged backend sees who visits.
//!
//! Such a socket is bound to an address that this machine does not have (`IP_TRANSPARENT`, ip(7)).
//! What the backend answers would leave through the default route, so [`Steering`] leads it back:
//! a packet that belongs to such a socket is marked, and marked packets are delivered here.
//!
//! That works for backends whose answers pass this machine: pods of the agent's own node, with the
//! agent in the node's network and with `CAP_NET_ADMIN`. Where it does not work the flow is
//! refused; a backend that trusts addresses must never be shown a false one.

mod steering;

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, UdpSocket};

pub use steering::{Steering, SteeringError};

/// A TCP socket that will speak with the address of `visitor` to `endpoint`, and with its port if
/// that is free.
///
/// # Errors
///
/// When the families differ, or the system does not permit it.
pub fn tcp(visitor: SocketAddr, endpoint: SocketAddr) -> io::Result<TcpSocket> {
    let socket = bound(visitor, endpoint, Type::STREAM, Protocol::TCP)?;
    Ok(TcpSocket::from_std_stream(socket.into()))
}

/// A UDP socket that speaks with the address of `visitor` to `endpoint` and hears nobody else.
///
/// # Errors
///
/// As [`tcp`].
pub fn udp(visitor: SocketAddr, endpoint: SocketAddr) -> io::Result<UdpSocket> {
    let socket = bound(visitor, endpoint, Type::DGRAM, Protocol::UDP)?;
    socket.connect(&endpoint.into())?;
    UdpSocket::from_std(socket.into())
}

fn bound(
    visitor: SocketAddr,
    endpoint: SocketAddr,
    kind: Type,
    protocol: Protocol,
) -> io::Result<Socket> {
    let visitor = SocketAddr::new(visitor.ip().to_canonical(), visitor.port());
    if visitor.is_ipv4() != endpoint.is_ipv4() {
        return Err(io::Error::new(
            io::ErrorKind::AddrNotAvailable,
            format!("{endpoint} cannot hear from {}: not of one family", visitor.ip()),
        ));
    }
    let socket = Socket::new(Domain::for_address(endpoint), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if endpoint.is_ipv4() {
        socket.set_ip_transparent_v4(true)?;
    } else {
        socket.set_ip_transparent_v6(true)?;
    }
    // One visitor may come through two gateways with one port, to different endpoints.
    socket.set_reuse_address(true)?;
    match socket.bind(&visitor.into()) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            socket.bind(&SocketAddr::new(visitor.ip(), 0).into())?;
        }
        result => result?,
    }
    Ok(socket)
}
