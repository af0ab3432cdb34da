//! Writes what publishing has to say: statuses of many kinds, and Events.
//!
//! Unlike the reports of forwarding, a status comes as a whole and as JSON, and is compared with
//! what the object says by [`merge`](super::merge).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::edge_gateway::EdgeGateway;
use api::gateway_api::{
    Gateway, GatewayClass, HttpRoute, ListenerSet, TcpRoute, TlsRoute, UdpRoute,
};
use api::object::{ObjectKind, ObjectRef};
use futures::StreamExt as _;
use futures::stream;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use planner::finding::{Finding, Severity};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

use super::announce::Announcer;
use super::bucket::Bucket;
use super::event::Speaker;
use super::merge;
use super::seen::{Entry, Says, Seen};
use super::write::{announce, within};
use super::{PUBLISHED, ReportHealth};
use crate::backoff::{Backoff, Limits};
use crate::trouble::Trouble;

/// Who wrote it: the field manager of what agents write, and the controller that Events name.
const AGENT: &str = "portcullis.dev/agent";

/// How many writes are under way at once.
const AT_ONCE: usize = 8;

/// How often one object is written: a burst, then once each period. Statuses change with every
/// route that attaches, and somebody may wait for each.
const ONE: (u32, Duration) = (20, Duration::from_millis(500));

/// Everything that publishing has to say now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PublishReport {
    /// Our part of the status of each object, as the API spells it. Routes and Services that are
    /// missing here lose what was once said of ours; all other objects are left alone.
    ///
    /// The times of conditions need not be right: a condition whose status is unchanged keeps the
    /// time that the object has.
    pub statuses: BTreeMap<ObjectRef, Value>,
    /// Everything that users got wrong or should know.
    pub findings: BTreeSet<Finding>,
}

/// Says what it is given to say. Ends when it is dropped.
#[derive(Debug)]
pub struct PublishReporter {
    reports: watch::Sender<Option<Arc<PublishReport>>>,
    health: watch::Receiver<ReportHealth>,
    tasks: JoinSet<()>,
}

impl PublishReporter {
    /// Writes to the API. `identity` names this replica in Events; `seen` is what the
    /// [watches](crate::kubernetes::watch_publish) tell.
    #[must_use]
    pub fn kubernetes(client: &Client, seen: &Arc<Seen>, identity: &str, retry: Limits) -> Self {
        let (reports, receiver) = watch::channel(None);
        let (health, health_receiver) = watch::channel(ReportHealth::default());
        let writer = Writer {
            client: client.clone(),
            seen: Arc::clone(seen),
            identity: identity.to_owned(),
            retry,
            reports: receiver,
            health,
            announcer: Announcer::new(Instant::now()),
            pace: BTreeMap::new(),
            failing: BTreeMap::new(),
            written: BTreeMap::new(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(writer.run());
        Self { reports, health: health_receiver, tasks }
    }

    /// Writes nothing: for manifests, which have nowhere to write to.
    #[must_use]
    pub fn nowhere() -> Self {
        let (reports, _) = watch::channel(None);
        let (_, health) = watch::channel(ReportHealth::default());
        Self { reports, health, tasks: JoinSet::new() }
    }

    /// Says this from now on; `None` while another replica speaks. Returns at once.
    pub fn publish(&self, report: Option<PublishReport>) {
        self.reports.send_if_modified(|it| {
            let differs = it.as_deref() != report.as_ref();
            if differs {
                *it = report.map(Arc::new);
            }
            differs
        });
    }

    /// How well reports reach the API.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<ReportHealth> {
        self.health.clone()
    }

    /// Gives what is being said a chance to reach the API, for a graceful end.
    pub async fn finish(self, limit: Duration) {
        let Self { reports, mut health, tasks } = self;
        // The writer ends when it has no more to write and nobody can give it more.
        drop(reports);
        let written = async { while health.changed().await.is_ok() {} };
        if timeout(limit, written).await.is_err() {
            tracing::warn!(pending = health.borrow().pending, "some statuses were not written");
        }
        drop(tasks);
    }
}

/// Logs what is newly wrong, and what no longer is.
pub fn log_findings(before: &BTreeSet<Finding>, after: &BTreeSet<Finding>) {
    for finding in after.difference(before) {
        match finding.severity {
            Severity::Error => tracing::error!(reason = finding.reason, "{finding}"),
            Severity::Warning => tracing::warn!(reason = finding.reason, "{finding}"),
            Severity::Note => tracing::info!(reason = finding.reason, "{finding}"),
        }
    }
    for finding in before.difference(after) {
        tracing::info!(reason = finding.reason, "no longer: {finding}");
    }
}

struct Writer {
    client: Client,
    seen: Arc<Seen>,
    identity: String,
    retry: Limits,
    reports: watch::Receiver<Option<Arc<PublishReport>>>,
    health: watch::Sender<ReportHealth>,
    announcer: Announcer,
    pace: BTreeMap<ObjectRef, Bucket>,
    failing: BTreeMap<ObjectRef, Failing>,
    /// What was last written, and what the object said after it: the same is not written twice,
    /// whatever the server made of it.
    written: BTreeMap<ObjectRef, (Value, Value)>,
}

struct Failing {
    backoff: Backoff,
    again: Instant,
}

/// A write that is due.
struct Due {
    object: ObjectRef,
    status: Value,
    uid: String,
    /// The version that the write was made for, where what others say is written again.
    version: Option<u64>,
}

impl Writer {
    async fn run(mut self) {
        let mut ending = false;
        loop {
            let report = self.reports.borrow_and_update().clone();
            let (pending, again) = match &report {
                Some(report) => self.write(report).await,
                None => {
                    self.announcer.findings(&BTreeSet::new(), Instant::now());
                    (0, Instant::now() + Duration::from_secs(3600))
                }
            };
            self.set_pending(pending);
            if ending && pending == 0 {
                return;
            }
            tokio::select! {
                changed = self.reports.changed(), if !ending => ending = changed.is_err(),
                () = self.seen.changed() => {}
                () = sleep_until(again.into()) => {}
            }
        }
    }

    /// Writes what differs and may be written now. Returns how much is left, and when to go on.
    async fn write(&mut self, report: &PublishReport) -> (usize, Instant) {
        let now = Instant::now();
        let mut again = now + Duration::from_secs(60);
        let mut pending = 0;

        let seen = self.seen.all();
        self.written.retain(|it, _| seen.contains_key(it));
        self.pace.retain(|_, it| !it.is_full(now));
        let due = self.due(report, &seen);
        self.failing.retain(|it, _| due.iter().any(|due| due.object == *it));
        let mut allowed = Vec::new();
        for due in due {
            let pace = self.pace.entry(due.object.clone());
            let pace = pace.or_insert_with(|| Bucket::new(ONE.0, ONE.1, now));
            let retry = self.failing.get(&due.object).map(|it| it.again).filter(|it| *it > now);
            match retry.map_or_else(|| pace.take(now), Err) {
                Ok(()) => allowed.push(due),
                Err(later) => {
                    pending += 1;
                    again = again.min(later);
                }
            }
        }
        self.announcer.findings(&report.findings, now);
        let events = self.announcer.due(now);

        let this = &*self;
        let statuses = stream::iter(allowed).map(async |due| {
            let result = within(this.apply(&due)).await;
            (due, result)
        });
        let statuses: Vec<_> = statuses.buffer_unordered(AT_ONCE).collect().await;
        let by = Speaker { controller: AGENT, identity: &self.identity, action: "Publish" };
        let events = stream::iter(events).map(async |finding| {
            let result = match this.seen.get(&finding.object) {
                Some(entry) => {
                    within(announce(&this.client, &finding, &entry.uid, by)).await.map(|()| true)
                }
                None => Ok(false),
            };
            (finding, result)
        });
        let events: Vec<_> = events.buffer_unordered(AT_ONCE).collect().await;

        for (due, result) in statuses {
            if let Some(later) = self.status_written(due, result) {
                pending += 1;
                again = again.min(later);
            }
        }
        for (finding, result) in events {
            self.event_sent(&finding, result);
        }
        if let Some(due) = self.announcer.poll_timeout() {
            again = again.min(due);
        }
        (pending, again)
    }

    /// Every object that does not say what it should.
    fn due(&self, report: &PublishReport, seen: &BTreeMap<ObjectRef, Entry>) -> Vec<Due> {
        let now = Timestamp::now();
        let nothing = json!({});
        let mut due = Vec::new();
        for (object, entry) in seen {
            let Says::Status(says) = &entry.says else { continue };
            let wanted = match report.statuses.get(object) {
                Some(wanted) => wanted,
                None if merge::is_route(object.kind) || says_published(object, says) => &nothing,
                None => continue,
            };
            let Some(status) = merge::status(object.kind, wanted, says, now) else { continue };
            let before = self.written.get(object);
            if before.is_some_and(|(written, then)| {
                without_times(written) == without_times(&status) && then == says
            }) {
                continue;
            }
            let version = merge::is_route(object.kind).then(|| entry.version());
            due.push(Due { object: object.clone(), status, uid: entry.uid.clone(), version });
        }
        due
    }

    async fn apply(&self, due: &Due) -> Result<Value, kube::Error> {
        let Some(resource) = resource(due.object.kind) else { return Ok(Value::Null) };
        let ObjectRef { kind, namespace, name } = &due.object;
        // With the `uid`, so that a later object of the same name is not told what was meant for
        // this one.
        let mut metadata = json!({ "name": name, "uid": due.uid });
        if let Some(version) = due.version {
            metadata["resourceVersion"] = json!(version.to_string());
        }
        let api: Api<DynamicObject> = match namespace {
            Some(namespace) => {
                metadata["namespace"] = json!(namespace);
                Api::namespaced_with(self.client.clone(), namespace, &resource)
            }
            None => Api::all_with(self.client.clone(), &resource),
        };
        let patch = json!({
            "apiVersion": kind.api_version(), "kind": kind.name(), "metadata": metadata,
            "status": due.status,
        });
        // Forced: nobody else has any business with what is ours here.
        let parameters = PatchParams::apply(AGENT).force();
        let object = api.patch_status(name, &parameters, &Patch::Apply(&patch)).await?;
        let says = object.data.get("status").cloned().unwrap_or_default();
        self.seen.status(due.object.clone(), &object.metadata, Some(&says));
        Ok(says)
    }

    /// Notes how a write ended; returns when to try again if it failed.
    fn status_written(&mut self, due: Due, result: Result<Value, Trouble>) -> Option<Instant> {
        let now = Instant::now();
        let object = due.object;
        let trouble = match result {
            Ok(says) => {
                self.failing.remove(&object);
                self.written.insert(object, (due.status, says));
                self.health.send_modify(|it| it.written += 1);
                return None;
            }
            Err(Trouble::NoSuchKind(_)) => {
                // The object is gone; the watch says so sooner or later.
                self.seen.forget(&object);
                return None;
            }
            Err(trouble) => trouble,
        };
        let message = format!("{object}: cannot write its status: {}", trouble.chain());
        let retry = self.retry;
        let failing = self
            .failing
            .entry(object)
            .or_insert_with(|| Failing { backoff: Backoff::new(retry), again: now });
        failing.again = now + failing.backoff.failed(now, rand::random());
        // A version that somebody else just overtook is no news.
        let (first, again) = (failing.backoff.failures() == 2, failing.again);
        self.note_failure(message, first);
        Some(again)
    }

    fn event_sent(&mut self, finding: &Finding, result: Result<bool, Trouble>) {
        let now = Instant::now();
        match result {
            Ok(true) => {
                self.announcer.told(finding, now);
                self.health.send_modify(|it| it.events += 1);
            }
            // The object is gone, or not seen yet.
            Ok(false) => self.announcer.failed(finding, now + Duration::from_secs(5)),
            Err(trouble) => {
                let message =
                    format!("{}: cannot send an Event: {}", finding.object, trouble.chain());
                self.announcer.failed(finding, now + self.retry.cap);
                self.note_failure(message, true);
            }
        }
    }

    fn note_failure(&self, message: String, first: bool) {
        if first {
            tracing::warn!("{message}");
        } else {
            tracing::debug!("{message}");
        }
        self.health.send_modify(|it| {
            it.failed += 1;
            it.last_error = Some((message, Timestamp::now()));
        });
    }

    fn set_pending(&self, pending: usize) {
        let is_failing = !self.failing.is_empty();
        self.health.send_if_modified(|it| {
            let before = it.clone();
            it.pending = pending;
            if !is_failing {
                it.last_error = None;
            }
            *it != before
        });
    }
}

/// Whether we once said something on a Service.
fn says_published(object: &ObjectRef, says: &Value) -> bool {
    let conditions = says["conditions"].as_array().into_iter().flatten();
    object.kind == ObjectKind::Service && conditions.into_iter().any(|it| it["type"] == PUBLISHED)
}

/// Times of changes that are made now differ with each try.
fn without_times(status: &Value) -> Value {
    match status {
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(name, _)| *name != "lastTransitionTime");
            fields.map(|(name, value)| (name.clone(), without_times(value))).collect()
        }
        Value::Array(items) => items.iter().map(without_times).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => status.clone(),
    }
}

/// How to reach objects of a kind whose status is ours to write.
fn resource(kind: ObjectKind) -> Option<ApiResource> {
    Some(match kind {
        ObjectKind::Service => ApiResource::erase::<Service>(&()),
        ObjectKind::EdgeGateway => ApiResource::erase::<EdgeGateway>(&()),
        ObjectKind::GatewayClass => ApiResource::erase::<GatewayClass>(&()),
        ObjectKind::Gateway => ApiResource::erase::<Gateway>(&()),
        ObjectKind::ListenerSet => ApiResource::erase::<ListenerSet>(&()),
        ObjectKind::TcpRoute => ApiResource::erase::<TcpRoute>(&()),
        ObjectKind::UdpRoute => ApiResource::erase::<UdpRoute>(&()),
        ObjectKind::TlsRoute => ApiResource::erase::<TlsRoute>(&()),
        ObjectKind::HttpRoute => ApiResource::erase::<HttpRoute>(&()),
        ObjectKind::Pod
        | ObjectKind::Node
        | ObjectKind::EndpointSlice
        | ObjectKind::Host
        | ObjectKind::Namespace
        | ObjectKind::Secret
        | ObjectKind::ReferenceGrant => return None,
    })
}
