//! Who the backend sees.

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::Context as _;
use testkit::internet::{VISITOR, public};
use testkit::wait;

use crate::objects::Service;
use crate::place::{ONE, PATIENCE, Place, at};
use crate::sockets::{connect, listen};

/// The signature of version 2 (proxy-protocol.txt section 2.2).
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

#[test]
fn wb08_backends_that_ask_for_it_get_the_visitors_address_in_a_proxy_header() -> anyhow::Result<()>
{
    let Some(place) = Place::build("proxy", ONE)? else { return Ok(()) };
    let [plain, first, second] =
        [9000, 9001, 9002].map(|port| listen(&place.backends[0], port).map(first_bytes));
    let (plain, first, second) = (plain?, first?, second?);
    let service = Service {
        annotations: &[("proxy-protocol", "9001=v1, 9002=v2")],
        ports: &[(9000, "TCP", 9000), (9001, "TCP", 9001), (9002, "TCP", 9002)],
        ..Service::default()
    };
    place.write("blog", &service.yaml())?;

    let (_, bytes) = visit(&place, 9000, &plain)?;
    assert_eq!(bytes, b"hello");

    let (from, bytes) = visit(&place, 9001, &first)?;
    let header = format!("PROXY TCP4 {} {} {} 9001\r\n", public(VISITOR), public(1), from.port());
    assert_eq!(String::from_utf8_lossy(&bytes), header + "hello");

    let (from, bytes) = visit(&place, 9002, &second)?;
    let rest = bytes.strip_prefix(SIGNATURE).context("no header of version 2")?;
    // PROXY of version 2, TCP over IPv4.
    assert_eq!(rest[..2], [0x21, 0x11]);
    let length = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
    let (header, payload) = rest[4..].split_at(length);
    let address =
        |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
    let port = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    assert_eq!((address(0), port(8)), (public(VISITOR), from.port()));
    assert_eq!((address(4), port(10)), (public(1), 9002));
    assert_eq!(payload, b"hello");
    Ok(())
}

/// Says hello until the backend has heard it, and returns the visitor's own address and what the
/// backend heard.
fn visit(
    place: &Place,
    port: u16,
    heard: &Receiver<Vec<u8>>,
) -> anyhow::Result<(SocketAddr, Vec<u8>)> {
    wait::until_ok(&format!("the backend hears of {port}"), PATIENCE, || {
        let Ok(mut stream) = connect(place.visitor(), at(1, port)) else { return Ok(None) };
        let from = stream.local_addr()?;
        if std::io::Write::write_all(&mut stream, b"hello").is_err() {
            return Ok(None);
        }
        let _already_reset = stream.shutdown(std::net::Shutdown::Write);
        Ok(heard.recv_timeout(Duration::from_secs(1)).ok().map(|it| (from, it)))
    })
    .with_context(|| place.logs())
}

/// Sends on all that each connection says.
fn first_bytes(listener: TcpListener) -> Receiver<Vec<u8>> {
    let (sender, heard) = channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut bytes = Vec::new();
            let _reset = stream.read_to_end(&mut bytes);
            if !bytes.is_empty() && sender.send(bytes).is_err() {
                return;
            }
        }
    });
    heard
}
