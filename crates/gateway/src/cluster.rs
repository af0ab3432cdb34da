//! One cluster that is served: its agents' sessions, and which of them serves what.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::sync::watch;
use tunnel::cut::Cut;
use tunnel::link::{Carrier, Link};
use tunnel::session::{Ended, Outbox, Status};
use tunnel_proto::choice::{self, Candidate};
use tunnel_proto::message::{Reach, Serving, SessionReport, ToAgent};
use tunnel_proto::sessions::{NotNewer, Sessions};

use crate::config::{ClusterConfig, ClusterName};
use crate::rate::Rate;
use crate::traffic::Traffic;

/// Backends that one agent may serve.
const MOST_BACKENDS: usize = 65_536;

/// A cluster that is served.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) name: ClusterName,
    config: RwLock<Arc<ClusterConfig>>,
    sessions: RwLock<Sessions<String, Arc<Member>>>,
    /// Counts the times that a backend may have become reachable; visitors wait for it.
    reachable: watch::Sender<u64>,
    /// Something changed that agents want to know.
    news: watch::Sender<u64>,
    pub(crate) traffic: Traffic,
    /// Given when open flows must end and no more traffic is allowed in this period; another one
    /// once it is.
    cut: RwLock<Arc<Cut>>,
    /// How slow flows have to be, where the kernel does not see to it.
    rate: RwLock<Option<(u64, Arc<Rate>)>>,
    /// Sessions since the start, by agent; for metrics.
    joined: Mutex<BTreeMap<String, u64>>,
}

/// An agent's session.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) agent: String,
    pub(crate) node: Option<String>,
    pub(crate) epoch: u64,
    pub(crate) carrier: Carrier,
    pub(crate) address: SocketAddr,
    pub(crate) link: Arc<dyn Link>,
    pub(crate) status: Status,
    pub(crate) outbox: Outbox<ToAgent>,
    serving: RwLock<BTreeMap<String, Reach>>,
    draining: AtomicBool,
    flows: AtomicU64,
}

/// A flow of a member, counted until dropped.
#[derive(Debug)]
pub(crate) struct Counted(Arc<Member>);

impl Member {
    #[expect(clippy::too_many_arguments, reason = "each is told by another part of a session")]
    pub(crate) fn new(
        agent: String,
        node: Option<String>,
        epoch: u64,
        carrier: Carrier,
        address: SocketAddr,
        link: Arc<dyn Link>,
        status: Status,
        outbox: Outbox<ToAgent>,
    ) -> Arc<Self> {
        Arc::new(Self {
            agent,
            node,
            epoch,
            carrier,
            address,
            link,
            status,
            outbox,
            serving: RwLock::default(),
            draining: AtomicBool::new(false),
            flows: AtomicU64::new(0),
        })
    }

    /// Counts a flow that it has.
    pub(crate) fn count(self: Arc<Self>) -> Counted {
        self.flows.fetch_add(1, Ordering::Relaxed);
        Counted(self)
    }

    /// Flows that it has.
    pub(crate) fn flows(&self) -> u64 {
        self.flows.load(Ordering::Relaxed)
    }

    fn candidate(&self, backend: &str) -> Candidate {
        let serving = self.serving.read().unwrap_or_else(PoisonError::into_inner);
        Candidate {
            reach: serving.get(backend).copied().unwrap_or(Reach::None),
            healthy: !self.status.is_doubtful(),
            ready: self.link.is_ready(),
            draining: self.draining.load(Ordering::Relaxed),
            open_flows: self.flows(),
            round_trip: self.status.round_trip(),
        }
    }

    fn report(&self) -> SessionReport {
        let round_trip = self.status.round_trip().unwrap_or_default();
        SessionReport {
            agent: self.agent.clone(),
            node: self.node.clone(),
            carrier: self.carrier.to_string(),
            address: crate::port::canonical(self.address),
            round_trip_us: u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX),
            flows: self.flows(),
            age_seconds: self.status.began().elapsed().as_secs(),
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.flows.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Cluster {
    /// A cluster that no agent has connected for yet.
    pub(crate) fn new(config: ClusterConfig) -> Arc<Self> {
        Arc::new(Self {
            name: config.name.clone(),
            config: RwLock::new(Arc::new(config)),
            sessions: RwLock::default(),
            reachable: watch::Sender::new(0),
            news: watch::Sender::new(0),
            traffic: Traffic::default(),
            cut: RwLock::default(),
            rate: RwLock::default(),
            joined: Mutex::default(),
        })
    }

    /// What it may do.
    pub(crate) fn config(&self) -> Arc<ClusterConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// It may do something else from now on.
    pub(crate) fn configure(&self, config: ClusterConfig) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }

    /// Takes a session in, and returns the one that it takes the place of.
    pub(crate) fn join(&self, member: Arc<Member>) -> Result<Option<Arc<Member>>, NotNewer> {
        let (agent, epoch) = (member.agent.clone(), member.epoch);
        let before = self.write().join(agent.clone(), epoch, member)?;
        *lock(&self.joined).entry(agent).or_default() += 1;
        self.tell();
        Ok(before)
    }

    /// A session has ended. Returns whether its agent is gone: no newer session had taken over.
    pub(crate) fn leave(&self, member: &Member) -> bool {
        let left = self.write().leave(&member.agent, member.epoch);
        self.tell();
        left.is_some()
    }

    /// An agent says what it can reach: what changed since it last said so. Fails when it is too
    /// much to remember.
    pub(crate) fn serving(&self, member: &Member, changes: Vec<Serving>) -> Result<(), String> {
        {
            let mut serving = member.serving.write().unwrap_or_else(PoisonError::into_inner);
            for Serving { backend, reach } in changes {
                match reach {
                    Reach::None => serving.remove(&backend),
                    Reach::Remote | Reach::Local => serving.insert(backend, reach),
                };
            }
            if serving.len() > MOST_BACKENDS {
                return Err(format!("more than {MOST_BACKENDS} backends"));
            }
        }
        self.reachable.send_modify(|it| *it += 1);
        Ok(())
    }

    /// An agent is going away: it gets no new flows.
    pub(crate) fn drain(&self, member: &Member) {
        member.draining.store(true, Ordering::Relaxed);
        self.tell();
    }

    /// The sessions that can take a flow to this backend, best first.
    pub(crate) fn candidates(&self, backend: &str) -> Vec<(Candidate, Arc<Member>)> {
        let sessions = self.sessions.read().unwrap_or_else(PoisonError::into_inner);
        // One that has ended counts no more from that moment on, although whoever serves it may not
        // have taken it out yet.
        let living = sessions.iter().filter(|(_, it)| it.status.ended().is_none());
        let members: Vec<_> = living.map(|(_, it)| Arc::clone(it)).collect();
        drop(sessions);
        let candidates = members.iter().map(|it| it.candidate(backend)).enumerate();
        let ordered = choice::order(candidates);
        let member = |index: usize| members.get(index).map(Arc::clone);
        ordered.into_iter().filter_map(|(at, it)| Some((it, member(at)?))).collect()
    }

    /// Every session.
    pub(crate) fn members(&self) -> Vec<Arc<Member>> {
        let sessions = self.sessions.read().unwrap_or_else(PoisonError::into_inner);
        sessions.iter().map(|(_, it)| Arc::clone(it)).collect()
    }

    /// Whether any agent serves any backend.
    pub(crate) fn serves_something(&self) -> bool {
        let serves = |it: &Arc<Member>| {
            !it.serving.read().unwrap_or_else(PoisonError::into_inner).is_empty()
        };
        self.members().iter().any(serves)
    }

    /// Every session, for a report.
    pub(crate) fn session_reports(&self) -> Vec<SessionReport> {
        self.members().iter().map(|it| it.report()).collect()
    }

    /// Sessions since the start, by agent.
    pub(crate) fn joined(&self) -> BTreeMap<String, u64> {
        lock(&self.joined).clone()
    }

    /// Says when a backend may have become reachable.
    pub(crate) fn reachable(&self) -> watch::Receiver<u64> {
        self.reachable.subscribe()
    }

    /// Says when there is something that agents want to know.
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// There is something that agents want to know.
    pub(crate) fn tell(&self) {
        self.news.send_modify(|it| *it += 1);
    }

    /// Ends every session: the cluster is no longer served.
    pub(crate) fn dismiss(&self) {
        for member in self.members() {
            member.status.end(Ended::Here);
        }
        self.stop(true);
    }

    /// Whether no more traffic is allowed.
    pub(crate) fn is_stopped(&self) -> bool {
        self.cut().is_given()
    }

    /// Stops all traffic, or allows it again.
    pub(crate) fn stop(&self, stopped: bool) {
        let mut cut = self.cut.write().unwrap_or_else(PoisonError::into_inner);
        if cut.is_given() == stopped {
            return;
        }
        match stopped {
            true => cut.give(),
            false => *cut = Arc::default(),
        }
        drop(cut);
        self.tell();
    }

    /// How slow flows have to be from now on, in bits a second.
    pub(crate) fn slow_down(&self, bits_per_second: Option<u64>) {
        let mut rate = self.rate.write().unwrap_or_else(PoisonError::into_inner);
        if rate.as_ref().map(|(bits, _)| *bits) != bits_per_second {
            *rate = bits_per_second.map(|bits| (bits, Rate::new(bits)));
        }
    }

    /// The rate that flows share, if they have to be slow.
    pub(crate) fn rate(&self) -> Option<Arc<Rate>> {
        let rate = self.rate.read().unwrap_or_else(PoisonError::into_inner);
        rate.as_ref().map(|(_, rate)| Arc::clone(rate))
    }

    /// Given when the flows that are open now must end.
    pub(crate) fn cut(&self) -> Arc<Cut> {
        Arc::clone(&self.cut.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Sessions<String, Arc<Member>>> {
        self.sessions.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
