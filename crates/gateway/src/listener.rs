//! A published port at work: its sockets, its visitors, its counters.

mod probes;
mod tcp;
mod udp;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tunnel::link::Meter;
use tunnel_proto::flow_table;
use tunnel_proto::message::{
    Limits, PortReport, PortState, Probed, Protocol, PublishedPort, Reached, Route,
};
use tunnel_proto::server_name::ServerNames;

use crate::admission::{Admission, NotAdmitted};
use crate::cluster::Cluster;
use crate::port::PortKey;
pub(crate) use probes::Probes;

/// What ports of all clusters share.
#[derive(Debug, Default)]
pub(crate) struct House {
    /// How long a visitor waits while no agent is connected, in milliseconds.
    hold: AtomicU64,
    /// Flows that are open, of every port, closed ones too.
    open: AtomicU64,
    /// TCP visitors that wait for an agent.
    waiting: AtomicUsize,
    /// Visitors that are being served in any way, from their arrival to their end.
    visitors: AtomicUsize,
    /// How long flows took to open, for metrics.
    pub(crate) opened: crate::metrics::Opened,
}

/// TCP visitors that may wait for an agent at one time.
const MOST_WAITING: usize = 16_384;

/// A visitor that waits for an agent, until dropped.
pub(crate) struct Waiting<'a>(&'a House);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A visitor that is being served, until dropped.
pub(crate) struct Visit(Arc<House>);

impl Visit {
    pub(crate) fn count(house: &Arc<House>) -> Self {
        house.visitors.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(house))
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.visitors.fetch_sub(1, Ordering::Relaxed);
    }
}

impl House {
    /// Visitors that are being served in any way: those that wait for an agent too.
    pub(crate) fn visitors(&self) -> usize {
        self.visitors.load(Ordering::Relaxed)
    }

    /// TCP visitors that wait for an agent.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// A place to wait for an agent; `None` when all are taken.
    pub(crate) fn wait(&self) -> Option<Waiting<'_>> {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting(self);
        (before < MOST_WAITING).then_some(waiting)
    }

    /// Flows that are open, of every port, closed ones too.
    pub(crate) fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    pub(crate) fn set_hold(&self, hold: Duration) {
        let milliseconds = u64::try_from(hold.as_millis()).unwrap_or(u64::MAX);
        self.hold.store(milliseconds, Ordering::Relaxed);
    }

    pub(crate) fn hold(&self) -> Duration {
        Duration::from_millis(self.hold.load(Ordering::Relaxed))
    }
}

/// A published port.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) key: PortKey,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) house: Arc<House>,
    wish: RwLock<Arc<Wished>>,
    pub(crate) meter: Arc<Meter>,
    pub(crate) counters: Counters,
    admission: Admission,
    /// The kernel keeps the limits of this port.
    kernel_limits: AtomicBool,
    pub(crate) probes: Probes,
    sockets: Mutex<Vec<Bound>>,
    /// Takes visitors. Holds this port, until [`Self::stop`].
    work: Mutex<JoinSet<()>>,
    withdrawn: watch::Sender<bool>,
}

/// What is wished of a port, made ready for visitors.
#[derive(Debug)]
pub(crate) struct Wished {
    pub(crate) port: PublishedPort,
    /// Where the route is by name.
    pub(crate) names: Option<ServerNames>,
}

/// An open socket.
#[derive(Clone, Debug)]
pub(crate) enum Bound {
    Tcp(SocketAddr, Arc<tokio::net::TcpListener>),
    Udp(SocketAddr, Arc<tokio::net::UdpSocket>),
}

/// What became of visitors.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) open: AtomicU64,
    pub(crate) total: AtomicU64,
    pub(crate) failed: AtomicU64,
    /// Visitors that were not let in or led nowhere, by reason.
    rejected: Mutex<BTreeMap<Rejected, u64>>,
}

/// Why a visitor got no flow, although agents were not to blame.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Rejected {
    /// Not in the allow list.
    NotAllowed,
    /// Too many new connections a second.
    TooFast,
    /// Too many connections open.
    TooMany,
    /// The month's traffic is used up.
    Quota,
    /// The port leads nowhere yet.
    Nowhere,
    /// No backend for the name, or no name.
    UnknownName,
    /// What came is no greeting of TLS, or came too slowly.
    NoGreeting,
    /// Too many visitors are waited for.
    Busy,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAllowed => "not_allowed",
            Self::TooFast => "too_fast",
            Self::TooMany => "too_many",
            Self::Quota => "quota",
            Self::Nowhere => "nowhere",
            Self::UnknownName => "unknown_name",
            Self::NoGreeting => "no_greeting",
            Self::Busy => "busy",
        })
    }
}

impl From<NotAdmitted> for Rejected {
    fn from(not: NotAdmitted) -> Self {
        match not {
            NotAdmitted::NotAllowed => Self::NotAllowed,
            NotAdmitted::TooFast => Self::TooFast,
            NotAdmitted::TooMany => Self::TooMany,
        }
    }
}

impl Counters {
    pub(crate) fn reject(&self, why: Rejected) {
        *lock(&self.rejected).entry(why).or_default() += 1;
    }

    pub(crate) fn rejected(&self) -> BTreeMap<Rejected, u64> {
        lock(&self.rejected).clone()
    }
}

/// A flow that counts as open until dropped.
pub(crate) struct OpenFlow(Arc<Listener>);

impl OpenFlow {
    pub(crate) fn count(listener: &Arc<Listener>) -> Self {
        listener.house.open.fetch_add(1, Ordering::Relaxed);
        listener.counters.open.fetch_add(1, Ordering::Relaxed);
        listener.counters.total.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(listener))
    }
}

impl Drop for OpenFlow {
    fn drop(&mut self) {
        self.0.counters.open.fetch_sub(1, Ordering::Relaxed);
        self.0.house.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Listener {
    /// A port with these sockets; it takes visitors once [`Self::start`] is called.
    pub(crate) fn new(
        port: PublishedPort,
        cluster: Arc<Cluster>,
        house: Arc<House>,
        sockets: Vec<Bound>,
    ) -> Arc<Self> {
        Arc::new(Self {
            key: PortKey::from(&port),
            cluster,
            house,
            wish: RwLock::new(Arc::new(Wished::new(port))),
            meter: Arc::default(),
            counters: Counters::default(),
            admission: Admission::default(),
            kernel_limits: AtomicBool::new(false),
            probes: Probes::default(),
            sockets: Mutex::new(sockets),
            work: Mutex::default(),
            withdrawn: watch::Sender::new(false),
        })
    }

    /// Takes visitors. Must be called within a tokio runtime.
    pub(crate) fn start(self: &Arc<Self>) {
        let mut work = lock(&self.work);
        if !work.is_empty() {
            return;
        }
        for socket in lock(&self.sockets).iter() {
            work_on(self, socket, &mut work);
        }
    }

    /// Takes no visitors for now: they wait in the kernel. [`Self::start`] takes them.
    pub(crate) fn pause(&self) {
        *lock(&self.work) = JoinSet::new();
    }

    /// Takes no more visitors. With the last owner of a socket the system closes it; flows go on.
    pub(crate) fn stop(&self) {
        self.pause();
        lock(&self.sockets).clear();
    }

    /// It is no longer published: takes no more visitors. TCP flows go on; UDP flows end, because
    /// nothing more of their visitors is heard, and the next to publish the port needs the socket.
    pub(crate) fn withdraw(&self) {
        self.stop();
        self.withdrawn.send_replace(true);
    }

    /// Waits until it is no longer published.
    pub(crate) async fn until_withdrawn(&self) {
        // The sender lives as long as this value.
        let mut withdrawn = self.withdrawn.subscribe();
        let _withdrawn = withdrawn.wait_for(|it| *it).await;
    }

    /// Its sockets.
    pub(crate) fn sockets(&self) -> Vec<Bound> {
        lock(&self.sockets).clone()
    }

    /// What is wished of it.
    pub(crate) fn wish(&self) -> Arc<Wished> {
        Arc::clone(&self.wish.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Something else is wished of it from now on; open flows stay as they are.
    fn change(&self, port: PublishedPort) {
        *self.wish.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Wished::new(port));
    }

    /// What is wished of it from now on, if that is something else.
    pub(crate) fn change_if_needed(&self, port: PublishedPort) {
        if self.wish().port != port {
            tracing::info!(cluster = %self.cluster.name, port = %self.key, "changed");
            self.change(port);
        }
    }

    /// Who keeps the limits of a source.
    pub(crate) fn set_kernel_limits(&self, kernel: bool) {
        self.kernel_limits.store(kernel, Ordering::Relaxed);
    }

    /// Lets a visitor in, or says why not.
    pub(crate) fn admit(
        &self,
        visitor: std::net::IpAddr,
        wished: &Wished,
    ) -> Result<crate::admission::Admitted, Rejected> {
        if self.cluster.is_stopped() {
            return Err(Rejected::Quota);
        }
        let by_kernel =
            self.key.protocol == Protocol::Tcp && self.kernel_limits.load(Ordering::Relaxed);
        let limits = if by_kernel { Limits::default() } else { wished.port.limits };
        let now = std::time::Instant::now();
        Ok(self.admission.admit(visitor, &wished.port.allow_from, limits, now)?)
    }

    /// Forgets what is no longer needed; to be called now and then.
    pub(crate) fn tidy(&self) {
        self.admission.tidy(std::time::Instant::now());
    }

    /// Takes one more socket.
    pub(crate) fn add(self: &Arc<Self>, socket: Bound) {
        let mut work = lock(&self.work);
        if !work.is_empty() {
            work_on(self, &socket, &mut work);
        }
        lock(&self.sockets).push(socket);
    }

    /// What it does and sees.
    pub(crate) fn report(&self) -> PortReport {
        let count = |it: &AtomicU64| it.load(Ordering::Relaxed);
        PortReport {
            address: self.key.address,
            port: self.key.port,
            protocol: self.key.protocol,
            state: PortState::Listening,
            open: count(&self.counters.open),
            total: count(&self.counters.total),
            received: count(&self.meter.out),
            sent: count(&self.meter.back),
            failed: count(&self.counters.failed),
            probed: self.probes.last(),
        }
    }

    /// Keeps what a probe, or a visitor, found; `None` where there is nothing to find.
    pub(crate) fn reached(&self, reached: Option<Reached>) {
        let probed = reached.map(|reached| Probed { at: crate::clock::now_seconds(), reached });
        if self.probes.keep(probed) {
            self.cluster.tell();
        }
    }
}

fn work_on(listener: &Arc<Listener>, socket: &Bound, work: &mut JoinSet<()>) {
    let listener = Arc::clone(listener);
    match socket {
        Bound::Tcp(_, socket) => work.spawn(tcp::accept(listener, Arc::clone(socket))),
        Bound::Udp(_, socket) => work.spawn(udp::receive(listener, Arc::clone(socket))),
    };
}

impl Wished {
    fn new(port: PublishedPort) -> Self {
        let names = match &port.route {
            Route::ServerName(backends) => Some(ServerNames::new(backends)),
            Route::Backend(_) | Route::Nowhere => None,
        };
        Self { port, names }
    }

    /// How long a UDP flow lives without a datagram.
    pub(crate) fn idle(&self) -> Duration {
        match self.port.idle_seconds {
            0 => flow_table::IDLE,
            seconds => Duration::from_secs(seconds.into()),
        }
    }
}

impl Bound {
    /// Where it is bound.
    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Tcp(address, _) | Self::Udp(address, _) => *address,
        }
    }
}

impl AsFd for Bound {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(_, listener) => listener.as_fd(),
            Self::Udp(_, socket) => socket.as_fd(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
