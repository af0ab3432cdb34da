//! Visitors with TLS against a backend without.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use planner::publish::TlsEnd;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tunnel::link::{DatagramFlow, Ending, Flow, Meter};

use super::relay;
use crate::certificates::Certificates;
use crate::certificates::tests::{applied, name, pem};

const LIMIT: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_backend_gets_what_was_inside_and_its_answer_goes_back() {
    let stage = Stage::new(true, &["a.example.com"]);
    let (visitor, mut backend, _task) =
        stage.visit("a.example.com", 0, &[b"h2", b"http/1.1"]).await;
    let mut visitor = visitor.expect("a handshake");
    assert_eq!(visitor.get_ref().1.alpn_protocol(), Some(b"http/1.1".as_slice()));
    visitor.write_all(b"question").await.expect("sent");
    visitor.shutdown().await.expect("sent");
    let mut heard = String::new();
    within(backend.read_to_string(&mut heard)).await.expect("text");
    assert_eq!(heard, "question", "with its end");
    backend.write_all(b"answer").await.expect("sent");
    drop(backend);
    heard.clear();
    within(visitor.read_to_string(&mut heard)).await.expect("text, and an end that is one");
    assert_eq!(heard, "answer");
}

#[tokio::test]
async fn a_visitor_gets_the_certificate_for_the_name_it_asks_for() {
    let stage = Stage::new(false, &["a.example.com", "b.example.com"]);
    for (index, name) in ["a.example.com", "b.example.com"].into_iter().enumerate() {
        let (visitor, _backend, _task) = stage.visit(name, index, &[]).await;
        let visitor = visitor.expect("a handshake");
        assert_eq!(visitor.get_ref().1.alpn_protocol(), None);
    }
    // It trusts the second certificate alone, and asks for the name of the first.
    let (visitor, _backend, task) = stage.visit("a.example.com", 1, &[]).await;
    visitor.expect_err("not the certificate that it trusts");
    within(task).await.expect("the flow ends");
}

#[tokio::test]
async fn a_backend_that_breaks_off_breaks_the_visitor_off() {
    let stage = Stage::new(false, &["a.example.com"]);
    let (visitor, backend, task) = stage.visit("a.example.com", 0, &[]).await;
    let mut visitor = visitor.expect("a handshake");
    super::reset_on_close(&backend);
    drop(backend);
    let end = within(visitor.read_u8()).await.expect_err("no answer");
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset, "{end}");
    drop(visitor);
    within(task).await.expect("the flow ends");
}

struct Stage {
    config: Arc<rustls::ServerConfig>,
    authorities: Vec<String>,
}

impl Stage {
    /// TLS ends with a certificate for each of these names.
    fn new(http: bool, names: &[&str]) -> Self {
        let mut certificates = Certificates::new();
        let mut authorities = Vec::new();
        for host in names {
            let pem = pem(host);
            assert_eq!(certificates.note(&applied(host, &pem)), []);
            authorities.push(pem.0);
        }
        let tls = TlsEnd { certificates: names.iter().map(|it| name(it)).collect(), http };
        let backend = planner::publish::Backend {
            protocol: tunnel_proto::message::Protocol::Tcp,
            alternatives: Vec::new(),
            tls: Some(tls),
        };
        let backends = [("key".to_owned(), backend)].into();
        let publication =
            planner::publish::Publication { backends, ..planner::publish::Publication::default() };
        let config = certificates.ends(&publication).pop_first().expect("an end").1;
        Self { config, authorities }
    }

    /// A visitor that trusts the certificate of this index, the backend's end, and the flow.
    async fn visit(
        &self,
        name: &str,
        trusted: usize,
        protocols: &[&[u8]],
    ) -> (std::io::Result<TlsStream<TcpStream>>, TcpStream, JoinHandle<Ending>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let near = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("up");
        let (backend, _) = listener.accept().await.expect("a connection");
        let (give, plain) = oneshot::channel();
        let flow = Box::new(Handed(give));
        let task = relay(flow, Arc::clone(&self.config), near, Arc::default());
        let task = tokio::spawn(task);
        let plain = within(plain).await.expect("the flow carries bytes");

        let mut roots = RootCertStore::empty();
        let pem = self.authorities.get(trusted).expect("a certificate");
        let trusted = CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM");
        roots.add(trusted).expect("a certificate");
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|it| it.to_vec()).collect();
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let visitor = TlsConnector::from(Arc::new(config)).connect(name, plain);
        (within(visitor).await, backend, task)
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(LIMIT, future).await.expect("in time")
}

/// A flow whose other end is the test: it gets the socket that the tunnel would read.
struct Handed(oneshot::Sender<TcpStream>);

impl Flow for Handed {
    fn relay(
        self: Box<Self>,
        plain: TcpStream,
        _first: Bytes,
        _meter: Arc<Meter>,
    ) -> BoxFuture<'static, Ending> {
        self.0.send(plain).expect("the test waits for it");
        Box::pin(async { Ending::Closed })
    }

    fn into_datagrams(self: Box<Self>) -> Box<dyn DatagramFlow> {
        unreachable!("TLS is carried as a stream")
    }
}
