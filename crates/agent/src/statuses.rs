//! What objects should say, written by the one agent that leads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use api::edge_gateway::EdgeGatewayStatus;
use api::object::ObjectRef;
use cluster::leader::Leading;
use cluster::report::{PublishReport, PublishReporter};
use planner::publish::{GatewayObserved, StatusPatch, statuses};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::board::Board;
use crate::metrics::Metrics;
use crate::publication::Published;
use crate::quota::QuotaNews;
use crate::sightings::Others;

/// How long changes are gathered before they are told.
const GATHER: Duration = Duration::from_millis(30);

/// How often figures alone (bytes, flows, round-trip times) are told.
const FIGURES: Duration = Duration::from_secs(30);

/// How soon it is asked again what other agents see, while a link is missing here.
const LOOK_AGAIN: Duration = Duration::from_secs(3);

/// Tells for ever, while this agent leads.
pub(crate) async fn tell(
    mut published: watch::Receiver<Arc<Published>>,
    board: Arc<Board>,
    mut leading: Leading,
    reporter: PublishReporter,
    metrics: Arc<Metrics>,
    mut others: Others,
    mut ending: watch::Receiver<bool>,
) {
    let mut changes = board.changes();
    let mut figures = Slow::default();
    let mut quotas = QuotaNews::default();
    loop {
        let is_leading = leading.now();
        metrics.leader.set(i64::from(is_leading));
        let now = Arc::clone(&published.borrow_and_update());
        changes.borrow_and_update();
        let mut again = figures.due();
        let mut told = None;
        if !is_leading && now.complete {
            // Only remembered, for when this one leads.
            quotas.look(&now.publication, &board.observed(), Instant::now());
        }
        if is_leading && now.complete {
            let (observed, soon) = others.complete(board.observed(), now.gateways.keys()).await;
            let mut next = report(&now, &observed, &mut figures);
            next.findings.extend(quotas.look(&now.publication, &observed, Instant::now()));
            told = Some(next);
            again = figures.due();
            if soon {
                again = again.min(Instant::now() + LOOK_AGAIN);
            }
        }
        reporter.publish(told);
        if *ending.borrow() {
            break;
        }
        tokio::select! {
            changed = published.changed() => if changed.is_err() { break },
            changed = changes.changed() => if changed.is_err() { break },
            _ = leading.changed(is_leading) => {}
            _ = ending.changed() => {}
            () = sleep_until(again) => {}
        }
        sleep(GATHER).await;
    }
    reporter.finish(Duration::from_secs(2)).await;
}

fn report(
    now: &Published,
    observed: &BTreeMap<String, GatewayObserved>,
    figures: &mut Slow,
) -> PublishReport {
    let patches = statuses(&now.publication, observed);
    let statuses = patches.into_iter().map(|patch| {
        let object = patch.object();
        let status = spell(patch, figures);
        (object, status)
    });
    let findings: BTreeSet<_> = now.publication.findings.iter().cloned().collect();
    PublishReport { statuses: statuses.collect(), findings }
}

/// A status as the API spells it.
fn spell(patch: StatusPatch, figures: &mut Slow) -> Value {
    let object = patch.object();
    match patch {
        StatusPatch::GatewayClass { status, .. } => json!(status),
        StatusPatch::Gateway { status, .. } => json!(status),
        StatusPatch::ListenerSet { status, .. } => json!(status),
        StatusPatch::Route { parents, .. } => json!({ "parents": parents }),
        StatusPatch::Service { ingress, condition, .. } => {
            let mut status = json!({});
            if let Some(ingress) = ingress {
                status["loadBalancer"] = json!({ "ingress": ingress });
            }
            if let Some(condition) = condition {
                status["conditions"] = json!([condition]);
            }
            status
        }
        StatusPatch::EdgeGateway { status, .. } => json!(figures.slow_down(object, status)),
    }
}

/// Holds back figures that flow all the time: each write of them is an event for every watcher.
#[derive(Default)]
struct Slow {
    told: BTreeMap<ObjectRef, (EdgeGatewayStatus, Instant)>,
}

impl Slow {
    /// The status, with the figures that were last told if nothing else differs and that was not
    /// long ago.
    fn slow_down(&mut self, object: ObjectRef, status: EdgeGatewayStatus) -> EdgeGatewayStatus {
        match self.told.get(&object) {
            Some((told, at))
                if at.elapsed() < FIGURES && without_figures(told) == without_figures(&status) =>
            {
                told.clone()
            }
            Some(_) | None => {
                self.told.insert(object, (status.clone(), Instant::now()));
                status
            }
        }
    }

    /// When figures may be told again.
    fn due(&self) -> Instant {
        let due = self.told.values().map(|(_, at)| *at + FIGURES).min();
        due.unwrap_or_else(|| Instant::now() + FIGURES).max(Instant::now() + GATHER)
    }
}

fn without_figures(status: &EdgeGatewayStatus) -> Value {
    let mut plain = json!(status);
    if let Some(fields) = plain.as_object_mut() {
        fields.remove("bytes");
        fields.remove("quota");
        for agent in fields.get_mut("agents").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(agent) = agent.as_object_mut() {
                agent.retain(|name, _| ["name", "node", "carrier"].contains(&name.as_str()));
            }
        }
    }
    plain
}
