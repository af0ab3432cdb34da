//! Which replica may write: one at a time, by a Lease of `coordination.k8s.io/v1`.
//!
//! The lease is held by renewing it. A replica that could not renew it for
//! [`Settings::renew_deadline`] stops being the leader by itself, before any other may believe
//! that the lease has run out, which takes [`Settings::lease_duration`]. What the others compare is
//! their own clock with the moment at which *they* saw the lease change; times written by another
//! machine decide nothing, so clocks may differ by any amount. They must run at about the same
//! speed, and that is all that a lease can promise: a machine that stands still between asking
//! [`Leadership::is_leading`] and writing can still write too late.

mod election;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::trouble::{Trouble, status_code};
use election::{Election, Record, Step};

/// How the lease is held.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long after its last renewal the others must leave the lease alone.
    pub lease_duration: Duration,
    /// How long after its last renewal a leader still leads; less than `lease_duration`.
    pub renew_deadline: Duration,
    /// How long between two tries, to renew or to acquire.
    pub retry_period: Duration,
}

impl Default for Settings {
    /// What Kubernetes' own controllers use.
    fn default() -> Self {
        Self {
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// A part in the election. Ends when it is dropped; the lease then runs out by itself.
#[derive(Debug)]
pub struct Leadership {
    until: watch::Receiver<Option<Until>>,
    release: oneshot::Sender<()>,
    tasks: JoinSet<()>,
}

/// Until when a leader leads, by two clocks: one does not jump, and the other goes on while the
/// machine sleeps.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Until {
    instant: Instant,
    wall: SystemTime,
}

impl Until {
    fn after(sent: (Instant, SystemTime), lead: Duration) -> Self {
        Self { instant: sent.0 + lead, wall: sent.1 + lead }
    }

    fn is_over(self) -> bool {
        Instant::now() >= self.instant || SystemTime::now() >= self.wall
    }
}

impl Leadership {
    /// Leads without an election: the only replica, or no cluster.
    #[must_use]
    pub fn alone() -> Self {
        let far = Duration::from_secs(100 * 365 * 24 * 3600);
        let until = Until::after((Instant::now(), SystemTime::now()), far);
        let (_, until) = watch::channel(Some(until));
        Self { until, release: oneshot::channel().0, tasks: JoinSet::new() }
    }

    /// Whether this replica leads right now. Cheap: ask before each write.
    #[must_use]
    pub fn is_leading(&self) -> bool {
        self.until.borrow().is_some_and(|it| !it.is_over())
    }

    /// Something to ask and to wait with, for those who do not own the part in the election.
    #[must_use]
    pub fn follow(&self) -> Leading {
        Leading { until: self.until.clone() }
    }

    /// Gives the lease back, so that another replica need not wait for it to run out.
    pub async fn release(self, within: Duration) {
        let Self { until, release, mut tasks } = self;
        drop(until);
        // Nobody listens when there was no election.
        let _ = release.send(());
        let _ = timeout(within, async { while tasks.join_next().await.is_some() {} }).await;
    }
}

/// Whether this replica leads.
#[derive(Clone, Debug)]
pub struct Leading {
    until: watch::Receiver<Option<Until>>,
}

impl Leading {
    /// Whether this replica leads right now. Cheap: ask before each write.
    #[must_use]
    pub fn now(&self) -> bool {
        self.until.borrow().is_some_and(|it| !it.is_over())
    }

    /// Waits until the answer is other than `before`, and returns it.
    pub async fn changed(&mut self, before: bool) -> bool {
        loop {
            let until = *self.until.borrow_and_update();
            let is_leading = until.is_some_and(|it| !it.is_over());
            if is_leading != before {
                return is_leading;
            }
            let rest = until.filter(|_| is_leading).map(|it| it.instant - Instant::now());
            let over = sleep(rest.unwrap_or(Duration::from_secs(3600)));
            tokio::select! {
                changed = self.until.changed() => if changed.is_err() {
                    // The election has ended; what is left of the time is all there is.
                    if !is_leading {
                        std::future::pending::<()>().await;
                    }
                    over_soon(until).await;
                },
                () = over => {}
            }
        }
    }
}

async fn over_soon(until: Option<Until>) {
    if let Some(until) = until {
        sleep(until.instant.saturating_duration_since(Instant::now())).await;
    }
}

/// An identity that no other process has, not even a later one of the same name.
#[must_use]
pub fn unique_identity(host: &str) -> String {
    format!("{host}_{:016x}", rand::random::<u64>())
}

/// Takes part in the election for the lease `namespace`/`name`, as `identity`, which no other
/// process may have.
#[must_use]
pub fn run(
    client: &Client,
    namespace: &str,
    name: &str,
    identity: &str,
    settings: Settings,
) -> Leadership {
    let (until, receiver) = watch::channel(None);
    let (release, released) = oneshot::channel();
    let candidate = Candidate {
        api: Api::namespaced(client.clone(), namespace),
        name: name.to_owned(),
        election: Election::new(identity, settings),
        settings,
        until: Arc::new(until),
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(candidate.run(released));
    Leadership { until: receiver, release, tasks }
}

struct Candidate {
    api: Api<Lease>,
    name: String,
    election: Election,
    settings: Settings,
    until: Arc<watch::Sender<Option<Until>>>,
}

impl Candidate {
    async fn run(mut self, mut released: oneshot::Receiver<()>) {
        let mut is_failing = false;
        loop {
            let period = self.settings.retry_period;
            let tried = tokio::select! {
                // An answer that takes longer than a period is as good as none.
                tried = timeout(period, self.try_once()) => {
                    tried.unwrap_or(Err(Trouble::Silent(period)))
                }
                _ = &mut released => break,
            };
            match tried {
                Ok(()) => is_failing = false,
                Err(trouble) => {
                    if !is_failing {
                        tracing::warn!(lease = self.name, error = trouble.chain(), "lease");
                    }
                    is_failing = true;
                }
            }
            if self.until.borrow().is_some_and(Until::is_over) {
                self.set_until(None);
            }
            // Candidates must not all ask at the same moment.
            let jitter =
                if self.until.borrow().is_some() { 1.0 } else { rand::random_range(1.0..1.2) };
            tokio::select! {
                () = sleep(period.mul_f64(jitter)) => {}
                _ = &mut released => break,
            }
        }
        self.give_back().await;
    }

    /// Reads the lease, and writes it if it is ours or may become ours.
    async fn try_once(&mut self) -> Result<(), Trouble> {
        let lease = self.api.get_opt(&self.name).await?;
        let record = lease.as_ref().map(record);
        let step = self.election.read(record, Instant::now());
        if !self.election.holds() {
            self.set_until(None);
        }
        let record = match step {
            Step::Wait => return Ok(()),
            Step::Write(record) => record,
        };
        let sent = (Instant::now(), SystemTime::now());
        let lease = self.lease(&record, lease, Timestamp::now());
        let parameters = PostParams::default();
        let written = if lease.metadata.resource_version.is_some() {
            self.api.replace(&self.name, &parameters, &lease).await
        } else {
            self.api.create(&parameters, &lease).await
        };
        match written {
            Ok(lease) => {
                self.election.written(self::record(&lease), sent.0);
                self.set_until(Some(Until::after(sent, self.settings.renew_deadline)));
                Ok(())
            }
            // Another was faster. The next look tells who.
            Err(error) if status_code(&error) == Some(409) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives the lease back if it is ours.
    async fn give_back(&mut self) {
        self.set_until(None);
        let Ok(Some(lease)) = self.api.get_opt(&self.name).await else { return };
        let Some(record) = self.election.release(&record(&lease)) else { return };
        let lease = self.lease(&record, Some(lease), Timestamp::now());
        // With the version that was read: if another took it meanwhile, it is not ours to give.
        if let Err(error) = self.api.replace(&self.name, &PostParams::default(), &lease).await {
            tracing::warn!(lease = self.name, %error, "the lease was not given back");
        }
    }

    fn lease(&self, record: &Record, before: Option<Lease>, now: Timestamp) -> Lease {
        let before = before.unwrap_or_default();
        let acquired = before.spec.as_ref().and_then(|it| {
            let is_same = it.holder_identity.as_deref() == Some(&record.holder);
            it.acquire_time.clone().filter(|_| is_same)
        });
        let metadata = ObjectMeta { name: Some(self.name.clone()), ..before.metadata };
        let seconds = i32::try_from(record.duration.as_secs()).unwrap_or(i32::MAX).max(1);
        let spec = LeaseSpec {
            holder_identity: Some(record.holder.clone()),
            lease_duration_seconds: Some(seconds),
            lease_transitions: Some(record.transitions),
            acquire_time: Some(acquired.unwrap_or(MicroTime(now))),
            renew_time: Some(MicroTime(now)),
            ..Default::default()
        };
        Lease { metadata, spec: Some(spec) }
    }

    fn set_until(&self, until: Option<Until>) {
        let before = self.until.send_replace(until);
        if before.is_some() != until.is_some() {
            tracing::info!(lease = self.name, leading = until.is_some(), "leader election");
        }
    }
}

fn record(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.unwrap_or(0);
    Record {
        holder: spec.holder_identity.unwrap_or_default(),
        duration: Duration::from_secs(u64::try_from(seconds).unwrap_or(0)),
        transitions: spec.lease_transitions.unwrap_or(0),
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
    }
}
