//! Stands between the session that its user sees and the SSH server: takes wishes, asks for
//! forwards, reports, hands out visitors.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use russh::client::{ChannelOpenHandle, Handle, Msg};
use russh::{Channel, ChannelMsg, ChannelReadHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tunnel_proto::message::{
    Desired, Open, PortReport, PortState, Protocol, PublishedPort, Range, Report, Route,
    SessionReport, ToAgent, ToGateway, VERSION, Welcome,
};
use tunnel_proto::server_name::{Greeting, ServerNames, read};

use super::dial::Watcher;
use super::flow::{Counters, Visitor};
use super::forwards::{Forwards, Place, Request, impossible};
use crate::link::{Carrier, Incoming};
use crate::peer::Identity;
use crate::session::{AgentSession, Channel as Messages, Control, Ended, Status};

/// How often it reports although nothing has changed.
const REPORT: Duration = Duration::from_secs(2);

/// How long a visitor may take to name the server that it wants.
const GREETING: Duration = Duration::from_secs(5);

/// Messages in flight between the two halves of this process.
const PIPE: usize = 64 << 10;

/// Visitors that wait for whoever answers them.
const WAITING: usize = 256;

/// A visitor of a forwarded port.
pub(super) struct Arrived {
    pub(super) channel: Channel<Msg>,
    pub(super) reply: ChannelOpenHandle,
    /// Where the server listened, as it was asked to.
    pub(super) address: String,
    pub(super) port: u16,
    pub(super) visitor: SocketAddr,
}

/// A wished port.
struct Published {
    port: PublishedPort,
    names: Option<ServerNames>,
    counters: Arc<Counters>,
}

/// What the server says to a request.
type Answered = (Request, Result<(), russh::Error>);

struct Server {
    handle: Arc<Handle<Watcher>>,
    control: Control<ToAgent, ToGateway>,
    flows: mpsc::Sender<Incoming>,
    address: SocketAddr,
    agent: String,
    local: SocketAddr,
    began: Instant,
    revision: u64,
    published: BTreeMap<Place, Arc<Published>>,
    /// Ports that cannot be published here, and why.
    impossible: Vec<(PublishedPort, String)>,
    forwards: Forwards,
    asked: FuturesUnordered<BoxFuture<'static, Answered>>,
}

/// Sets the session in motion.
pub(super) fn serve(
    handle: Handle<Watcher>,
    arrived: mpsc::Receiver<Arrived>,
    ended: watch::Receiver<Option<String>>,
    gateway: Identity,
    agent: &str,
    address: SocketAddr,
    local: SocketAddr,
) -> AgentSession {
    // The user's end of the control channel is an ordinary one; ours is the other end of a pipe.
    let (theirs, ours) = tokio::io::duplex(PIPE);
    let open = |stream| {
        let mut channel = Messages::over(stream);
        channel.trust();
        channel
    };
    let control = Control::start(open(theirs), Status::new());
    let (flows, incoming) = mpsc::channel(WAITING);
    let more = flows.downgrade();
    let server = Server {
        handle: Arc::new(handle),
        control: Control::start(open(ours), Status::new()),
        flows,
        address,
        agent: agent.to_owned(),
        local,
        began: Instant::now(),
        revision: 0,
        published: BTreeMap::new(),
        impossible: Vec::new(),
        forwards: Forwards::default(),
        asked: FuturesUnordered::new(),
    };
    tokio::spawn(server.run(arrived, ended));
    let welcome = Welcome {
        version: VERSION,
        gateway: gateway.name().to_owned(),
        token: [0; 16],
        agent_address: local,
        spare: 0,
        program: "OpenSSH".to_owned(),
    };
    let carrier = Carrier::Ssh;
    let flows = incoming;
    AgentSession { peer: gateway, welcome, carrier, address, control, flows, more }
}

impl Server {
    async fn run(
        mut self,
        mut arrived: mpsc::Receiver<Arrived>,
        mut ended: watch::Receiver<Option<String>>,
    ) {
        let mut report = tokio::time::interval(REPORT);
        report.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let why = loop {
            for request in self.forwards.requests(self.now()) {
                self.asked.push(ask(Arc::clone(&self.handle), request));
            }
            let due = self.forwards.next().map(|it| self.began + it);
            tokio::select! {
                message = self.control.receive() => match message {
                    Some(ToGateway::Desired(desired)) => {
                        self.wish(desired);
                        report.reset_immediately();
                    }
                    Some(ToGateway::Drain) => self.forwards.wish([], self.now()),
                    Some(_) => {}
                    None => break "the session was given up".to_owned(),
                },
                Some((request, answer)) = self.asked.next() => {
                    match answer {
                        Ok(()) => self.answered(request, true),
                        Err(russh::Error::RequestDenied) => self.answered(request, false),
                        Err(error) => break error.to_string(),
                    }
                    report.reset_immediately();
                }
                Some(visitor) = arrived.recv() => self.introduce(visitor),
                _ = report.tick() => {
                    let _ended = self.control.send(ToAgent::Report(self.report()));
                }
                () = until(due) => {}
                Ok(why) = ended.wait_for(Option::is_some) => {
                    break why.clone().unwrap_or_default();
                }
            }
        };
        tracing::info!(server = %self.address, why, "the SSH session has ended");
        self.control.status().end(Ended::Broken(why));
        let bye = self.handle.disconnect(russh::Disconnect::ByApplication, "", "");
        let _gone = tokio::time::timeout(Duration::from_secs(1), bye).await;
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn wish(&mut self, desired: Desired) {
        self.revision = desired.revision;
        self.impossible.clear();
        let mut published = BTreeMap::new();
        for port in desired.ports {
            if let Some(why) = impossible(&port) {
                self.impossible.push((port, why));
                continue;
            }
            let place = (port.address, port.port);
            let before = self.published.get(&place).map(|it| Arc::clone(&it.counters));
            let names = match &port.route {
                Route::ServerName(backends) => Some(ServerNames::new(backends)),
                Route::Backend(_) | Route::Nowhere => None,
            };
            let counters = before.unwrap_or_default();
            published.insert(place, Arc::new(Published { port, names, counters }));
        }
        self.published = published;
        self.forwards.wish(self.published.keys().copied(), self.began.elapsed());
    }

    fn answered(&mut self, request: Request, granted: bool) {
        let random = rand::random();
        let now = self.now();
        self.forwards.answered(request, granted, now, random);
        if let (Request::Listen((_, port)), false) = (request, granted) {
            tracing::debug!(server = %self.address, port, "the SSH server refuses a port");
        }
    }

    fn report(&self) -> Report {
        let count = |it: &std::sync::atomic::AtomicU64| it.load(Ordering::Relaxed);
        let ports = self.published.iter().filter_map(|(place, it)| {
            let state = self.forwards.state(place)?;
            let counters = &it.counters;
            Some(PortReport {
                open: count(&counters.open),
                total: count(&counters.total),
                received: count(&counters.received),
                sent: count(&counters.sent),
                failed: count(&counters.failed),
                ..port_report(&it.port, state)
            })
        });
        let impossible = self.impossible.iter();
        let impossible =
            impossible.map(|(port, why)| port_report(port, PortState::Failed(why.clone())));
        let flows = self.published.values().map(|it| count(&it.counters.open)).sum();
        let session = SessionReport {
            agent: self.agent.clone(),
            node: None,
            carrier: Carrier::Ssh.to_string(),
            address: self.local,
            round_trip_us: 0,
            flows,
            age_seconds: self.began.elapsed().as_secs(),
        };
        Report {
            revision: self.revision,
            ports: ports.chain(impossible).collect(),
            sessions: vec![session],
            ..Report::default()
        }
    }

    /// Finds out where a visitor is to go, and asks for an answer.
    fn introduce(&self, arrived: Arrived) {
        // The server names the address that it was asked for, or one of its own.
        let address: Option<IpAddr> = arrived.address.parse().ok();
        let here = |it: &&Place| it.1 == arrived.port;
        let exact = self.published.get_key_value(&(address, arrived.port)).map(|(it, _)| it);
        let place = exact.or_else(|| self.published.keys().find(here));
        let Some(published) = place.and_then(|it| self.published.get(it)) else { return };
        if !allowed(&published.port.allow_from, arrived.visitor.ip()) {
            tracing::debug!(visitor = %arrived.visitor, "a visitor is not allowed");
            return;
        }
        let dialled = SocketAddr::new(address.unwrap_or(self.address.ip()), arrived.port);
        tokio::spawn(introduce(arrived, dialled, Arc::clone(published), self.flows.clone()));
    }
}

async fn introduce(
    arrived: Arrived,
    dialled: SocketAddr,
    published: Arc<Published>,
    flows: mpsc::Sender<Incoming>,
) {
    let Arrived { channel, reply, visitor, .. } = arrived;
    let (mut read, write) = channel.split();
    let mut reply = Some(reply);
    let (mut received, mut server_name) = (Bytes::new(), None);
    let backend = match (&published.port.route, &published.names) {
        (Route::Backend(backend), _) => Some(backend.clone()),
        (Route::ServerName(_), Some(names)) => {
            // To hear what a visitor says, it must be let in.
            if let Some(reply) = reply.take() {
                reply.accept().await;
            }
            let greeting = tokio::time::timeout(GREETING, greeting(&mut read)).await;
            match greeting {
                Ok(Some((bytes, name))) => {
                    received = bytes;
                    let backend = names.pick(name.as_deref()).map(str::to_owned);
                    server_name = name;
                    backend
                }
                Ok(None) | Err(_) => None,
            }
        }
        (Route::ServerName(_) | Route::Nowhere, _) => None,
    };
    let counters = Arc::clone(&published.counters);
    let Some(backend) = backend else {
        counters.failed.fetch_add(1, Ordering::Relaxed);
        if reply.is_none() {
            let _gone = write.close().await;
        }
        return;
    };
    let open =
        Open { backend, protocol: Protocol::Tcp, visitor, dialled, server_name, probe: false };
    let answer = Box::new(Visitor { reply, read, write, received, counters });
    // Nobody answers any more: dropped, the visitor is refused.
    let _nobody = flows.send(Incoming { open, answer }).await;
}

/// What a visitor says first, and the server name in it; `None` when it says nothing of TLS.
async fn greeting(channel: &mut ChannelReadHalf) -> Option<(Bytes, Option<String>)> {
    let mut received = BytesMut::new();
    loop {
        let message = channel.wait().await?;
        if matches!(message, ChannelMsg::Eof | ChannelMsg::Close) {
            return None;
        }
        let ChannelMsg::Data { data } = message else { continue };
        received.extend_from_slice(&data);
        match read(&received) {
            Greeting::Incomplete => {}
            Greeting::Name(name) => return Some((received.freeze(), Some(name))),
            Greeting::NoName => return Some((received.freeze(), None)),
            Greeting::NotTls(_) => return None,
        }
    }
}

fn ask(handle: Arc<Handle<Watcher>>, request: Request) -> BoxFuture<'static, Answered> {
    Box::pin(async move {
        // An empty address means all of them, of both families (RFC 4254 section 7.1).
        let address = |it: Option<IpAddr>| it.map(|it| it.to_string()).unwrap_or_default();
        let answer = match request {
            Request::Listen((at, port)) => {
                handle.tcpip_forward(address(at), port.into()).await.map(|_port| ())
            }
            Request::Cancel((at, port)) => {
                handle.cancel_tcpip_forward(address(at), port.into()).await
            }
        };
        (request, answer)
    })
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

fn port_report(port: &PublishedPort, state: PortState) -> PortReport {
    PortReport {
        address: port.address,
        port: port.port,
        protocol: port.protocol,
        state,
        open: 0,
        total: 0,
        received: 0,
        sent: 0,
        failed: 0,
        probed: None,
    }
}

/// Whether a visitor may come; an empty list allows everybody.
fn allowed(ranges: &[Range], visitor: IpAddr) -> bool {
    let visitor = visitor.to_canonical();
    let holds = |range: &Range| match (range.address, visitor) {
        (IpAddr::V4(network), IpAddr::V4(visitor)) => {
            let bits = 32_u32.saturating_sub(range.prefix.into());
            let mask = u32::MAX.checked_shl(bits).unwrap_or(0);
            network.to_bits() & mask == visitor.to_bits() & mask
        }
        (IpAddr::V6(network), IpAddr::V6(visitor)) => {
            let bits = 128_u32.saturating_sub(range.prefix.into());
            let mask = u128::MAX.checked_shl(bits).unwrap_or(0);
            network.to_bits() & mask == visitor.to_bits() & mask
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    };
    ranges.is_empty() || ranges.iter().any(holds)
}
