//! Listeners where TLS ends, and listeners for HTTP.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use anyhow::Context as _;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use testkit::wait;

use crate::objects::Service;
use crate::place::{ONE, PATIENCE, Place, at};
use crate::sockets::{connect, listen};

const GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: { name: portcullis }
spec: { controllerName: portcullis.dev/gateway-controller }
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { namespace: web, name: public, creationTimestamp: '2026-01-01T00:00:00Z' }
spec:
  gatewayClassName: portcullis
  listeners:
  - { name: http, port: 80, protocol: HTTP }
  - { name: https, port: 443, protocol: HTTPS, hostname: '*.example.com', tls: { certificateRefs: [{ name: wildcard }] } }
  - { name: ends, port: 8443, protocol: TLS, tls: { mode: Terminate, certificateRefs: [{ name: wildcard }] } }
";

#[test]
fn tls_ends_at_an_agent_and_requests_go_on_unread() -> anyhow::Result<()> {
    let Some(place) = Place::build("certificates", ONE)? else { return Ok(()) };
    for backend in &place.backends {
        answer(backend.name().to_owned(), listen(backend, 9080)?);
    }
    for (name, endpoint) in [("blog", "10.77.0.31"), ("shop", "10.77.0.32")] {
        let service = Service {
            name,
            spec: "type: ClusterIP",
            ports: &[(80, "TCP", 9080)],
            endpoints: &[endpoint],
            ..Service::default()
        };
        place.write(name, &service.yaml())?;
    }
    let first = certificate(&place)?;
    place.write("gateway", GATEWAY)?;
    let routes = [
        route("HTTPRoute", "blog", "https", "[blog.example.com]"),
        route("HTTPRoute", "shop", "https", "[]"),
        route("TLSRoute", "shop", "ends", "[raw.example.com]"),
        route("HTTPRoute", "blog", "http", "[]"),
    ];
    place.write("routes", &routes.join("---\n"))?;

    wait::until("the listener leads somewhere", PATIENCE, || {
        ask(&place, 443, "blog.example.com", &first).ok()
    })?;
    for (port, name, expected) in [
        (443, "blog.example.com", "b1"),
        (443, "other.example.com", "b2"),
        (8443, "raw.example.com", "b2"),
    ] {
        let answered = ask(&place, port, name, &first).with_context(|| name.to_owned())?;
        assert_eq!(answered, format!("{expected} got GET / HTTP/1.1"), "{name}");
    }
    ask(&place, 443, "blog.example.org", &first).expect_err("a name of nobody");
    let plain = say(connect(place.visitor(), at(1, 80))?)?;
    assert_eq!(plain, "b1 got GET / HTTP/1.1");

    // A new certificate counts for the next visitor.
    let second = certificate(&place)?;
    wait::until("the new certificate to be shown", PATIENCE, || {
        ask(&place, 443, "blog.example.com", &second).ok()
    })?;
    ask(&place, 443, "blog.example.com", &first).expect_err("the old one is not trusted any more");
    Ok(())
}

/// Writes a Secret with a new certificate, and returns that.
fn certificate(place: &Place) -> anyhow::Result<String> {
    let names = ["*.example.com".to_owned()];
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names)?;
    let secret = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{ namespace: web, name: wildcard }}\n\
         type: kubernetes.io/tls\nstringData: {{ tls.crt: {:?}, tls.key: {:?} }}\n",
        cert.pem(),
        signing_key.serialize_pem(),
    );
    place.write("certificate", &secret)?;
    Ok(cert.pem())
}

fn route(kind: &str, service: &str, listener: &str, hostnames: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\n\
         metadata: {{ namespace: web, name: {service}-{listener} }}\n\
         spec:\n  parentRefs: [{{ name: public, sectionName: {listener} }}]\n  \
         hostnames: {hostnames}\n  rules: [{{ backendRefs: [{{ name: {service}, port: 80 }}] }}]\n"
    )
}

/// Asks by TLS, trusting one certificate, and returns the answer.
fn ask(place: &Place, port: u16, name: &str, trusted: &str) -> anyhow::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusted.as_bytes())?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned())?;
    let connection = ClientConnection::new(Arc::new(config), name)?;
    say(StreamOwned::new(connection, connect(place.visitor(), at(1, port))?))
}

/// Sends a request and returns all that comes back.
fn say(mut stream: impl std::io::Read + std::io::Write) -> anyhow::Result<String> {
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Answers each connection with its own name and the first line that it got.
fn answer(name: String, listener: TcpListener) {
    let serve = move |mut stream: TcpStream| -> std::io::Result<()> {
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line)?;
        write!(stream, "{name} got {}", line.trim_end())?;
        stream.shutdown(std::net::Shutdown::Both)
    };
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A visitor that is gone needs no answer.
            let _gone = serve(stream);
        }
    });
}
