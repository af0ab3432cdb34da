//! A small agent: wishes what it is told, reaches backends directly.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tunnel::dialler::{DiallerSettings, Endpoint, dial};
use tunnel::link::{Incoming, Meter};
use tunnel::session::AgentSession;
use tunnel::trust::{AgentTrust, OneTimeSecret, Signer};
use tunnel_proto::message::{
    Desired, Protocol, PublishedPort, Reach, Refused, RefusedReason, Report, Serving, ToAgent,
    ToGateway,
};

/// Sessions of one agent are ordered, those of different tests do not meet.
static EPOCH: AtomicU64 = AtomicU64::new(1);

/// A running agent. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Agent {
    orders: mpsc::UnboundedSender<Order>,
    seen: Arc<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    report: Mutex<Option<Report>>,
    sessions: AtomicU64,
    opened: AtomicU64,
    /// Flows are neither taken nor refused.
    silent: std::sync::atomic::AtomicBool,
    /// When its session ends, none follows.
    last: std::sync::atomic::AtomicBool,
}

#[derive(Clone, Debug)]
enum Order {
    Publish(Desired, BTreeMap<String, SocketAddr>),
    Send(ToGateway),
}

impl Agent {
    /// Connects, adopts the gateway if it has to, and stays connected.
    pub(crate) async fn start(
        signer: Arc<dyn Signer>,
        secret: &[u8],
        name: &str,
        gateway: SocketAddr,
    ) -> anyhow::Result<Self> {
        let trust = AgentTrust::new(signer, name).await?;
        let endpoint = Endpoint { host: gateway.ip().to_string(), port: gateway.port() };
        let settings =
            DiallerSettings::new(vec![endpoint.clone()], trust.handshakes("fra1")?, name);
        let session = match dial(&settings, next_epoch()).await {
            Ok(session) => session,
            Err(_) => {
                let adoption = tunnel::adoption::dial(&[endpoint], &trust, "fra1").await?;
                let secret = OneTimeSecret::from_bytes(secret).context("a secret")?;
                tunnel::adoption::adopt(adoption, &trust, secret, async { Ok(()) }).await?;
                dial(&settings, next_epoch()).await?
            }
        };
        let (orders, ordered) = mpsc::unbounded_channel();
        let seen = Arc::new(Seen::default());
        tokio::spawn(live(settings, session, ordered, Arc::clone(&seen)));
        Ok(Self { orders, seen })
    }

    /// Wishes these ports and serves these backends from now on.
    pub(crate) fn publish(
        &self,
        revision: u64,
        ports: Vec<PublishedPort>,
        backends: &[(&str, SocketAddr)],
    ) {
        let backends = backends.iter().map(|(key, at)| ((*key).to_owned(), *at)).collect();
        let desired = Desired { revision, ports, quota: None };
        let _ended = self.orders.send(Order::Publish(desired, backends));
    }

    /// Says something to the gateway.
    pub(crate) fn send(&self, message: ToGateway) {
        let _ended = self.orders.send(Order::Send(message));
    }

    /// The last report.
    pub(crate) fn report(&self) -> Option<Report> {
        self.seen.report.lock().expect("whole").clone()
    }

    /// Waits until a report is as expected.
    pub(crate) fn wait_for_report(
        &self,
        what: &str,
        expected: impl Fn(&Report) -> bool,
    ) -> anyhow::Result<Report> {
        let found = testkit::wait::until(what, crate::place::DEADLINE, || {
            self.report().filter(|it| expected(it))
        });
        found.with_context(|| format!("at last: {:#?}", self.report()))
    }

    /// Sessions so far.
    pub(crate) fn sessions(&self) -> u64 {
        self.seen.sessions.load(Ordering::Relaxed)
    }

    /// Flows that it was asked to take so far.
    pub(crate) fn opened(&self) -> u64 {
        self.seen.opened.load(Ordering::Relaxed)
    }

    /// Begins no session when the present one ends.
    pub(crate) fn do_not_come_back(&self) {
        self.seen.last.store(true, Ordering::Relaxed);
    }

    /// Says nothing to visitors from now on, as if it were dead and nobody knew yet.
    pub(crate) fn be_silent(&self) {
        self.seen.silent.store(true, Ordering::Relaxed);
    }
}

fn next_epoch() -> u64 {
    EPOCH.fetch_add(1, Ordering::Relaxed)
}

/// Keeps a session, and begins the next one as soon as the gateway says that it goes away.
async fn live(
    settings: DiallerSettings,
    session: AgentSession,
    mut orders: mpsc::UnboundedReceiver<Order>,
    seen: Arc<Seen>,
) {
    let mut wish = None;
    let mut session = Some(session);
    loop {
        let present = match session.take() {
            Some(session) => session,
            None => match dial(&settings, next_epoch()).await {
                Ok(session) => session,
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        seen.sessions.fetch_add(1, Ordering::Relaxed);
        if !hold(present, &mut orders, &mut wish, &seen).await || seen.last.load(Ordering::Relaxed)
        {
            // Flows that are open go on as long as somebody holds the agent.
            while orders.recv().await.is_some() {}
            return;
        }
    }
}

/// Holds one session until it ends or should be followed by another one. `false` when the agent
/// is to end.
async fn hold(
    session: AgentSession,
    orders: &mut mpsc::UnboundedReceiver<Order>,
    wish: &mut Option<(Desired, BTreeMap<String, SocketAddr>)>,
    seen: &Arc<Seen>,
) -> bool {
    let AgentSession { mut control, mut flows, .. } = session;
    let backends = Arc::new(Mutex::new(BTreeMap::new()));
    let tell = |wish: &(Desired, BTreeMap<String, SocketAddr>), backends: &Mutex<_>| {
        let (desired, served) = wish;
        let mut serving: Vec<Serving> =
            served.keys().map(|it| Serving { backend: it.clone(), reach: Reach::Remote }).collect();
        let mut known: std::sync::MutexGuard<'_, BTreeMap<String, SocketAddr>> =
            backends.lock().expect("whole");
        for gone in known.keys().filter(|it| !served.contains_key(*it)) {
            serving.push(Serving { backend: gone.clone(), reach: Reach::None });
        }
        known.clone_from(served);
        [ToGateway::Serving(serving), ToGateway::Desired(desired.clone())]
    };
    if let Some(wish) = wish.as_ref() {
        for message in tell(wish, &backends) {
            let _ended = control.send(message);
        }
    }
    let take = |incoming: Incoming| {
        seen.opened.fetch_add(1, Ordering::Relaxed);
        let backend = backends.lock().expect("whole").get(&incoming.open.backend).copied();
        let silent = seen.silent.load(Ordering::Relaxed);
        tokio::spawn(async move {
            if silent {
                tokio::time::sleep(Duration::from_secs(30)).await;
            }
            carry(incoming, backend).await;
        })
    };
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(Order::Publish(desired, served)) => {
                    let wish = wish.insert((desired, served));
                    for message in tell(wish, &backends) {
                        let _ended = control.send(message);
                    }
                }
                Some(Order::Send(message)) => {
                    let _ended = control.send(message);
                }
                None => return false,
            },
            message = control.receive() => match message {
                Some(ToAgent::Report(report)) => {
                    *seen.report.lock().expect("whole") = Some(report);
                }
                Some(ToAgent::Drain) => {
                    // What is open goes on; the next session begins at once.
                    tokio::spawn(async move {
                        while control.receive().await.is_some() {}
                    });
                    let backends = Arc::clone(&backends);
                    tokio::spawn(async move {
                        while let Some(incoming) = flows.recv().await {
                            let backend =
                                backends.lock().expect("whole").get(&incoming.open.backend).copied();
                            tokio::spawn(carry(incoming, backend));
                        }
                    });
                    return true;
                }
                Some(_) => {}
                None => return true,
            },
            Some(incoming) = flows.recv() => {
                take(incoming);
            }
        }
    }
}

async fn carry(incoming: Incoming, backend: Option<SocketAddr>) {
    let Some(backend) = backend else {
        let detail = "no ready endpoint".to_owned();
        let why = Refused { reason: RefusedReason::NoEndpoint, detail };
        return incoming.answer.refuse(why).await;
    };
    match incoming.open.protocol {
        Protocol::Tcp => match TcpStream::connect(backend).await {
            Ok(plain) => {
                if let Ok(flow) = incoming.answer.accept().await {
                    flow.relay(plain, Bytes::new(), Arc::new(Meter::default())).await;
                }
            }
            Err(error) => {
                let why =
                    Refused { reason: RefusedReason::BackendRefused, detail: error.to_string() };
                incoming.answer.refuse(why).await;
            }
        },
        Protocol::Udp => {
            let any: SocketAddr = if backend.is_ipv4() {
                ([0, 0, 0, 0], 0).into()
            } else {
                (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
            };
            let Ok(socket) = UdpSocket::bind(any).await else { return };
            if socket.connect(backend).await.is_err() {
                return;
            }
            let Ok(flow) = incoming.answer.accept().await else { return };
            let flow = flow.into_datagrams();
            let mut buffer = vec![0; 65_536];
            loop {
                tokio::select! {
                    received = socket.recv(&mut buffer) => {
                        let Ok(length) = received else { return };
                        let _dropped = flow.send(&buffer[..length]);
                    }
                    payload = flow.receive() => {
                        let Some(payload) = payload else { return };
                        let _dropped = socket.send(&payload).await;
                    }
                }
            }
        }
    }
}
