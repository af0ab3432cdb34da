//! The answering side of the raw SCTP stack: one thread for all ports of the machine.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::OnceLock;

use socket2::{Domain, Protocol, Socket, Type};

use super::packet::{self, Chunk, Kind, Packet};
use super::{User, ports, rand_tag};
use crate::datagram::{self, Datagram};
use crate::server::line;

/// The abort's sender has no tag of its own and reflects the other's (RFC 9260, 8.4).
const REFLECTED_TAG: u8 = 1;

/// The cookie of RFC 9260 lets a server forget until the client brings it back. This one does not
/// forget, so any text will do.
const COOKIE: &[u8] = b"portcullis test";

/// The two ends of an association, the client's first.
type Ends = (SocketAddr, SocketAddr);

struct Known {
    client_tag: u32,
    tsn: u32,
}

/// Starts the stack of this machine, unless it runs already. From then on the machine has SCTP:
/// closed ports answer with an abort.
pub(super) fn start() -> io::Result<()> {
    static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
    let started = STARTED.get_or_init(|| {
        let open = |domain, any: IpAddr| -> io::Result<Socket> {
            let socket = Socket::new(domain, Type::RAW, Some(Protocol::SCTP))?;
            datagram::report_destination(&socket, any.is_ipv6())?;
            Ok(socket)
        };
        for (domain, any) in [
            (Domain::IPV4, IpAddr::from(Ipv4Addr::UNSPECIFIED)),
            (Domain::IPV6, IpAddr::from(Ipv6Addr::UNSPECIFIED)),
        ] {
            let socket = open(domain, any).map_err(|it| format!("raw SCTP socket: {it}"))?;
            std::thread::spawn(move || run(&socket, any.is_ipv4()));
        }
        Ok(())
    });
    started.clone().map_err(io::Error::other)
}

fn run(socket: &Socket, ipv4: bool) {
    let mut known = BTreeMap::new();
    let own_tag = rand_tag();
    let (never, _open) = match std::os::unix::net::UnixStream::pair() {
        Ok(pair) => pair,
        Err(_) => return,
    };
    while crate::server::readable(socket, &never) {
        let Ok(received) = datagram::receive(socket) else { continue };
        let Some(packet) = packet::received(&received.bytes, ipv4) else { continue };
        if let Some(answer) = answer(&received, &packet, own_tag, &mut known) {
            // The receiver's port is in the packet; a raw socket takes none.
            let to = SocketAddr::new(received.source.ip(), 0);
            let _lost = datagram::send_from(socket, received.reached_on, to, &answer.to_bytes());
        }
    }
}

fn answer(
    received: &Datagram,
    packet: &Packet,
    own_tag: u32,
    known: &mut BTreeMap<Ends, Known>,
) -> Option<Packet> {
    let client = SocketAddr::new(received.source.ip(), packet.from);
    let server = SocketAddr::new(received.reached_on, packet.to);
    let ends = (client, server);
    let reply = |tag, chunks| Some(Packet { from: packet.to, to: packet.from, tag, chunks });
    let abort = |flags| Chunk { kind: Kind::Abort, flags, value: Vec::new() };
    let first = packet.chunks.first()?;
    if first.kind == Kind::Abort {
        known.remove(&ends);
        return None;
    }

    let name = match ports().get(&packet.to) {
        Some(User::Client) => return None,
        Some(User::Listener { at, name }) if covers(*at, received.reached_on) => Some(name.clone()),
        Some(User::Listener { .. }) | None => None,
    };
    let Some(name) = name else {
        known.remove(&ends);
        // A client that has shaken no hands is told with its own tag.
        return if first.kind == Kind::Init {
            reply(first.first_number()?, vec![abort(0)])
        } else {
            reply(packet.tag, vec![abort(REFLECTED_TAG)])
        };
    };
    if first.kind == Kind::Init {
        let client_tag = first.first_number()?;
        known.insert(ends, Known { client_tag, tsn: 1 });
        return reply(client_tag, vec![Chunk::init(Kind::InitAck, own_tag, COOKIE)]);
    }
    let Some(association) = known.get_mut(&ends).filter(|_| packet.tag == own_tag) else {
        return reply(packet.tag, vec![abort(REFLECTED_TAG)]);
    };
    if first.kind == Kind::CookieEcho {
        let ack = Chunk { kind: Kind::CookieAck, flags: 0, value: Vec::new() };
        return reply(association.client_tag, vec![ack]);
    }
    let data = packet.chunks.iter().find(|it| it.kind == Kind::Data)?;
    let text = line(&name, client, server);
    let tsn = association.tsn;
    association.tsn += 1;
    let chunks = vec![Chunk::sack(data.first_number()?), Chunk::data(tsn, text.as_bytes())];
    reply(association.client_tag, chunks)
}

/// Whether a listener on `at` takes what was sent to `address`.
fn covers(at: IpAddr, address: IpAddr) -> bool {
    at == address || (at.is_unspecified() && (at.is_ipv6() || address.is_ipv4()))
}
