//! Objects in, publication out: takes changes from the source and plans when they pause.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::edge_gateway::EdgeGatewaySettings;
use api::object::ObjectKind;
use cluster::source::{Health, Source, State};
use planner::finding::Finding;
use planner::object::{Change, Object};
use planner::publish::{Publication, PublishView, plan};
use tokio::sync::watch;
use tokio::time::sleep_until;

use crate::certificates::{Certificates, TlsEnds};
use crate::metrics::Metrics;

/// How long nothing must happen before planning.
const QUIET: Duration = Duration::from_millis(2);

/// How long planning waits for quiet at most.
const PATIENCE: Duration = Duration::from_millis(20);

/// Planning may take this part of the time: a cluster so large that it takes a second is planned
/// every few seconds, and its flows go on meanwhile.
const SHARE: u32 = 4;

/// What is published, and where.
#[derive(Debug, Default)]
pub(crate) struct Published {
    /// Orders the wishes of several agents.
    pub(crate) revision: u64,
    /// Whether every kind of object was listed. Until then the rest is empty and means nothing.
    pub(crate) complete: bool,
    /// What is published; none of it before it is complete.
    pub(crate) publication: Publication,
    /// The gateways, as they were last understood.
    pub(crate) gateways: BTreeMap<String, Arc<EdgeGatewaySettings>>,
    /// How TLS ends where it does; what is missing here has no certificate.
    pub(crate) tls_ends: TlsEnds,
    /// What cannot be followed right now.
    pub(crate) problems: Vec<String>,
}

/// Plans for as long as the source lives.
pub(crate) async fn run(
    mut source: Source,
    mut view: PublishView,
    published: watch::Sender<Arc<Published>>,
    metrics: Arc<Metrics>,
) {
    let mut gateways = BTreeMap::new();
    let mut certificates = Certificates::new();
    let mut pace = Pace::default();
    let mut revision = 0;
    loop {
        tokio::select! {
            change = source.changes.recv() => {
                let Some(change) = change else { return };
                let now = Instant::now();
                note_gateways(&mut gateways, &change);
                let refused = certificates.note(&change);
                // A key that is replaced changes nothing that planning reads.
                let replaced = of_secrets(&change);
                let mut changed = view.change(change);
                for (secret, why) in refused {
                    changed |= view.refuse_certificate(&secret, &why);
                }
                if changed || replaced {
                    pace.changed(now);
                }
            }
            changed = source.health.changed() => {
                if changed.is_err() {
                    return;
                }
                pace.changed(Instant::now());
            }
            () = sleep_until(pace.due().unwrap_or_else(far).into()), if pace.due().is_some() => {
                let health = source.health.borrow().clone();
                // What is followed badly may be old: it must not claim to be new.
                if revision == 0 || is_current(&health) {
                    revision = source.revision.get();
                }
                let begun = Instant::now();
                let mut next = one(&view, &gateways, revision, &health);
                next.tls_ends = certificates.ends(&next.publication);
                let took = begun.elapsed();
                pace.planned(begun, took);
                metrics.plans.inc();
                metrics.plan_seconds.observe(took.as_secs_f64());
                log(&published.borrow().publication, &next.publication);
                metrics.findings.set(i64::try_from(next.publication.findings.len()).unwrap_or(0));
                published.send_replace(Arc::new(next));
            }
        }
    }
}

fn one(
    view: &PublishView,
    gateways: &BTreeMap<String, Arc<EdgeGatewaySettings>>,
    revision: u64,
    health: &Health,
) -> Published {
    let complete = view.is_complete();
    let (publication, gateways) =
        if complete { (plan(view), gateways.clone()) } else { Default::default() };
    let problems = health.problems.iter().map(ToString::to_string).collect();
    let tls_ends = TlsEnds::new();
    Published { revision, complete, publication, gateways, tls_ends, problems }
}

fn of_secrets(change: &Change) -> bool {
    match change {
        Change::Applied(object) => object.kind() == ObjectKind::Secret,
        Change::Deleted(object) => object.kind == ObjectKind::Secret,
        Change::Reset(kind, _) => *kind == ObjectKind::Secret,
    }
}

/// An EdgeGateway that can no longer be understood keeps its last good state.
fn note_gateways(gateways: &mut BTreeMap<String, Arc<EdgeGatewaySettings>>, change: &Change) {
    let mut apply = |object: &Object| {
        if let Object::EdgeGateway(gateway) = object
            && let Ok(settings) = gateway.settings()
        {
            gateways.insert(settings.name.to_string(), Arc::new(settings));
        }
    };
    match change {
        Change::Applied(object) => apply(object),
        Change::Deleted(object) if object.kind == ObjectKind::EdgeGateway => {
            gateways.remove(&object.name);
        }
        Change::Deleted(_) => {}
        Change::Reset(ObjectKind::EdgeGateway, objects) => {
            objects.iter().for_each(&mut apply);
            let there: BTreeSet<_> = objects.iter().map(|it| it.reference().name).collect();
            gateways.retain(|name, _| there.contains(name));
        }
        Change::Reset(..) => {}
    }
}

fn is_current(health: &Health) -> bool {
    health.kinds.iter().all(|(kind, it)| match it.state {
        State::Watching | State::Absent => true,
        // Where no TLS ends, nobody need let us read them.
        State::Forbidden => *kind == ObjectKind::Secret,
        State::Starting | State::Retrying => false,
    })
}

fn log(before: &Publication, after: &Publication) {
    let set = |it: &Publication| it.findings.iter().cloned().collect::<BTreeSet<Finding>>();
    if before.findings != after.findings {
        cluster::report::log_findings(&set(before), &set(after));
    }
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

/// When to plan.
#[derive(Debug, Default)]
struct Pace {
    first: Option<Instant>,
    last: Option<Instant>,
    not_before: Option<Instant>,
}

impl Pace {
    fn changed(&mut self, now: Instant) {
        self.first.get_or_insert(now);
        self.last = Some(now);
    }

    fn due(&self) -> Option<Instant> {
        let due = (self.last? + QUIET).min(self.first? + PATIENCE);
        Some(self.not_before.map_or(due, |it| it.max(due)))
    }

    fn planned(&mut self, begun: Instant, took: Duration) {
        *self = Self { first: None, last: None, not_before: Some(begun + took * SHARE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_planned_once_and_an_endless_one_all_the_same() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut pace = Pace::default();
        assert_eq!(pace.due(), None);
        pace.changed(at(0));
        pace.changed(at(1));
        assert_eq!(pace.due(), Some(at(3)));
        for change in 0..100 {
            pace.changed(at(change));
        }
        assert_eq!(pace.due(), Some(at(20)));
        pace.planned(at(20), Duration::from_millis(50));
        assert_eq!(pace.due(), None);
        pace.changed(at(71));
        assert_eq!(pace.due(), Some(at(220)), "planning leaves time for other work");
    }
}
