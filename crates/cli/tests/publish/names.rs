//! Many Services on one port, told apart by the name in the visitor's TLS greeting.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use testkit::wait;

use crate::objects::Service;
use crate::place::{ONE, PATIENCE, Place, at};
use crate::sockets::{connect, listen};

/// What leads to which backend: `blog.example.com` and everything below `apps.example.com` to `b1`
/// and `b2`.
fn declare(place: &Place) -> anyhow::Result<()> {
    for (name, hostnames, endpoint) in [
        ("blog", "blog.example.com", "10.77.0.31"),
        ("apps", "*.apps.example.com, shop.example.com", "10.77.0.32"),
    ] {
        let service = Service {
            name,
            annotations: &[("gateway", "*"), ("hostnames", hostnames)],
            spec: "type: ClusterIP",
            ports: &[(443, "TCP", 9443)],
            endpoints: &[endpoint],
            ..Service::default()
        };
        place.write(name, &service.yaml())?;
    }
    Ok(())
}

#[test]
fn wb08_names_lead_to_their_backends_and_greetings_stay_unbroken() -> anyhow::Result<()> {
    let Some(place) = Place::build("names", ONE)? else { return Ok(()) };
    for backend in &place.backends {
        mirror(backend.name().to_owned(), listen(backend, 9443)?);
    }
    declare(&place)?;
    wait::until("the first name leads somewhere", PATIENCE, || {
        ask(&place, "blog.example.com", 0).ok().flatten()
    })?;
    for (name, expected) in [
        ("blog.example.com", Some("b1")),
        ("BLOG.example.com", Some("b1")),
        ("a.apps.example.com", Some("b2")),
        ("a.b.apps.example.com", Some("b2")),
        ("shop.example.com", Some("b2")),
        ("apps.example.com", None),
        ("other.example.com", None),
    ] {
        // In one piece, and in pieces of so many bytes.
        for pieces in [0, 1, 100] {
            let answered = ask(&place, name, pieces).with_context(|| name.to_owned())?;
            assert_eq!(answered.as_deref(), expected, "{name}, in pieces of {pieces}");
        }
    }
    Ok(())
}

#[test]
fn wb08_what_is_no_greeting_reaches_nobody_and_waits_for_nobody() -> anyhow::Result<()> {
    let Some(place) = Place::build("no-greeting", ONE)? else { return Ok(()) };
    for backend in &place.backends {
        mirror(backend.name().to_owned(), listen(backend, 9443)?);
    }
    declare(&place)?;
    wait::until("the first name leads somewhere", PATIENCE, || {
        ask(&place, "blog.example.com", 0).ok().flatten()
    })?;
    let endless = [&[22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff], &[0; 70_000][..]].concat();
    for rubbish in [b"GET / HTTP/1.1\r\n\r\n".as_slice(), &[0; 4096], &endless] {
        let mut stream = connect(place.visitor(), at(1, 443))?;
        // The gateway may hang up in the middle.
        let _hung_up = stream.write_all(rubbish);
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer);
        assert!(
            answer.len() < 64 && !answer.starts_with(b"b"),
            "a backend answered: {:?}",
            String::from_utf8_lossy(&answer)
        );
    }
    // Whoever says nothing does not keep others from being served.
    let silent: Vec<_> =
        (0..50).map(|_| connect(place.visitor(), at(1, 443))).collect::<anyhow::Result<_>>()?;
    assert_eq!(ask(&place, "blog.example.com", 0)?.as_deref(), Some("b1"));
    drop(silent);
    Ok(())
}

/// As what the system tells of a connection that the other side has reset.
const RESET: [ErrorKind; 3] =
    [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe, ErrorKind::NotConnected];

/// Sends the greeting of a TLS client for `name`, and returns who answered, after comparing what
/// it had received with what was sent.
fn ask(place: &Place, name: &str, pieces: usize) -> anyhow::Result<Option<String>> {
    let greeting = greeting(name)?;
    let mut stream = connect(place.visitor(), at(1, 443))?;
    stream.set_nodelay(true)?;
    let length = if pieces == 0 { greeting.len() } else { pieces };
    // A reset is told to whoever writes or reads next, and only once as what it is.
    let mut told = Vec::new();
    for piece in greeting.chunks(length) {
        if let Err(error) = stream.write_all(piece) {
            told.push(error);
            break;
        }
        if pieces > 0 {
            // So that each piece is a segment of its own on its way.
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    told.extend(stream.shutdown(Shutdown::Write).err());
    let mut answer = Vec::new();
    told.extend(stream.read_to_end(&mut answer).err());
    // A name that leads nowhere is answered with a reset and no byte before it, so that a visitor
    // tries the next gateway.
    if answer.is_empty() {
        let was_reset = told.iter().any(|it| RESET.contains(&it.kind()));
        anyhow::ensure!(was_reset, "in pieces of {pieces}: closed, not reset: {told:?}");
        return Ok(None);
    }
    let end = answer.iter().position(|it| *it == b'\n').context("a backend that says its name")?;
    anyhow::ensure!(answer[end + 1..] == greeting, "the greeting arrived changed");
    Ok(Some(String::from_utf8(answer[..end].to_vec())?))
}

fn greeting(name: &str) -> anyhow::Result<Vec<u8>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from(name.to_owned())?;
    let mut connection = ClientConnection::new(Arc::new(config), name)?;
    let mut greeting = Vec::new();
    connection.write_tls(&mut greeting)?;
    Ok(greeting)
}

/// Answers each connection with its own name, a line end, and all that the visitor sent.
fn mirror(name: String, listener: TcpListener) {
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let name = name.clone();
            std::thread::spawn(move || {
                let mut received = Vec::new();
                let _reset = stream.read_to_end(&mut received);
                let answer = [name.as_bytes(), b"\n", &received].concat();
                let _reset = stream.write_all(&answer);
            });
        }
    });
}
