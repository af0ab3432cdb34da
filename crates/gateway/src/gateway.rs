//! A gateway from its start to its end: taking over, serving, handing over, draining.

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout};
use tunnel_proto::message::{Reached, ToAgent};

use crate::config::{ClusterName, Config};
use crate::error::{GatewayError, chain};
use crate::handover::{Handed, Next, Offer, Present, Purpose};
use crate::inner::{Inner, Note};
use crate::keeper::{self, Errand};
use crate::listener::{Bound, House};
use crate::tunnels::Tunnels;
use crate::{descriptors, handover, pages, probe, socket};

/// How often each port is probed.
const PROBE: Duration = Duration::from_secs(10);

/// How many ports are probed at one time.
const PROBES: usize = 16;

/// How long a process that took sockets over waits for agents before it takes visitors, and how
/// long these wait for an agent after that, whatever the configuration says.
const AGENTS_COME: Duration = Duration::from_secs(10);

/// How long a process that is followed by another one waits until it is decided which agents have
/// the visitors that it has already taken.
const DECIDED: Duration = Duration::from_secs(1);

/// How many descriptors a gateway should have: two for each flow, and room.
const DESCRIPTORS: u64 = 65_536;

/// A running gateway.
pub struct Gateway {
    pub(crate) inner: Arc<Inner>,
    tunnels: Tunnels,
    pages: Option<pages::Pages>,
    /// Ends when dropped.
    work: JoinSet<()>,
    asking: mpsc::Receiver<Next>,
    /// Called when another process has taken over, before this one has ended.
    pub(crate) on_taken_over: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl Gateway {
    /// Starts a gateway; takes over from one that runs with the same state directory. Must be
    /// called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// When a part of it cannot be started.
    pub async fn start(config: Config, program: &str) -> Result<Self, GatewayError> {
        let descriptors = raise_descriptors();
        let listen = config.listen.clone();
        let metrics = config.metrics.clone();
        let state = config.state_directory.clone();
        let (inner, errands) = Inner::new(config, program)?;
        note_descriptors(&inner, descriptors);

        let (handed, present) = predecessor(&state).await;
        let mut sorted = sort(handed);
        let took_over = !sorted.published.is_empty() || present.is_some();
        if took_over {
            inner.table().inherit(std::mem::take(&mut sorted.published));
            inner.house.set_hold(inner.config().hold().max(AGENTS_COME));
        }
        let mut tunnels = Tunnels::open(&listen, sorted.tunnel)?;
        tunnels.start(&inner)?;

        let mut work = JoinSet::new();
        work.spawn(keeper::keep(Arc::clone(&inner), errands));
        if let Some(present) = present {
            until_agents_come(&inner).await;
            release(present).await;
        }
        if took_over {
            inner.errand(Errand::TakeVisitors);
            let inner = Arc::clone(&inner);
            work.spawn(async move {
                sleep(AGENTS_COME).await;
                inner.house.set_hold(inner.config().hold());
            });
        }
        work.spawn(probe_all(Arc::clone(&inner)));
        let pages = pages::Pages::open(&metrics, Arc::clone(&inner), sorted.metrics).await?;
        let asking = wait_for_next(&state)?;
        Ok(Self { inner, tunnels, pages, work, asking, on_taken_over: None })
    }

    /// Takes another configuration while running.
    pub fn configure(&self, config: Config) {
        self.inner.errand(Errand::Configure(Box::new(config)));
    }

    /// Serves until another process has taken over and the flows that were open have ended.
    pub async fn until_taken_over(&mut self) {
        while let Some(next) = self.asking.recv().await {
            if self.hand_over(next).await {
                return;
            }
        }
        // The thread that waits has ended, and said why.
        std::future::pending().await
    }

    /// Gives the sockets to the next process, and drains. Returns whether that was to be so: a next
    /// process that ends early changes nothing.
    async fn hand_over(&mut self, next: Next) -> bool {
        tracing::info!("another process takes over");
        // Visitors wait in the kernel from here until the other process takes them: agents are
        // about to leave this one, and what they dial from then on goes to the other.
        self.inner.table().pause();
        self.until(DECIDED, |house| house.waiting() == 0).await;
        self.tunnels.stop().await;
        self.ask(Errand::HandCounts).await;
        let counted = self.transferred();
        let ready = match self.give(next).await {
            Ok(next) => {
                self.tell_agents_to_go();
                blocking(move || next.wait_ready().map(|()| next)).await
            }
            Err(error) => Err(error),
        };
        match ready {
            Ok(next) => {
                self.inner.table().close();
                if let Err(error) = blocking(move || next.stopped()).await {
                    tracing::warn!(%error, "the other process does not hear that we have stopped");
                }
                tracing::info!(open = self.inner.house.open(), "another process has taken over");
                self.pages = None;
                if let Some(tell) = self.on_taken_over.take() {
                    tell();
                }
                self.until_drained().await;
                self.ask(|done| Errand::End(false, done)).await;
                self.keep_late(&counted);
                true
            }
            Err(error) => {
                tracing::error!(%error, "the other process did not take over; going on");
                self.inner.errand(Errand::KeepOn);
                self.inner.errand(Errand::TakeVisitors);
                if let Err(error) = self.tunnels.start(&self.inner) {
                    tracing::error!(error = %chain(&error), "no agent can connect any more");
                }
                false
            }
        }
    }

    async fn give(&self, next: Next) -> io::Result<Next> {
        let bound: Vec<Bound> =
            self.inner.table().listeners().flat_map(|it| it.sockets()).collect();
        let mut own = Vec::new();
        for (address, listener) in self.tunnels.listeners() {
            own.push((Purpose::Tunnel, *address, listener.as_fd().try_clone_to_owned()?));
        }
        if let Some((address, socket)) = self.pages.as_ref().and_then(pages::Pages::socket) {
            own.push((Purpose::Metrics, address, socket.try_clone_to_owned()?));
        }
        blocking(move || {
            let bound = bound.iter().map(|it| {
                let purpose = match it {
                    Bound::Tcp(..) => Purpose::Tcp,
                    Bound::Udp(..) => Purpose::Udp,
                };
                (purpose, it.address(), it.as_fd())
            });
            let own = own.iter().map(|(purpose, address, it)| (*purpose, *address, it.as_fd()));
            let all: Vec<(Purpose, _, BorrowedFd<'_>)> = bound.chain(own).collect();
            next.give(&all)?;
            Ok(next)
        })
        .await
    }

    /// Ends: takes nobody in any more, and gives open flows their time.
    pub async fn drain(mut self) {
        descriptors::tell("STOPPING=1");
        self.inner.drain();
        tracing::info!(open = self.inner.house.open(), "draining");
        self.tell_agents_to_go();
        // Where systemd keeps the sockets, the next start follows at once: until then, whoever
        // comes is served.
        if !descriptors::is_kept() {
            self.inner.table().close();
        }
        self.tunnels.stop().await;
        self.until_drained().await;
        // Who comes from here on waits in the kernel for the next process, if there is one.
        self.inner.table().pause();
        self.until(DECIDED, |house| house.visitors() == 0).await;
        self.ask(|done| Errand::End(true, done)).await;
        self.end_sessions().await;
        tracing::info!("the gateway has ended");
    }

    fn tell_agents_to_go(&self) {
        for member in self.inner.clusters().into_values().flat_map(|it| it.members()) {
            // One that has ended need not go.
            let _ended = member.outbox.send(ToAgent::Drain);
        }
    }

    async fn until_drained(&self) {
        let time = self.inner.config().drain();
        self.until(time, |house| house.visitors() == 0).await;
    }

    async fn until(&self, time: Duration, reached: impl Fn(&House) -> bool) {
        let deadline = Instant::now() + time;
        let mut look = interval(Duration::from_millis(10));
        while !reached(&self.inner.house) && Instant::now() < deadline {
            look.tick().await;
        }
    }

    /// Gives the keeper something to do, and waits until it is done.
    async fn ask(&self, errand: impl FnOnce(oneshot::Sender<()>) -> Errand) {
        let (done, ended) = oneshot::channel();
        self.inner.errand(errand(done));
        // A keeper that is gone does nothing any more.
        let _gone = timeout(Duration::from_secs(15), ended).await;
    }

    fn transferred(&self) -> BTreeMap<ClusterName, u64> {
        let table = self.inner.table();
        let totals = self.inner.clusters().into_iter().map(|(name, cluster)| {
            let listeners = table.listeners().filter(|it| it.cluster.name == name);
            let open: u64 = listeners.map(|it| crate::traffic::bytes(&it.meter)).sum();
            (name, open + cluster.traffic.left())
        });
        totals.collect()
    }

    /// Leaves to the next process what was transferred after it took over the counting.
    fn keep_late(&self, before: &BTreeMap<ClusterName, u64>) {
        for (name, total) in self.transferred() {
            let late = total.saturating_sub(before.get(&name).copied().unwrap_or(0));
            if late > 0
                && let Err(error) = self.inner.state.keep_late(&name, late)
            {
                tracing::warn!(cluster = %name, %error, "late traffic is not counted");
            }
        }
    }

    /// Ends every session, and waits until agents have been told.
    async fn end_sessions(&mut self) {
        for cluster in self.inner.clusters().into_values() {
            cluster.dismiss();
        }
        sleep(Duration::from_millis(50)).await;
        self.work.shutdown().await;
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("name", &self.inner.config().name).finish_non_exhaustive()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.inner.table().close();
    }
}

/// Sockets that were handed over, by what they are for.
#[derive(Debug, Default)]
struct Sorted {
    tunnel: Vec<(std::net::SocketAddr, TcpListener)>,
    published: Vec<Bound>,
    metrics: Option<TcpListener>,
}

fn sort(handed: Vec<Handed>) -> Sorted {
    let mut sorted = Sorted::default();
    for Handed { purpose, address, socket } in handed {
        let kept = match purpose {
            Purpose::Tunnel => {
                sorted.tunnel.push((address, socket.into()));
                Ok(())
            }
            Purpose::Metrics => {
                sorted.metrics = Some(socket.into());
                Ok(())
            }
            Purpose::Tcp => socket::adopt_tcp(socket.into())
                .map(|it| sorted.published.push(Bound::Tcp(address, Arc::new(it)))),
            Purpose::Udp => socket::adopt_udp(socket.into())
                .map(|it| sorted.published.push(Bound::Udp(address, Arc::new(it)))),
        };
        if let Err(error) = kept {
            tracing::warn!(%address, %error, "a socket that was handed over is of no use");
        }
    }
    sorted
}

/// The sockets of a process that runs with this state directory, or that systemd kept.
async fn predecessor(state: &Path) -> (Vec<Handed>, Option<Present>) {
    let kept = descriptors::take();
    let state = state.to_owned();
    match blocking(move || handover::take(&state)).await {
        Ok(Some((handed, present))) => {
            tracing::info!(sockets = handed.len(), "taking over");
            (handed, Some(present))
        }
        Ok(None) => {
            if !kept.is_empty() {
                tracing::info!(sockets = kept.len(), "going on with the sockets that systemd kept");
            }
            (kept, None)
        }
        Err(error) => {
            tracing::warn!(%error, "the process that runs here does not hand over");
            (kept, None)
        }
    }
}

async fn release(present: Present) {
    if let Err(error) = blocking(move || present.ready()).await {
        tracing::warn!(%error, "the other process has not said that it stopped");
    }
}

/// Waits until each cluster that has ports has an agent that serves something.
async fn until_agents_come(inner: &Inner) {
    let deadline = Instant::now() + AGENTS_COME;
    let mut look = interval(Duration::from_millis(10));
    let all_there = || {
        let clusters = inner.clusters();
        let mut with_ports =
            clusters.iter().filter(|(name, _)| inner.table().wishes_something(name));
        with_ports.all(|(_, cluster)| cluster.serves_something())
    };
    while !all_there() && Instant::now() < deadline {
        look.tick().await;
    }
}

/// Waits on a thread of its own until another process asks.
fn wait_for_next(state: &Path) -> Result<mpsc::Receiver<Next>, GatewayError> {
    let what = "the next process cannot be waited for in the state directory";
    let offer = Offer::open(state).map_err(|source| GatewayError::System { what, source })?;
    let (sender, asking) = mpsc::channel(1);
    let thread = std::thread::Builder::new().name("handover".to_owned()).stack_size(64 * 1024);
    let waiting = thread.spawn(move || {
        loop {
            match offer.wait() {
                Ok(next) => {
                    if sender.blocking_send(next).is_err() {
                        return;
                    }
                }
                Err(error) => return tracing::error!(%error, "no process can take over any more"),
            }
        }
    });
    waiting.map_err(|source| GatewayError::System { what, source })?;
    Ok(asking)
}

/// Probes every port again and again, spread over time. A port that visitors have just come
/// through needs no probe.
async fn probe_all(inner: Arc<Inner>) {
    let mut round = interval(PROBE);
    loop {
        round.tick().await;
        let listeners: Vec<_> = inner.table().listeners().cloned().collect();
        let probes = listeners.into_iter().map(|listener| async move {
            match listener.probes.take_passed() {
                Some(microseconds) => listener.reached(Some(Reached::Backend(microseconds))),
                None => probe::probe(listener).await,
            }
        });
        futures::stream::iter(probes).buffer_unordered(PROBES).for_each(|()| async {}).await;
    }
}

/// Lets this process have as many descriptors as it may; returns how many.
fn raise_descriptors() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Only root may have more than the system set.
    let wanted = limit.maximum.map(|it| it.max(DESCRIPTORS));
    for most in [wanted, limit.maximum] {
        if setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).is_ok() {
            return most;
        }
    }
    limit.current
}

fn note_descriptors(inner: &Inner, descriptors: Option<u64>) {
    let few = descriptors.filter(|it| *it < DESCRIPTORS).map(|it| {
        format!(
            "the gateway can have {it} descriptors, about {} flows; raise LimitNOFILE to \
             {DESCRIPTORS} or more",
            it / 2
        )
    });
    inner.note(Note::Descriptors, few);
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
