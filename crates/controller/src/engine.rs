//! The loop: take in changes, plan, hand wishes to the host tasks, tell what came of it.
//!
//! The engine alone holds the cluster view. It never waits for a host or for the API server: both
//! are reached by tasks of their own, which tell it what happened.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::host::{Executor as Way, Host, HostSettings};
use api::object::{ObjectKind, ObjectRef};
use cluster::leader::Leading;
use cluster::report::Reporter;
use cluster::source::{Health, KindHealth, Source};
use planner::cluster_view::{Change, ClusterView, Object};
use planner::finding::Finding;
use tokio::sync::{mpsc, watch};

use crate::driver::Driver;
use crate::host_task::{Applied, Told};
use crate::metrics::{HostLabel, KindLabel, Metrics};
use crate::pace::Pace;
use crate::reach::Keys;
use crate::report::report;
use crate::status::{Snapshot, SourceState};

/// The least time between two plans while changes keep coming. Short, because a plan costs
/// microseconds and a host task that is busy takes up only the latest wish.
const PLAN_INTERVAL: Duration = Duration::from_millis(5);

/// The least time between two accounts of what happened, for the pages.
const ACCOUNT_INTERVAL: Duration = Duration::from_millis(250);

/// The least time between two reports to objects, and how long the first waits. A report costs
/// milliseconds in a large cluster, and those belong to the change that it would report.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
const REPORT_DELAY: Duration = Duration::from_millis(50);

/// How long a graceful stop waits for what is still to be written.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// What the engine is given to begin with.
pub(crate) struct Start {
    /// Hosts that were declared on the command line, beside Host objects.
    pub(crate) declared: Vec<Host>,
    /// The Host that is this machine.
    pub(crate) local_host: Option<String>,
    /// Where keys come from.
    pub(crate) keys: Keys,
    /// How often hosts are looked at although nothing happened.
    pub(crate) resync: Duration,
    /// Whether this replica may drive hosts over SSH.
    pub(crate) leading: Leading,
    /// The counters.
    pub(crate) metrics: Arc<Metrics>,
    /// Where the pages look.
    pub(crate) snapshot: watch::Sender<Arc<Snapshot>>,
    /// What writes into objects.
    pub(crate) reporter: Reporter,
}

/// Cluster view, host tasks and what they told.
pub(crate) struct Engine {
    start: Start,
    view: ClusterView,
    health: Health,
    drivers: BTreeMap<String, Driver>,
    /// Whether this replica leads, as far as was acted upon.
    leads: bool,
    /// When the oldest change came that is not planned yet.
    changed: Option<Instant>,
    plans: Pace,
    accounts: Pace,
    reports: Pace,
    told: mpsc::Sender<(String, Told)>,
    inbox: mpsc::Receiver<(String, Told)>,
}

impl Engine {
    /// An engine that knows nothing yet.
    pub(crate) fn new(start: Start) -> Self {
        let (told, inbox) = mpsc::channel(64);
        let (plans, accounts) = (Pace::new(PLAN_INTERVAL), Pace::new(ACCOUNT_INTERVAL));
        let reports = Pace::delayed(REPORT_DELAY, REPORT_INTERVAL);
        let (view, health, drivers) = (ClusterView::default(), Health::default(), BTreeMap::new());
        let (leads, changed) = (start.leading.now(), None);
        Self { start, view, health, drivers, leads, changed, plans, accounts, reports, told, inbox }
    }

    /// Runs until `shutdown` completes, then lets the reporter finish. Rules stay.
    pub(crate) async fn run(mut self, mut source: Source, shutdown: impl Future<Output = ()>) {
        tokio::select! {
            () = self.follow(&mut source) => {}
            () = shutdown => tracing::info!("stopping; the rules stay"),
        }
        self.report();
        self.start.reporter.finish(LAST_WORDS).await;
    }

    async fn follow(&mut self, source: &mut Source) {
        self.health = source.health.borrow_and_update().clone();
        self.tell();
        loop {
            let plan_due = self.plans.due(Instant::now());
            let account_due = self.accounts.due(Instant::now());
            let report_due = self.reports.due(Instant::now());
            tokio::select! {
                biased;
                change = source.changes.recv() => {
                    let Some(change) = change else { return };
                    self.take_in(change);
                    while let Ok(change) = source.changes.try_recv() {
                        self.take_in(change);
                    }
                }
                Some((host, told)) = self.inbox.recv() => self.hear(&host, told),
                () = until(plan_due) => self.plan(),
                Ok(()) = source.health.changed() => {
                    self.health = source.health.borrow_and_update().clone();
                    self.plans.request(Instant::now());
                    self.tell();
                }
                now = self.start.leading.changed(self.leads) => {
                    self.leads = now;
                    tracing::info!(leader = now, "leadership changed");
                    self.plans.request(Instant::now());
                    self.tell();
                }
                () = until(account_due) => self.account(),
                () = until(report_due) => self.report(),
            }
        }
    }

    fn take_in(&mut self, change: Change) {
        let kind = kind(&change);
        self.start.metrics.changes.get_or_create(&KindLabel { kind: kind.to_string() }).inc();
        let change = self.with_declared(change);
        if self.view.change(change) {
            self.changed.get_or_insert_with(Instant::now);
            self.start.metrics.last_change.set(seconds_since_1970());
            self.plans.request(Instant::now());
            self.tell();
        }
    }

    /// A complete list of Hosts includes the declared ones.
    fn with_declared(&self, change: Change) -> Change {
        match change {
            Change::Reset(ObjectKind::Host, mut objects) => {
                let declared = self.start.declared.iter().cloned();
                objects.extend(declared.map(|it| Object::Host(Box::new(it))));
                Change::Reset(ObjectKind::Host, objects)
            }
            change @ (Change::Applied(_) | Change::Deleted(_) | Change::Reset(..)) => change,
        }
    }

    fn hear(&mut self, host: &str, told: Told) {
        self.tell();
        let Some(driver) = self.drivers.get_mut(host) else { return };
        let metrics = &self.start.metrics;
        let label = HostLabel { host: host.to_owned() };
        match told {
            Told::Facts(facts) => {
                driver.state.addresses =
                    facts.addresses.values().flatten().map(|it| it.addr()).collect();
                if driver.facts.as_ref() != Some(&facts) {
                    driver.facts = Some(facts);
                    self.plans.request(Instant::now());
                }
            }
            Told::Applied(applied) => {
                metrics.passes.get_or_create(&label).inc();
                metrics.ready.get_or_create(&label).set(1);
                metrics.forwards.get_or_create(&label).set(as_gauge(applied.forwards));
                if applied.steps > 0 {
                    let took = applied.took.as_secs_f64();
                    metrics.apply_seconds.get_or_create(&label).observe(took);
                    if let Some(lag) = applied.lag {
                        metrics.lag_seconds.get_or_create(&label).observe(lag.as_secs_f64());
                    }
                    let Applied { steps, drift, .. } = applied;
                    tracing::info!(host, steps, drift, took_ms = took * 1e3, "applied");
                }
                if applied.drift {
                    metrics.drift.get_or_create(&label).inc();
                }
                driver.applied(&applied);
            }
            Told::Failed { error, reachable } => {
                metrics.failures.get_or_create(&label).inc();
                metrics.ready.get_or_create(&label).set(0);
                if driver.state.last_error.as_ref() != Some(&error) {
                    tracing::warn!(host, error, "cannot bring the host up to date; trying again");
                }
                driver.state.last_error = Some(error);
                driver.reachable = reachable;
            }
        }
    }

    /// Brings every plan up to date and hands out what changed.
    fn plan(&mut self) {
        let started = Instant::now();
        self.plans.done(started);
        self.tell();
        if !self.view.is_complete() {
            return;
        }
        self.sync_drivers();
        let unreadable = self.health.unreadable();
        let keep_all = self.health.is_partly_unknown();
        let changed = self.changed.take();
        for (name, driver) in &mut self.drivers {
            if let Err(error) = driver.plan(&self.view, &unreadable, keep_all, changed) {
                tracing::warn!(host = name, %error, "no plan; the host stays as it is");
                driver.state.last_error = Some(error.to_string());
            }
        }
        self.start.metrics.plans.inc();
        self.start.metrics.plan_seconds.observe(started.elapsed().as_secs_f64());
    }

    /// Starts and stops host tasks, so that there is one for each host that is ours to drive.
    fn sync_drivers(&mut self) {
        let names: Vec<String> = self.view.host_names().map(str::to_owned).collect();
        let mut ours: BTreeMap<String, Arc<HostSettings>> = BTreeMap::new();
        for name in names {
            if let Some(settings) = self.view.host(&name).filter(|it| self.is_ours(it)) {
                ours.insert(name, Arc::clone(settings));
            }
        }
        self.drivers.retain(|name, driver| {
            let stays = ours.get(name).is_some_and(|it| driver.settings == *it);
            if !stays {
                tracing::info!(
                    host = name,
                    "no longer driving the host in this way; its rules stay"
                );
            }
            stays
        });
        for (name, settings) in ours {
            self.drivers.entry(name).or_insert_with(|| {
                Driver::start(settings, &self.start.keys, self.start.resync, &self.told)
            });
        }
    }

    fn is_ours(&self, settings: &HostSettings) -> bool {
        match &settings.executor {
            Way::Local => self.start.local_host.as_deref() == Some(settings.name.as_str()),
            Way::Ssh(_) => self.leads,
        }
    }

    /// There is something new to tell.
    fn tell(&mut self) {
        let now = Instant::now();
        self.accounts.request(now);
        self.reports.request(now);
    }

    /// Tells objects what is the case.
    fn report(&mut self) {
        self.reports.done(Instant::now());
        if self.view.is_complete() {
            let report = report(&self.view, &self.drivers, &self.findings(), self.leads);
            self.start.reporter.publish(report);
        }
    }

    /// Tells pages what is the case.
    fn account(&mut self) {
        self.accounts.done(Instant::now());
        let findings = self.findings();
        let leader = self.leads;
        self.start.metrics.findings.set(as_gauge(findings.len()));
        self.start.metrics.leader.set(i64::from(leader));

        let hosts = self.drivers.iter().map(|(name, it)| (name.clone(), it.state.clone()));
        let snapshot = Snapshot {
            version: env!("CARGO_PKG_VERSION"),
            leader,
            complete: self.view.is_complete(),
            sources: sources(&self.health),
            hosts: hosts.collect(),
            findings: findings.iter().cloned().collect(),
            problems: self.health.problems.iter().map(ToString::to_string).collect(),
        };
        self.start.snapshot.send_replace(Arc::new(snapshot));
    }

    fn findings(&self) -> BTreeSet<Finding> {
        self.drivers.values().flat_map(|it| &it.desired().findings).cloned().collect()
    }
}

fn sources(health: &Health) -> BTreeMap<String, SourceState> {
    let state = |it: &KindHealth| SourceState {
        listed: it.listed,
        state: it.state,
        objects: it.objects,
        last_error: it.last_error.as_ref().map(|it| it.message.clone()),
    };
    health.kinds.iter().map(|(kind, it)| (kind.to_string(), state(it))).collect()
}

fn kind(change: &Change) -> ObjectKind {
    match change {
        Change::Applied(object) => object.reference().kind,
        Change::Deleted(ObjectRef { kind, .. }) | Change::Reset(kind, _) => *kind,
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

fn seconds_since_1970() -> f64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0.0, |it| it.as_secs_f64())
}

fn as_gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
