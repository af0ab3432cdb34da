//! Says what happened, where the user looks for it.
//!
//! A [`Report`] is everything that should be said now. The reporter compares it with what the
//! objects already say, as the watches [saw](Seen) it, and writes only what differs. Promises:
//!
//! - nothing is written twice, and nothing is read for the sake of writing;
//! - a failed write is tried again for ever, with growing pauses, and delays nobody: the caller
//!   hands over a report and goes on;
//! - no object is written more often than every two seconds for long, whoever writes against us;
//! - addresses are written to Services of our class only, and only our own condition is written;
//! - a finding becomes one Event on the object that the user wrote. While it lasts, the Event is
//!   renewed every half an hour, because the API server forgets Events after an hour.

mod announce;
mod bucket;
mod difference;
mod event;
mod merge;
mod publish;
mod seen;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::host::HostStatus;
use api::object::ObjectRef;
use jiff::Timestamp;
use kube::Client;
use planner::finding::{Finding, Severity};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::backoff::Limits;
pub use publish::{PublishReport, PublishReporter, log_findings};
pub use seen::Seen;

/// The type of the condition that tells whether a Service is forwarded.
pub const FORWARDED: &str = "portcullis.dev/Forwarded";

/// The type of the condition that tells whether a Service is published on gateways.
pub const PUBLISHED: &str = "portcullis.dev/Published";

/// Who wrote it: the field manager of what we write, and the controller that Events name.
pub const CONTROLLER: &str = "portcullis.dev/controller";

/// Everything that should be said now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The status of each Host that this replica drives, by name. Other Hosts are left alone.
    ///
    /// The times of conditions need not be right: a condition whose status is unchanged keeps
    /// the time that the object has.
    pub hosts: BTreeMap<String, HostStatus>,
    /// What to say about Services; a Service that is missing here loses what we once said.
    /// `None` when another replica speaks for Services.
    pub services: Option<BTreeMap<ObjectRef, ServiceReport>>,
    /// Everything that users got wrong or should know; `None` when another replica tells them.
    pub findings: Option<BTreeSet<Finding>>,
}

/// What to say about one Service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServiceReport {
    /// Whether it is forwarded.
    pub forwarded: bool,
    /// Why, as a word in UpperCamelCase.
    pub reason: String,
    /// Why, for a person.
    pub message: String,
    /// Where it is reachable: `status.loadBalancer.ingress`, for Services of our class only.
    /// `None` when that cannot be told now: what the status says stays.
    pub addresses: Option<Vec<IpAddr>>,
}

/// How well reports reach the API.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReportHealth {
    /// How many objects were written.
    pub written: u64,
    /// How many Events were sent.
    pub events: u64,
    /// How many writes failed.
    pub failed: u64,
    /// How many writes wait: for their turn, or to be tried again.
    pub pending: usize,
    /// What last went wrong, and when; `None` when nothing waits for another try.
    pub last_error: Option<(String, Timestamp)>,
}

/// Says what it is given to say. Ends when it is dropped.
#[derive(Debug)]
pub struct Reporter {
    reports: watch::Sender<Arc<Report>>,
    health: watch::Receiver<ReportHealth>,
    /// The task that writes; it is stopped with the reporter.
    tasks: JoinSet<()>,
}

impl Reporter {
    /// Writes to the API, and logs findings.
    ///
    /// `identity` names this replica in Events; `seen` is what the
    /// [watches](crate::kubernetes::watch) tell.
    #[must_use]
    pub fn kubernetes(client: &Client, seen: &Arc<Seen>, identity: &str, retry: Limits) -> Self {
        let (reports, receiver) = watch::channel(Arc::default());
        let (health, health_receiver) = watch::channel(ReportHealth::default());
        let writer =
            write::Writer::new(client.clone(), Arc::clone(seen), identity, retry, receiver, health);
        let mut tasks = JoinSet::new();
        tasks.spawn(writer.run());
        Self { reports, health: health_receiver, tasks }
    }

    /// Logs findings, and writes nothing: for manifests, which have nowhere to write to.
    #[must_use]
    pub fn log() -> Self {
        let (reports, _) = watch::channel(Arc::default());
        let (_, health) = watch::channel(ReportHealth::default());
        Self { reports, health, tasks: JoinSet::new() }
    }

    /// Says this from now on. Returns at once.
    pub fn publish(&self, report: Report) {
        let before = self.reports.borrow().findings.clone().unwrap_or_default();
        let after = report.findings.clone().unwrap_or_default();
        for finding in after.difference(&before) {
            match finding.severity {
                Severity::Error => tracing::error!(reason = finding.reason, "{finding}"),
                Severity::Warning => tracing::warn!(reason = finding.reason, "{finding}"),
                Severity::Note => tracing::info!(reason = finding.reason, "{finding}"),
            }
        }
        if report.findings.is_some() {
            for finding in before.difference(&after) {
                tracing::info!(reason = finding.reason, "no longer: {finding}");
            }
        }
        self.reports.send_if_modified(|it| {
            let differs = **it != report;
            if differs {
                *it = Arc::new(report);
            }
            differs
        });
    }

    /// What is being said.
    #[must_use]
    pub fn current(&self) -> Arc<Report> {
        Arc::clone(&self.reports.borrow())
    }

    /// How well reports reach the API.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<ReportHealth> {
        self.health.clone()
    }

    /// Gives what is being said a chance to reach the API, for a graceful end.
    pub async fn finish(self, within: Duration) {
        let Self { reports, mut health, tasks } = self;
        // The writer ends when it has no more to write and nobody can give it more.
        drop(reports);
        let written = async { while health.changed().await.is_ok() {} };
        if timeout(within, written).await.is_err() {
            tracing::warn!(pending = health.borrow().pending, "some reports were not written");
        }
        drop(tasks);
    }
}
