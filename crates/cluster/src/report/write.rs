//! Writes what has to be written, and tries again what failed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::host::Host;
use api::object::{ObjectKind, ObjectRef};
use futures::StreamExt;
use futures::stream;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use planner::finding::Finding;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{sleep_until, timeout};

use super::announce::Announcer;
use super::bucket::Bucket;
use super::difference::difference;
use super::event::{Speaker, event, name, namespace};
use super::seen::Seen;
use super::{CONTROLLER, Report, ReportHealth};
use crate::backoff::{Backoff, Limits};
use crate::trouble::{Trouble, status_code};

/// How many writes are under way at once.
const AT_ONCE: usize = 8;

/// How many writes make a round. After it the report is looked at again, so that a server that
/// does not answer holds up what is new for a minute or two, not for hours.
const BATCH: usize = 64;

/// How often one object is written: a burst of five, then every two seconds.
const ONE: (u32, Duration) = (5, Duration::from_secs(2));

/// How long the server may take for one write.
const WITHIN: Duration = Duration::from_secs(15);

/// Writes reports to the API.
pub(super) struct Writer {
    client: Client,
    seen: Arc<Seen>,
    identity: String,
    retry: Limits,
    reports: watch::Receiver<Arc<Report>>,
    health: watch::Sender<ReportHealth>,
    announcer: Announcer,
    pace: BTreeMap<ObjectRef, Bucket>,
    failing: BTreeMap<ObjectRef, Failing>,
    /// The report that was looked at last.
    report: Arc<Report>,
    /// The objects that may say something else than the report: all others were compared with it
    /// before, and neither they nor their part of the report changed since.
    doubtful: BTreeSet<ObjectRef>,
}

/// An object whose last write failed.
struct Failing {
    backoff: Backoff,
    again: Instant,
}

impl Writer {
    pub(super) fn new(
        client: Client,
        seen: Arc<Seen>,
        identity: &str,
        retry: Limits,
        reports: watch::Receiver<Arc<Report>>,
        health: watch::Sender<ReportHealth>,
    ) -> Self {
        Self {
            client,
            seen,
            identity: identity.to_owned(),
            retry,
            reports,
            health,
            announcer: Announcer::new(Instant::now()),
            pace: BTreeMap::new(),
            failing: BTreeMap::new(),
            report: Arc::default(),
            doubtful: BTreeSet::new(),
        }
    }

    /// Writes until nobody can give it more to write and everything is written.
    pub(super) async fn run(mut self) {
        let mut ending = false;
        loop {
            let report = Arc::clone(&self.reports.borrow_and_update());
            self.take_up(&report);
            let (pending, again) = self.write(&report).await;
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

    /// Finds the objects that have to be compared with the report again.
    fn take_up(&mut self, report: &Arc<Report>) {
        self.doubtful.append(&mut self.seen.take_touched());
        if Arc::ptr_eq(report, &self.report) {
            return;
        }
        match (&self.report.services, &report.services) {
            (Some(before), Some(now)) => self.doubtful.extend(differing(before, now).cloned()),
            (None, None) => {}
            // Objects that the report does not name lose what was once said on them.
            (None, Some(_)) | (Some(_), None) => self.doubtful = self.seen.names(),
        }
        let hosts = differing(&self.report.hosts, &report.hosts);
        self.doubtful.extend(hosts.map(|it| ObjectRef::cluster(ObjectKind::Host, it)));
        self.report = Arc::clone(report);
    }

    /// Writes what differs and may be written now. Returns how much is left, and when to go on.
    async fn write(&mut self, report: &Report) -> (usize, Instant) {
        let now = Instant::now();
        let mut again = now + Duration::from_secs(60);
        let mut pending = 0;

        let writes = difference(report, &self.seen.of(&self.doubtful), Timestamp::now());
        self.doubtful = writes.keys().cloned().collect();
        self.failing.retain(|it, _| writes.contains_key(it));
        self.pace.retain(|_, it| !it.is_full(now));
        let mut allowed = Vec::new();
        for (object, patch) in writes {
            if allowed.len() == BATCH {
                pending += 1;
                again = now;
                continue;
            }
            let pace =
                self.pace.entry(object.clone()).or_insert_with(|| Bucket::new(ONE.0, ONE.1, now));
            let retry = self.failing.get(&object).map(|it| it.again).filter(|it| *it > now);
            match retry.map_or_else(|| pace.take(now), Err) {
                Ok(()) => allowed.push((object, patch)),
                Err(later) => {
                    pending += 1;
                    again = again.min(later);
                }
            }
        }

        match &report.findings {
            Some(findings) => self.announcer.findings(findings, now),
            None => self.announcer.findings(&BTreeSet::new(), now),
        }
        let events = self.announcer.due(now);

        let this = &*self;
        let statuses = stream::iter(allowed).map(async |(object, patch)| {
            let result = within(this.patch(&object, &patch)).await;
            (object, result)
        });
        let statuses: Vec<_> = statuses.buffer_unordered(AT_ONCE).collect().await;
        let events = stream::iter(events).map(async |finding| {
            let result = match this.seen.get(&finding.object) {
                Some(entry) => {
                    let by = Speaker {
                        controller: CONTROLLER,
                        identity: &this.identity,
                        action: "Forward",
                    };
                    within(announce(&this.client, &finding, &entry.uid, by)).await.map(|()| true)
                }
                None => Ok(false),
            };
            (finding, result)
        });
        let events: Vec<_> = events.buffer_unordered(AT_ONCE).collect().await;

        for (object, result) in statuses {
            if let Some(later) = self.status_written(object, result) {
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

    async fn patch(&self, object: &ObjectRef, patch: &Value) -> Result<(), kube::Error> {
        // Forced: nobody else has any business with these fields.
        let parameters = PatchParams::apply(CONTROLLER).force();
        let patch = Patch::Apply(patch);
        match &object.namespace {
            Some(namespace) => {
                let api: Api<Service> = Api::namespaced(self.client.clone(), namespace);
                let service = api.patch_status(&object.name, &parameters, &patch).await?;
                let Service { metadata, spec, status } = service;
                self.seen.service(&metadata, spec.as_ref(), status.as_ref());
            }
            None => {
                let api: Api<Host> = Api::all(self.client.clone());
                let host = api.patch_status(&object.name, &parameters, &patch).await?;
                self.seen.host(&host);
            }
        }
        Ok(())
    }

    /// Notes how a write ended; returns when to try again if it failed.
    fn status_written(
        &mut self,
        object: ObjectRef,
        result: Result<(), Trouble>,
    ) -> Option<Instant> {
        let now = Instant::now();
        let trouble = match result {
            Ok(()) => {
                self.doubtful.remove(&object);
                self.failing.remove(&object);
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
        let (first, again) = (failing.backoff.failures() == 1, failing.again);
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
        let is_news = self.health.borrow().last_error.as_ref().is_none_or(|it| it.0 != message);
        if first && is_news {
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

/// The keys of what is in only one of the two, or different in them.
fn differing<'a, K: Ord, V: PartialEq>(
    before: &'a BTreeMap<K, V>,
    now: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = &'a K> {
    let gone = before.keys().filter(|it| !now.contains_key(it));
    let differ = now.iter().filter(|(key, it)| before.get(key) != Some(it));
    gone.chain(differ.map(|(key, _)| key))
}

/// Sends the Event of a finding, or says again that it lasts.
pub(super) async fn announce(
    client: &Client,
    finding: &Finding,
    uid: &str,
    by: Speaker<'_>,
) -> Result<(), kube::Error> {
    let api: Api<Event> = Api::namespaced(client.clone(), namespace(&finding.object));
    let event = event(finding, uid, by, Timestamp::now());
    match api.create(&PostParams::default(), &event).await {
        Err(error) if status_code(&error) == Some(409) => {}
        result => return result.map(|_| ()),
    }
    // It was told before: by another replica, before a restart, or half an hour ago. An empty
    // patch reads the Event without the permission to read Events.
    let name = name(finding, uid);
    let parameters = PatchParams::default();
    let told = api.patch(&name, &parameters, &Patch::Merge(json!({}))).await?;
    let count = told.series.map_or(1, |it| it.count).saturating_add(1);
    let series = EventSeries { count, last_observed_time: MicroTime(Timestamp::now()) };
    let patch = json!({ "series": series });
    api.patch(&name, &parameters, &Patch::Merge(patch)).await.map(|_| ())
}

pub(super) async fn within<T>(
    write: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Trouble> {
    timeout(WITHIN, write).await.map_err(|_| Trouble::Silent(WITHIN))?.map_err(Trouble::from)
}
