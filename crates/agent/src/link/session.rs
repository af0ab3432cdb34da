//! One session with a gateway: says what to publish and who can serve, answers what it asks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use api::edge_gateway::{EdgeGatewaySettings, QuotaAction};
use planner::publish::Backend;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tunnel::link::{Carrier, Incoming};
use tunnel::session::{AgentSession, Ended, Status};
use tunnel::trust::AgentTrust;
use tunnel_proto::message::{
    Desired, PublishedPort, QuotaAction as WishedAction, QuotaWish, Reach, Route, Serving, ToAgent,
    ToGateway,
};

use super::Shared;
use crate::board::Figures;
use crate::flow::reach;
use crate::metrics::GatewayLabel;
use crate::publication::Published;

/// How often what is measured is noted.
const LOOK: Duration = Duration::from_secs(1);

/// How long a gateway that has not taken our wish is left alone before it is told again.
const AGAIN: Duration = Duration::from_secs(10);

/// For how many looks no flow must be there until a session that was left ends: what was on its
/// way has come by then.
const EMPTY_LOOKS: u32 = 3;

/// A session at work. Dropped, it ends.
pub(super) struct Running {
    status: Status,
    drain: watch::Sender<bool>,
    gateway_drains: watch::Receiver<bool>,
    activity: Arc<Activity>,
    task: Option<JoinHandle<()>>,
}

/// What one session does.
#[derive(Debug, Default)]
struct Activity {
    /// Flows and probes that it has.
    open: AtomicUsize,
    /// Another session has taken its place: what the gateway is like, that one says.
    left: AtomicBool,
}

impl Running {
    pub(super) fn start(gateway: &str, session: AgentSession, shared: &Arc<Shared>) -> Self {
        let status = session.control.status().clone();
        let (drain, draining) = watch::channel(false);
        let (drains, gateway_drains) = watch::channel(false);
        let activity = Arc::new(Activity::default());
        let work = Work {
            gateway: gateway.to_owned(),
            activity: Arc::clone(&activity),
            figures: shared.board.figures(gateway),
            shared: Arc::clone(shared),
            said: Said::default(),
        };
        let task = tokio::spawn(work.run(session, draining, drains));
        Self { status, drain, gateway_drains, activity, task: Some(task) }
    }

    /// Waits until it has ended, and says why.
    pub(super) async fn ended(&self) -> Ended {
        self.status.until_ended().await
    }

    /// Waits until the gateway says that it is going away.
    pub(super) async fn gateway_drains(&self) {
        until_true(self.gateway_drains.clone()).await;
    }

    /// Tells the gateway to open no more flows here.
    pub(super) fn drain(&self) {
        self.drain.send_replace(true);
    }

    /// Lets it go on beside its successor until the flows that it has are over, or it ends.
    pub(super) fn leave(mut self) {
        self.activity.left.store(true, Ordering::Relaxed);
        let Some(mut task) = self.task.take() else { return };
        let activity = Arc::clone(&self.activity);
        tokio::spawn(async move {
            let mut look = interval(LOOK);
            let mut empty = 0;
            while empty <= EMPTY_LOOKS {
                tokio::select! {
                    _ended = &mut task => return,
                    _ = look.tick() => {}
                }
                let open = activity.open.load(Ordering::Relaxed);
                empty = if open == 0 { empty + 1 } else { 0 };
            }
            task.abort();
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

struct Work {
    gateway: String,
    activity: Arc<Activity>,
    figures: Arc<Figures>,
    shared: Arc<Shared>,
    said: Said,
}

/// What the gateway was told in this session.
#[derive(Default)]
struct Said {
    desired: Option<Desired>,
    serving: BTreeMap<String, Reach>,
    at: Option<Instant>,
}

impl Work {
    async fn run(
        mut self,
        mut session: AgentSession,
        draining: watch::Receiver<bool>,
        drains: watch::Sender<bool>,
    ) {
        let shared = Arc::clone(&self.shared);
        let mut published = shared.published.clone();
        published.mark_changed();
        let mut trust = shared.trust.clone();
        trust.mark_changed();
        let drain = until_true(draining);
        tokio::pin!(drain);
        let mut is_draining = false;
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Skip);
        // Ends with what is sent into it, which is with the session.
        tokio::spawn(self.answers(&mut session).run());
        loop {
            tokio::select! {
                Ok(()) = trust.changed() => {
                    let held = trust.borrow_and_update().clone();
                    if let Ok(held) = held
                        && self.announce(&session, &held).is_err()
                    {
                        break;
                    }
                }
                message = session.control.receive() => {
                    let Some(message) = message else { break };
                    self.received(&session, message, &drains).await;
                }
                changed = published.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    let now = Arc::clone(&published.borrow_and_update());
                    if self.say(&session, &now).is_err() {
                        break;
                    }
                }
                () = &mut drain, if !is_draining => {
                    is_draining = true;
                    if session.control.send(ToGateway::Drain).is_err() {
                        break;
                    }
                }
                _ = look.tick(), if !self.activity.left.load(Ordering::Relaxed) => {
                    let round_trip = session.control.status().round_trip();
                    shared.board.measured(&self.gateway, round_trip);
                    let label = GatewayLabel { gateway: self.gateway.clone() };
                    let seconds = round_trip.unwrap_or_default().as_secs_f64();
                    shared.metrics.link_rtt.get_or_create(&label).set(seconds);
                }
            }
        }
    }

    fn answers(&self, session: &mut AgentSession) -> Answers {
        let (_nobody, nothing) = mpsc::channel(1);
        Answers {
            flows: std::mem::replace(&mut session.flows, nothing),
            activity: Arc::clone(&self.activity),
            figures: Arc::clone(&self.figures),
            shared: Arc::clone(&self.shared),
        }
    }

    async fn received(
        &mut self,
        session: &AgentSession,
        message: ToAgent,
        drains: &watch::Sender<bool>,
    ) {
        match message {
            ToAgent::Report(_) if self.activity.left.load(Ordering::Relaxed) => {}
            ToAgent::Report(report) => {
                let behind = report.revision;
                self.shared.board.report(&self.gateway, report);
                self.say_again(session, behind);
            }
            ToAgent::Drain => {
                drains.send_replace(true);
            }
            ToAgent::CertificateWanted(request) => self.sign(session, request).await,
            // Taken care of by the carrier, or out of place.
            ToAgent::Spare(_)
            | ToAgent::Welcome(_)
            | ToAgent::Ping(_)
            | ToAgent::Pong(_)
            | ToAgent::Evicted { .. }
            | ToAgent::Adopting(_) => {}
        }
    }

    /// Says what differs from what was said.
    fn say(&mut self, session: &AgentSession, now: &Published) -> Result<(), Ended> {
        let Some(settings) = now.gateways.get(&self.gateway).filter(|_| now.complete) else {
            return Ok(());
        };
        let ports = now.publication.gateways.get(&self.gateway).cloned().unwrap_or_default();
        let serving = serving(&ports, &now.publication.backends, self.shared.node.as_deref());
        let differences = differences(&self.said.serving, &serving);
        // First who can serve, so that a new port has somewhere to lead from its first moment on.
        if !differences.is_empty() {
            session.control.send(ToGateway::Serving(differences))?;
            self.said.serving = serving;
        }
        let desired = Desired { revision: now.revision, ports, quota: quota(settings) };
        let is_said = self
            .said
            .desired
            .as_ref()
            .is_some_and(|it| (&it.ports, &it.quota) == (&desired.ports, &desired.quota));
        if !is_said {
            self.send(session, desired)?;
        }
        Ok(())
    }

    /// A gateway that follows an older wish may follow one that an agent left behind which is gone.
    fn say_again(&mut self, session: &AgentSession, in_force: u64) {
        let now = Arc::clone(&self.shared.published.borrow());
        let Some(mut desired) = self.said.desired.clone() else { return };
        let is_recent = self.said.at.is_some_and(|it| it.elapsed() < AGAIN);
        if in_force < now.revision && !is_recent {
            desired.revision = now.revision;
            // The session's end is noticed elsewhere.
            let _ended = self.send(session, desired);
        }
    }

    fn send(&mut self, session: &AgentSession, desired: Desired) -> Result<(), Ended> {
        session.control.send(ToGateway::Desired(desired.clone()))?;
        self.said.desired = Some(desired);
        self.said.at = Some(Instant::now());
        Ok(())
    }

    /// Tells the gateway whom to trust: when the session begins, since the gateway may have missed
    /// a change, and with every change.
    fn announce(&self, session: &AgentSession, trust: &AgentTrust) -> Result<(), Ended> {
        if session.carrier == Carrier::Ssh {
            return Ok(());
        }
        session.control.send(ToGateway::Certificate(trust.announcement()))
    }

    /// Has a certificate signed for the gateway: its key is its own, its name is the one that it
    /// has proved.
    async fn sign(&self, session: &AgentSession, request: Vec<u8>) {
        let held = self.shared.trust.borrow().clone();
        let Ok(trust) = held else { return };
        match trust.certify(&session.peer, request).await {
            Ok(certificate) => {
                // The session's end is noticed elsewhere.
                let _ended = session.control.send(ToGateway::Certificate(certificate));
                tracing::info!(gateway = self.gateway, "renewed the gateway's certificate");
            }
            Err(error) => {
                tracing::warn!(gateway = self.gateway, %error, "cannot renew its certificate");
            }
        }
    }
}

/// What answers the flows of a session: a task of its own, which a visitor waits for and which has
/// nothing else to look at.
struct Answers {
    flows: mpsc::Receiver<Incoming>,
    activity: Arc<Activity>,
    figures: Arc<Figures>,
    shared: Arc<Shared>,
}

impl Answers {
    async fn run(mut self) {
        while let Some(incoming) = self.flows.recv().await {
            // A probe is no visitor.
            let visitors = u64::from(!incoming.open.probe);
            let meter = match incoming.open.probe {
                true => Arc::default(),
                false => self.figures.meter(&incoming.open.backend),
            };
            let (shared, figures) = (Arc::clone(&self.shared), Arc::clone(&self.figures));
            let activity = Arc::clone(&self.activity);
            tokio::spawn(async move {
                activity.open.fetch_add(1, Ordering::Relaxed);
                figures.flows.fetch_add(visitors, Ordering::Relaxed);
                shared.flows.answer(incoming, meter).await;
                figures.flows.fetch_sub(visitors, Ordering::Relaxed);
                activity.open.fetch_sub(1, Ordering::Relaxed);
            });
        }
    }
}

/// Completes when the value is true; never when nobody can make it so any more.
pub(super) async fn until_true(mut watched: watch::Receiver<bool>) {
    if watched.wait_for(|it| *it).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// How well this agent can serve each backend that `ports` name.
fn serving(
    ports: &[PublishedPort],
    backends: &BTreeMap<String, Backend>,
    node: Option<&str>,
) -> BTreeMap<String, Reach> {
    let mut serving = BTreeMap::new();
    let mut note = |key: &String| {
        let reach = backends.get(key).map_or(Reach::None, |it| reach(it, node));
        if reach != Reach::None {
            serving.insert(key.clone(), reach);
        }
    };
    for port in ports {
        match &port.route {
            Route::Backend(key) => note(key),
            Route::ServerName(names) => names.iter().map(|it| &it.backend).for_each(&mut note),
            Route::Nowhere => {}
        }
    }
    serving
}

/// What has to be said; what is missing was `None` before and is `None` now.
fn differences(before: &BTreeMap<String, Reach>, after: &BTreeMap<String, Reach>) -> Vec<Serving> {
    let gone = before.keys().filter(|it| !after.contains_key(*it));
    let gone = gone.map(|it| Serving { backend: it.clone(), reach: Reach::None });
    let new = after.iter().filter(|(key, reach)| before.get(*key) != Some(reach));
    let new = new.map(|(key, reach)| Serving { backend: key.clone(), reach: *reach });
    gone.chain(new).collect()
}

fn quota(settings: &EdgeGatewaySettings) -> Option<QuotaWish> {
    let quota = settings.quota?;
    let (action, shape_bits_per_second) = match quota.action {
        QuotaAction::Warn => (WishedAction::Warn, 0),
        QuotaAction::Shape { bits_per_second } => (WishedAction::Shape, bits_per_second),
        QuotaAction::Stop => (WishedAction::Stop, 0),
    };
    Some(QuotaWish {
        bytes: quota.bytes_per_month,
        reset_day: quota.reset_day,
        action,
        shape_bits_per_second,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_said() {
        let map = |pairs: &[(&str, Reach)]| {
            pairs.iter().map(|(key, reach)| ((*key).to_owned(), *reach)).collect::<BTreeMap<_, _>>()
        };
        let before = map(&[("a", Reach::Local), ("b", Reach::Remote), ("c", Reach::Remote)]);
        let after = map(&[("a", Reach::Local), ("b", Reach::Local), ("d", Reach::Remote)]);
        let said: Vec<_> =
            differences(&before, &after).into_iter().map(|it| (it.backend, it.reach)).collect();
        let expected = [("c", Reach::None), ("b", Reach::Local), ("d", Reach::Remote)];
        assert_eq!(said, expected.map(|(key, reach)| (key.to_owned(), reach)));
        assert_eq!(differences(&after, &after), []);
    }
}
