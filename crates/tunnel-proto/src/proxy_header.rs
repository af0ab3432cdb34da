//! The PROXY protocol, versions 1 and 2: how a backend learns who its visitor is.
//!
//! Written as HAProxy's `proxy-protocol.txt` (2020/03/05) says. Only written: nothing of ours
//! believes such a header from others.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::message::Protocol;

/// Which version.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Version {
    /// A line of text; knows TCP only.
    V1,
    /// Binary; knows UDP too, and carries the server name and an id.
    V2,
}

/// What a backend is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Connection<'a> {
    /// The transport.
    pub protocol: Protocol,
    /// The visitor.
    pub visitor: SocketAddr,
    /// The address and port that the visitor dialled.
    pub dialled: SocketAddr,
    /// The name that the visitor asked for, if it was looked at.
    pub server_name: Option<&'a str>,
    /// Tells this connection from all others, at most 128 bytes; empty says nothing.
    pub unique_id: &'a [u8],
    /// There is no visitor: the connection was opened by us, to probe.
    pub probe: bool,
}

/// The longest unique id (section 2.2.5).
const LONGEST_ID: usize = 128;

/// The longest server name that is passed on.
const LONGEST_NAME: usize = 255;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const TYPE_AUTHORITY: u8 = 0x02;
const TYPE_UNIQUE_ID: u8 = 0x05;

/// The header that goes before the first byte of a TCP connection, or before the payload of the
/// first datagram of a UDP flow.
///
/// Version 1 cannot speak of UDP; such a flow is `UNKNOWN`. When only one address is IPv4, it is
/// written as the IPv6 address that stands for it.
#[must_use]
pub fn encode(version: Version, connection: &Connection<'_>) -> Vec<u8> {
    let ends = same_family(connection.visitor, connection.dialled);
    match version {
        Version::V1 => first(connection, ends),
        Version::V2 => second(connection, ends),
    }
}

fn first(connection: &Connection<'_>, (visitor, dialled): (SocketAddr, SocketAddr)) -> Vec<u8> {
    if connection.probe || connection.protocol == Protocol::Udp {
        return b"PROXY UNKNOWN\r\n".to_vec();
    }
    let family = if visitor.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (visitor.ip(), dialled.ip());
    format!("PROXY {family} {from} {to} {} {}\r\n", visitor.port(), dialled.port()).into_bytes()
}

fn second(connection: &Connection<'_>, (visitor, dialled): (SocketAddr, SocketAddr)) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    if connection.probe {
        // LOCAL, UNSPEC: the receiver uses the addresses of the connection itself.
        header.extend([0x20, 0x00, 0, 0]);
        return header;
    }
    let transport = match connection.protocol {
        Protocol::Tcp => 1,
        Protocol::Udp => 2,
    };
    let mut rest = Vec::new();
    for address in [visitor, dialled] {
        match address.ip() {
            IpAddr::V4(it) => rest.extend(it.octets()),
            IpAddr::V6(it) => rest.extend(it.octets()),
        }
    }
    rest.extend(visitor.port().to_be_bytes());
    rest.extend(dialled.port().to_be_bytes());
    if let Some(name) = connection.server_name {
        put(&mut rest, TYPE_AUTHORITY, name.as_bytes(), LONGEST_NAME);
    }
    put(&mut rest, TYPE_UNIQUE_ID, connection.unique_id, LONGEST_ID);
    let family = if visitor.is_ipv4() { 0x10 } else { 0x20 };
    header.extend([0x21, family | transport]);
    header.extend(short(rest.len()));
    header.extend(rest);
    header
}

/// Appends a value; nothing when it is empty or longer than allowed.
fn put(header: &mut Vec<u8>, kind: u8, value: &[u8], longest: usize) {
    if (1..=longest).contains(&value.len()) {
        header.push(kind);
        header.extend(short(value.len()));
        header.extend(value);
    }
}

/// Everything here is far shorter than 64 KiB.
fn short(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

fn same_family(visitor: SocketAddr, dialled: SocketAddr) -> (SocketAddr, SocketAddr) {
    let (from, to) = (visitor.ip().to_canonical(), dialled.ip().to_canonical());
    let (from, to) = if from.is_ipv4() == to.is_ipv4() {
        (from, to)
    } else {
        (IpAddr::V6(wide(from)), IpAddr::V6(wide(to)))
    };
    (SocketAddr::new(from, visitor.port()), SocketAddr::new(to, dialled.port()))
}

const fn wide(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(it) => it.to_ipv6_mapped(),
        IpAddr::V6(it) => it,
    }
}

#[cfg(test)]
mod tests {
    use ppp::v2::{Command, Protocol as Transport, Type};
    use ppp::{v1, v2};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn version_one_is_a_line() {
        let line = |visitor, dialled| {
            let header = encode(Version::V1, &connection(visitor, dialled));
            String::from_utf8(header).expect("text")
        };
        assert_eq!(
            line("198.51.100.9:50000", "203.0.113.7:443"),
            "PROXY TCP4 198.51.100.9 203.0.113.7 50000 443\r\n"
        );
        assert_eq!(
            line("[2001:db8::9]:50000", "[2001:db8::7]:443"),
            "PROXY TCP6 2001:db8::9 2001:db8::7 50000 443\r\n"
        );
        assert_eq!(
            line("[::ffff:198.51.100.9]:1", "203.0.113.7:2"),
            "PROXY TCP4 198.51.100.9 203.0.113.7 1 2\r\n"
        );
        assert_eq!(
            line("198.51.100.9:1", "[2001:db8::7]:2"),
            "PROXY TCP6 ::ffff:198.51.100.9 2001:db8::7 1 2\r\n"
        );
    }

    #[test]
    fn version_one_does_not_know_udp_and_probes() {
        let tcp = connection("192.0.2.1:1", "192.0.2.2:2");
        let udp = Connection { protocol: Protocol::Udp, ..tcp };
        assert_eq!(encode(Version::V1, &udp), b"PROXY UNKNOWN\r\n");
        let probe = Connection { probe: true, ..tcp };
        assert_eq!(encode(Version::V1, &probe), b"PROXY UNKNOWN\r\n");
    }

    #[test]
    fn version_two_is_what_others_read() {
        let name = Connection {
            server_name: Some("blog.example.com"),
            unique_id: b"0123",
            ..connection("198.51.100.9:50000", "203.0.113.7:443")
        };
        let bytes = encode(Version::V2, &name);
        let header = v2::Header::try_from(bytes.as_slice()).expect("a header");
        assert_eq!((header.command, header.protocol), (Command::Proxy, Transport::Stream));
        let values: Vec<_> = header.tlvs().map(|it| it.expect("a value")).collect();
        let values: Vec<_> = values.iter().map(|it| (it.kind, &*it.value)).collect();
        assert_eq!(
            values,
            [(Type::Authority.into(), &b"blog.example.com"[..]), (Type::UniqueId.into(), b"0123")]
        );
        // Source, destination and both ports, byte by byte (section 2.2).
        assert_eq!(
            bytes.get(12..28),
            Some(&[0x21, 0x11, 0, 38, 198, 51, 100, 9, 203, 0, 113, 7, 0xc3, 0x50, 1, 0xbb][..])
        );
    }

    #[test]
    fn version_two_knows_udp_and_probes() {
        let tcp = connection("[2001:db8::9]:1", "[2001:db8::7]:2");
        let bytes = encode(Version::V2, &Connection { protocol: Protocol::Udp, ..tcp });
        let header = v2::Header::try_from(bytes.as_slice()).expect("a header");
        assert_eq!(header.protocol, Transport::Datagram);
        let bytes = encode(Version::V2, &Connection { probe: true, ..tcp });
        let header = v2::Header::try_from(bytes.as_slice()).expect("a header");
        assert_eq!((header.command, bytes.len()), (Command::Local, 16));
    }

    #[test]
    fn a_value_that_is_too_long_is_left_out() {
        let long = "a".repeat(256);
        let connection = Connection {
            server_name: Some(&long),
            unique_id: &[7; 129],
            ..connection("192.0.2.1:1", "192.0.2.2:2")
        };
        assert_eq!(encode(Version::V2, &connection).len(), 28);
    }

    proptest! {
        #[test]
        fn every_header_is_read_by_others(
            visitor: SocketAddr, dialled: SocketAddr, udp: bool, probe: bool,
            name in proptest::option::of("[a-z.]{0,300}"), id in proptest::collection::vec(any::<u8>(), 0..140),
        ) {
            let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
            let connection = Connection {
                protocol, visitor, dialled, server_name: name.as_deref(), unique_id: &id, probe,
            };
            let first = encode(Version::V1, &connection);
            prop_assert!(first.len() <= 107, "section 2.1");
            prop_assert!(v1::Header::try_from(first.as_slice()).is_ok());
            let second = encode(Version::V2, &connection);
            let read = v2::Header::try_from(second.as_slice());
            prop_assert!(read.is_ok_and(|it| it.len() == second.len()));
        }
    }

    fn connection(visitor: &str, dialled: &str) -> Connection<'static> {
        Connection {
            protocol: Protocol::Tcp,
            visitor: visitor.parse().expect("an address"),
            dialled: dialled.parse().expect("an address"),
            server_name: None,
            unique_id: b"",
            probe: false,
        }
    }
}
