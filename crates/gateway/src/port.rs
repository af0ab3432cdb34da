//! What published ports are called, and where they are bound.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

pub(crate) use tunnel_proto::desired::Port as PortKey;
use tunnel_proto::message::{Desired, Protocol};

/// `tcp` or `udp`.
pub(crate) fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

/// Whether both ports cannot be bound at one time.
pub(crate) fn overlap(a: &PortKey, b: &PortKey) -> bool {
    let addresses = match (a.address, b.address) {
        (Some(a), Some(b)) => a == b,
        (None, _) | (_, None) => true,
    };
    addresses && a.protocol == b.protocol && a.port == b.port
}

/// Where to bind. `offered` is what the configuration names; empty means every address.
pub(crate) fn sockets(key: &PortKey, offered: &[IpAddr]) -> Vec<SocketAddr> {
    let at = |address| SocketAddr::new(address, key.port);
    match key.address {
        Some(address) => vec![at(address)],
        None if offered.is_empty() => vec![at(Ipv6Addr::UNSPECIFIED.into())],
        None => offered.iter().copied().map(at).collect(),
    }
}

/// A visitor's or a local address as people write it: IPv4 as IPv4.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// A wish in which IPv4 addresses are IPv4 addresses, not IPv6 addresses that hold one.
pub(crate) fn normalised(mut desired: Desired) -> Desired {
    for port in &mut desired.ports {
        port.address = port.address.map(|it| it.to_canonical());
    }
    desired
}
