//! Answers visitors: finds who should, connects, and carries bytes until one side is done.

mod choose;
mod connect;
mod datagrams;
mod tls;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use planner::publish::{Backend, ClientAddress};
use rustls::ServerConfig;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{Mutex, Notify, watch};
use tunnel::link::{Answer, Ending, Incoming, Meter};
use tunnel_proto::message::{Open, Protocol, Refused, RefusedReason};
use tunnel_proto::proxy_header::{self, Connection, Version};

use crate::metrics::{Metrics, RefusedLabel};
use crate::publication::Published;
use crate::transparent::Steering;
use choose::Choice;
pub(crate) use choose::reach;
use connect::{ConnectError, connect};

/// What every flow needs.
#[derive(Debug)]
pub(crate) struct Flows {
    published: watch::Receiver<Arc<Published>>,
    node: Option<String>,
    metrics: Arc<Metrics>,
    /// Rules for transparent backends; made with the first flow that needs them.
    steering: Mutex<Steered>,
    draining: AtomicBool,
    open: AtomicUsize,
    closed: Notify,
}

impl Flows {
    pub(crate) fn new(
        published: watch::Receiver<Arc<Published>>,
        node: Option<String>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            published,
            node,
            metrics,
            steering: Mutex::new(Steered::Not),
            draining: AtomicBool::new(false),
            open: AtomicUsize::new(0),
            closed: Notify::new(),
        }
    }

    /// Refuses new flows from now on, and waits until the open ones have ended or `patience` has.
    /// Returns how many are left.
    pub(crate) async fn drain(&self, patience: Duration) -> usize {
        // Before the flows are counted, in every order that processors know: a flow is counted first
        // and then looks whether it may begin.
        self.draining.swap(true, Ordering::SeqCst);
        let empty = async {
            while self.open.load(Ordering::SeqCst) > 0 {
                self.closed.notified().await;
            }
        };
        let _all_or_some = tokio::time::timeout(patience, empty).await;
        self.open.load(Ordering::Acquire)
    }

    /// Takes the rules for transparent backends away.
    pub(crate) async fn stop(&self) {
        let steered = std::mem::replace(&mut *self.steering.lock().await, Steered::Not);
        if let Steered::Yes(steering) = steered {
            steering.stop().await;
        }
    }

    /// Answers one flow and stays with it to its end. `meter` counts its bytes.
    pub(crate) async fn answer(&self, incoming: Incoming, meter: Arc<Meter>) {
        let _counted = Counted::new(self, &incoming.open);
        // What leads to a flow takes much more memory than a flow that waits for bytes: it is on
        // the heap, and gone by then.
        if let Some(relay) = Box::pin(self.begin(incoming, meter)).await
            && relay.await == Ending::Lost
        {
            tracing::debug!("a flow was lost with its session");
        }
    }

    /// Answers a flow. Returns what carries its bytes; a flow of datagrams is over by then.
    async fn begin(&self, incoming: Incoming, meter: Arc<Meter>) -> Option<Relay> {
        let Incoming { open, answer } = incoming;
        let begun = match open.protocol {
            Protocol::Tcp => self.answer_tcp(&open, answer, meter).await,
            Protocol::Udp => self.answer_udp(&open, answer, meter).await.map(|()| None),
        };
        match begun {
            Ok(relay) => relay,
            Err((answer, why)) => {
                let label = RefusedLabel { reason: name(why.reason) };
                self.metrics.refused.get_or_create(&label).inc();
                tracing::debug!(backend = open.backend, why = why.detail, "a flow is refused");
                answer.refuse(why).await;
                None
            }
        }
    }

    async fn answer_tcp(
        &self,
        open: &Open,
        answer: Box<dyn Answer>,
        meter: Arc<Meter>,
    ) -> Result<Option<Relay>, (Box<dyn Answer>, Refused)> {
        let begun = Instant::now();
        let chosen = match self.choose(open) {
            Ok(chosen) => chosen,
            Err(why) => return Err((answer, why)),
        };
        let visitor = match self.shown(open, chosen.client_address).await {
            Ok(visitor) => visitor,
            Err(why) => return Err((answer, why)),
        };
        let mut stream = match connect(&chosen.endpoints, visitor).await {
            Ok((stream, _)) => stream,
            Err(error) => return Err((answer, refusal(&error))),
        };
        let header = header(open, chosen.client_address);
        if !header.is_empty()
            && let Err(error) = stream.write_all(&header).await
        {
            let detail = format!("the backend took no PROXY header: {error}");
            return Err((answer, Refused { reason: RefusedReason::BackendRefused, detail }));
        }
        self.metrics.stream_open_seconds.observe(begun.elapsed().as_secs_f64());
        match answer.accept().await {
            Ok(flow) => Ok(Some(match chosen.tls {
                None => flow.relay(stream, Bytes::new(), meter),
                Some(config) => Box::pin(tls::relay(flow, config, stream, meter)),
            })),
            // Too late: the gateway has asked somebody else.
            Err(error) => {
                tracing::debug!(backend = open.backend, %error, "an answer came late");
                Ok(None)
            }
        }
    }

    async fn answer_udp(
        &self,
        open: &Open,
        answer: Box<dyn Answer>,
        meter: Arc<Meter>,
    ) -> Result<(), (Box<dyn Answer>, Refused)> {
        let (mut socket, mut endpoint, mut header) = match self.datagram_socket(open).await {
            Ok(ready) => ready,
            Err(why) => return Err((answer, why)),
        };
        let flow = match answer.accept().await {
            Ok(flow) => flow.into_datagrams(),
            Err(error) => {
                tracing::debug!(backend = open.backend, %error, "an answer came late");
                return Ok(());
            }
        };
        loop {
            let moved = self.until_gone(&open.backend, endpoint);
            let over = datagrams::carry(flow.as_ref(), &socket, &mut header, &meter, moved).await;
            if over == datagrams::Over::Flow {
                return Ok(());
            }
            // The endpoint is gone while the visitor goes on: another one takes the flow.
            match self.datagram_socket(open).await {
                Ok(ready) => (socket, endpoint, header) = ready,
                Err(why) => {
                    tracing::debug!(backend = open.backend, why = why.detail, "a flow ends");
                    return Ok(());
                }
            }
        }
    }

    async fn datagram_socket(
        &self,
        open: &Open,
    ) -> Result<(tokio::net::UdpSocket, SocketAddr, Bytes), Refused> {
        let chosen = self.choose(open)?;
        let visitor = self.shown(open, chosen.client_address).await?;
        let mut failed = None;
        for endpoint in chosen.endpoints {
            match datagrams::socket(endpoint, visitor).await {
                Ok(socket) => {
                    return Ok((socket, endpoint, header(open, chosen.client_address)));
                }
                Err(error) => failed = Some(format!("{endpoint} cannot be spoken to: {error}")),
            }
        }
        let detail = failed.unwrap_or_default();
        Err(Refused { reason: RefusedReason::BackendRefused, detail })
    }

    /// Decides who answers.
    fn choose(&self, open: &Open) -> Result<Chosen, Refused> {
        if self.draining.load(Ordering::SeqCst) {
            let detail = "the agent is going away".to_owned();
            return Err(Refused { reason: RefusedReason::Draining, detail });
        }
        let published = Arc::clone(&self.published.borrow());
        let Some(backend) = published.publication.backends.get(&open.backend) else {
            let detail = format!("no backend `{}` is known here", open.backend);
            return Err(Refused { reason: RefusedReason::NoEndpoint, detail });
        };
        let tls = match &backend.tls {
            None => None,
            Some(end) => Some(published.tls_ends.get(end).cloned().ok_or_else(|| {
                let detail = format!("no certificate to end TLS for `{}`", open.backend);
                Refused { reason: RefusedReason::NoEndpoint, detail }
            })?),
        };
        let visitor: IpAddr = open.visitor.ip().to_canonical();
        match choose::choose(backend, self.node.as_deref(), visitor, rand::random()) {
            Choice::Endpoints { alternative, endpoints } => {
                Ok(Chosen { endpoints, client_address: alternative.client_address, tls })
            }
            Choice::Invalid(why) => {
                let detail = why.to_owned();
                Err(Refused { reason: RefusedReason::InvalidBackend, detail })
            }
            Choice::None => {
                let detail = format!("no endpoint of `{}` is ready here", open.backend);
                Err(Refused { reason: RefusedReason::NoEndpoint, detail })
            }
        }
    }

    /// The address to show to a transparent backend.
    async fn shown(
        &self,
        open: &Open,
        client_address: ClientAddress,
    ) -> Result<Option<SocketAddr>, Refused> {
        // A probe has no visitor whose address could be shown, and sends nothing.
        if client_address != ClientAddress::Transparent || open.probe {
            return Ok(None);
        }
        let mut steered = self.steering.lock().await;
        let failed = match &*steered {
            Steered::Yes(_) => return Ok(Some(open.visitor)),
            Steered::Failed(at, why) if at.elapsed() < AGAIN => why.clone(),
            Steered::Not | Steered::Failed(..) => match Steering::start().await {
                Ok(steering) => {
                    *steered = Steered::Yes(steering);
                    return Ok(Some(open.visitor));
                }
                Err(error) => {
                    tracing::warn!(
                        %error,
                        "portcullis.dev/client-address: transparent: visitors are refused; run the \
                         agent in the network of its node with CAP_NET_ADMIN"
                    );
                    *steered = Steered::Failed(Instant::now(), error.to_string());
                    error.to_string()
                }
            },
        };
        // A backend that trusts addresses must not be shown ours instead.
        let detail = format!("the visitor's address cannot be shown: {failed}");
        Err(Refused { reason: RefusedReason::NoEndpoint, detail })
    }

    /// Completes when `endpoint` takes no more flows of `key`, but others do.
    async fn until_gone(&self, key: &str, endpoint: SocketAddr) {
        let node = self.node.as_deref();
        let mut published = self.published.clone();
        let is_gone = |it: &Arc<Published>| {
            let backend: Option<&Backend> = it.publication.backends.get(key);
            backend.is_some_and(|backend| {
                !choose::still_serves(backend, node, endpoint)
                    && reach(backend, node) != tunnel_proto::message::Reach::None
            })
        };
        if published.wait_for(is_gone).await.is_err() {
            // Nobody publishes any more: the agent ends.
            std::future::pending::<()>().await;
        }
    }
}

/// Carries the bytes of a flow until it has ended.
type Relay = BoxFuture<'static, Ending>;

/// Whether answers of transparent backends are led back.
#[derive(Debug)]
enum Steered {
    Not,
    Yes(Steering),
    /// They cannot be, as tried at that time.
    Failed(Instant, String),
}

/// How long a failure to lead answers back counts before it is tried again.
const AGAIN: Duration = Duration::from_secs(30);

struct Chosen {
    endpoints: Vec<SocketAddr>,
    client_address: ClientAddress,
    /// How TLS ends before the endpoint, if it does.
    tls: Option<Arc<ServerConfig>>,
}

/// Counts a flow for as long as it lives.
struct Counted<'a> {
    flows: &'a Flows,
    protocol: Protocol,
}

impl<'a> Counted<'a> {
    fn new(flows: &'a Flows, open: &Open) -> Self {
        flows.open.fetch_add(1, Ordering::SeqCst);
        match open.protocol {
            Protocol::Tcp => flows.metrics.streams_open.inc(),
            Protocol::Udp => flows.metrics.udp_sessions.inc(),
        };
        Self { flows, protocol: open.protocol }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        match self.protocol {
            Protocol::Tcp => self.flows.metrics.streams_open.dec(),
            Protocol::Udp => self.flows.metrics.udp_sessions.dec(),
        };
        self.flows.open.fetch_sub(1, Ordering::AcqRel);
        self.flows.closed.notify_one();
    }
}

fn header(open: &Open, client_address: ClientAddress) -> Bytes {
    let version = match client_address {
        ClientAddress::Hidden | ClientAddress::Transparent => return Bytes::new(),
        ClientAddress::ProxyV1 => Version::V1,
        ClientAddress::ProxyV2 => Version::V2,
    };
    let connection = Connection {
        protocol: open.protocol,
        visitor: open.visitor,
        dialled: open.dialled,
        server_name: open.server_name.as_deref(),
        unique_id: &[],
        probe: open.probe,
    };
    proxy_header::encode(version, &connection).into()
}

fn refusal(error: &ConnectError) -> Refused {
    let reason = match error {
        ConnectError::Refused { .. } => RefusedReason::BackendRefused,
        ConnectError::Late { .. } => RefusedReason::BackendTimeout,
        // Another agent may be better placed.
        ConnectError::Transparent { .. } | ConnectError::None => RefusedReason::NoEndpoint,
    };
    Refused { reason, detail: error.to_string() }
}

fn name(reason: RefusedReason) -> &'static str {
    match reason {
        RefusedReason::NoEndpoint => "NoEndpoint",
        RefusedReason::BackendRefused => "BackendRefused",
        RefusedReason::BackendTimeout => "BackendTimeout",
        RefusedReason::Draining => "Draining",
        RefusedReason::InvalidBackend => "InvalidBackend",
    }
}

#[cfg(test)]
mod tests;
