//! Flows against backends on loopback, with a gateway's end that is a channel.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use planner::publish::{Alternative, Backend, ClientAddress, Endpoint, Publication, Target};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::timeout;
use tunnel::link::{Answer, DatagramFlow, Ending, Flow, Incoming, Meter};
use tunnel_proto::message::{Open, Protocol, Refused, RefusedReason};

use super::Flows;
use crate::metrics::Metrics;
use crate::publication::Published;

const LIMIT: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_backend_is_told_who_visits_before_the_first_byte() {
    let backend = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let endpoint = backend.local_addr().expect("bound");
    let (_publish, flows) = flows(to(Protocol::Tcp, ClientAddress::ProxyV1, &[endpoint]));
    let (incoming, _answered) = incoming(Protocol::Tcp, b"hello");
    let task = tokio::spawn(async move { flows.answer(incoming, Arc::default()).await });

    let (mut stream, _) = backend.accept().await.expect("the agent connects");
    let mut said = String::new();
    stream.read_to_string(&mut said).await.expect("text");
    assert_eq!(said, "PROXY TCP4 198.51.100.7 192.0.2.1 40001 443\r\nhello");
    drop(stream);
    task.await.expect("it ends");
}

#[tokio::test]
async fn datagrams_go_on_to_another_endpoint_when_theirs_is_gone() {
    let (first, second) = (udp().await, udp().await);
    let endpoints = [first.local_addr().expect("bound"), second.local_addr().expect("bound")];
    let (publish, flows) =
        flows(to(Protocol::Udp, ClientAddress::ProxyV2, endpoints.get(..1).expect("two")));
    let (incoming, mut answered) = incoming(Protocol::Udp, b"");
    let task = tokio::spawn(async move { flows.answer(incoming, Arc::default()).await });
    let mut answer = timeout(LIMIT, answered.recv()).await.expect("in time").expect("accepted");

    // The header comes once, at the front of the first datagram.
    answer.to_agent.send(Bytes::from_static(b"one")).expect("the flow is open");
    answer.to_agent.send(Bytes::from_static(b"two")).expect("the flow is open");
    let (received, agent) = receive(&first).await;
    assert!(received.starts_with(b"\r\n\r\n\0\r\nQUIT\n") && received.ends_with(b"one"));
    assert_eq!(receive(&first).await.0, b"two");
    first.send_to(b"answer", agent).await.expect("sent");
    let back = timeout(LIMIT, answer.from_agent.recv()).await.expect("in time");
    assert_eq!(back.as_deref(), Some(b"answer".as_slice()));

    publish.send_replace(published(to(
        Protocol::Udp,
        ClientAddress::ProxyV2,
        endpoints.get(1..).expect("two"),
    )));
    // Until the move is made, the old endpoint may still get some.
    let moved = async {
        loop {
            answer.to_agent.send(Bytes::from_static(b"three")).expect("the flow is open");
            if let Ok(received) = timeout(Duration::from_millis(50), receive(&second)).await {
                return received.0;
            }
        }
    };
    let received = timeout(LIMIT, moved).await.expect("the flow moves");
    assert!(received.starts_with(b"\r\n\r\n\0\r\nQUIT\n"), "a new backend is told anew");
    drop(answer);
    task.await.expect("it ends with the flow");
}

#[tokio::test]
async fn every_refusal_has_its_reason() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let closed = nobody.local_addr().expect("bound");
    drop(nobody);
    check(to(Protocol::Tcp, ClientAddress::Hidden, &[closed]), RefusedReason::BackendRefused).await;
    check(to(Protocol::Tcp, ClientAddress::Hidden, &[]), RefusedReason::NoEndpoint).await;
    let mut invalid = to(Protocol::Tcp, ClientAddress::Hidden, &[]);
    for alternative in &mut invalid.alternatives {
        alternative.target = Target::Invalid("no such Service".to_owned());
    }
    check(invalid, RefusedReason::InvalidBackend).await;
}

#[tokio::test]
async fn an_agent_that_goes_away_takes_no_visitors_and_waits_for_those_it_has() {
    let backend = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let endpoint = backend.local_addr().expect("bound");
    let (_publish, flows) = flows(to(Protocol::Tcp, ClientAddress::Hidden, &[endpoint]));
    let flows = Arc::new(flows);
    let (here, mut answered) = incoming(Protocol::Tcp, b"");
    let one = tokio::spawn({
        let flows = Arc::clone(&flows);
        async move { flows.answer(here, Arc::default()).await }
    });
    let (stream, _) = backend.accept().await.expect("the agent connects");
    timeout(LIMIT, answered.recv()).await.expect("in time").expect("accepted");

    assert_eq!(flows.drain(Duration::from_millis(20)).await, 1, "one visitor is still there");
    let (late, refused) = incoming(Protocol::Tcp, b"");
    let refused = refused_by(&flows, late, refused).await;
    assert_eq!(refused.reason, RefusedReason::Draining);

    drop(stream);
    assert_eq!(flows.drain(LIMIT).await, 0);
    one.await.expect("it ends");
}

#[track_caller]
fn check(backend: Backend, expected: RefusedReason) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let (_publish, flows) = flows(backend);
        let (incoming, answered) = incoming(Protocol::Tcp, b"");
        let refused = refused_by(&flows, incoming, answered).await;
        assert_eq!(refused.reason, expected, "{} at {caller}", refused.detail);
    }
}

async fn refused_by(
    flows: &Flows,
    incoming: Incoming,
    mut answered: mpsc::UnboundedReceiver<Accepted>,
) -> Refused {
    let (why, refused) = oneshot::channel();
    let answer = Box::new(Answering { refused: Some(why), accepted: None, first: Bytes::new() });
    let incoming = Incoming { open: incoming.open, answer };
    flows.answer(incoming, Arc::default()).await;
    assert!(answered.try_recv().is_err(), "it is not accepted");
    refused.await.expect("it is refused")
}

fn flows(backend: Backend) -> (watch::Sender<Arc<Published>>, Flows) {
    let (publish, published) = watch::channel(published(backend));
    (publish, Flows::new(published, None, Arc::new(Metrics::new())))
}

fn published(backend: Backend) -> Arc<Published> {
    let backends = [("tcp:web/blog:443".to_owned(), backend)].into();
    let publication = Publication { backends, ..Publication::default() };
    Arc::new(Published { publication, complete: true, ..Published::default() })
}

fn to(protocol: Protocol, client_address: ClientAddress, endpoints: &[SocketAddr]) -> Backend {
    let endpoints =
        endpoints.iter().map(|it| Endpoint { address: *it, node: None, ready: true }).collect();
    let alternative = Alternative {
        weight: 1,
        target: Target::Endpoints(endpoints),
        client_address,
        prefer_local: false,
        affinity: false,
    };
    Backend { protocol, alternatives: vec![alternative], tls: None }
}

/// A visitor who sends `first` and no more, and what hears whether the flow was accepted.
fn incoming(
    protocol: Protocol,
    first: &'static [u8],
) -> (Incoming, mpsc::UnboundedReceiver<Accepted>) {
    let (accepted, receiver) = mpsc::unbounded_channel();
    let open = Open {
        backend: "tcp:web/blog:443".to_owned(),
        protocol,
        visitor: ([198, 51, 100, 7], 40001).into(),
        dialled: ([192, 0, 2, 1], 443).into(),
        server_name: None,
        probe: false,
    };
    let first = Bytes::from_static(first);
    let answer = Answering { refused: None, accepted: Some(accepted), first };
    (Incoming { open, answer: Box::new(answer) }, receiver)
}

/// The gateway's end of an accepted flow.
struct Accepted {
    to_agent: mpsc::UnboundedSender<Bytes>,
    from_agent: mpsc::UnboundedReceiver<Bytes>,
}

struct Answering {
    refused: Option<oneshot::Sender<Refused>>,
    accepted: Option<mpsc::UnboundedSender<Accepted>>,
    first: Bytes,
}

impl Answer for Answering {
    fn accept(self: Box<Self>) -> BoxFuture<'static, io::Result<Box<dyn Flow>>> {
        let (to_agent, receiver) = mpsc::unbounded_channel();
        let (sender, from_agent) = mpsc::unbounded_channel();
        let here = self.accepted.map(|it| it.send(Accepted { to_agent, from_agent }).is_ok());
        assert_eq!(here, Some(true), "the test waits for it");
        let flow = Flowing { first: self.first, receiver: Mutex::new(receiver), sender };
        Box::pin(async move { Ok(Box::new(flow) as Box<dyn Flow>) })
    }

    fn refuse(self: Box<Self>, why: Refused) -> BoxFuture<'static, ()> {
        if let Some(refused) = self.refused {
            refused.send(why).expect("the test waits for it");
        }
        Box::pin(async {})
    }
}

struct Flowing {
    first: Bytes,
    receiver: Mutex<mpsc::UnboundedReceiver<Bytes>>,
    sender: mpsc::UnboundedSender<Bytes>,
}

impl Flow for Flowing {
    fn relay(
        self: Box<Self>,
        mut plain: TcpStream,
        _first: Bytes,
        _meter: Arc<Meter>,
    ) -> BoxFuture<'static, Ending> {
        Box::pin(async move {
            if !self.first.is_empty() {
                plain.write_all(&self.first).await.expect("the backend reads");
                plain.shutdown().await.expect("the backend reads");
            }
            let mut rest = Vec::new();
            let _reset_or_end = plain.read_to_end(&mut rest).await;
            Ending::Closed
        })
    }

    fn into_datagrams(self: Box<Self>) -> Box<dyn DatagramFlow> {
        self
    }
}

impl DatagramFlow for Flowing {
    fn send(&self, payload: &[u8]) -> io::Result<()> {
        let sent = self.sender.send(Bytes::copy_from_slice(payload));
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn receive(&self) -> BoxFuture<'_, Option<Bytes>> {
        Box::pin(async { self.receiver.lock().await.recv().await })
    }
}

async fn udp() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").await.expect("a free port")
}

async fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 2048];
    let received = timeout(LIMIT, socket.recv_from(&mut buffer)).await.expect("in time");
    let (length, from) = received.expect("a datagram");
    buffer.truncate(length);
    (buffer, from)
}
