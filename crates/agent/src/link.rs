//! The link to one gateway: dialled for ever, told what to publish, and its visitors answered.

mod dial;
mod redemption;
mod session;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use api::edge_gateway::{Carrier, EdgeGatewaySettings};
use tokio::sync::watch;
use tokio::time::sleep;
use tunnel::auto::Auto;
use tunnel::session::{AgentSession, Ended};
use tunnel::trust::AgentTrust;
use tunnel_proto::backoff::{Backoff, HEALTHY};

use crate::board::Board;
use crate::flow::Flows;
use crate::metrics::{GatewayLabel, LinkLabel, Metrics};
use crate::publication::Published;
use session::Running;

/// What the links of all gateways share.
pub(crate) struct Shared {
    /// The agent's name.
    pub(crate) agent: String,
    /// Its node.
    pub(crate) node: Option<String>,
    /// The cluster's name, where the command line says it.
    pub(crate) cluster: Option<String>,
    /// Its certificate, once there is one.
    pub(crate) trust: watch::Receiver<Result<Arc<AgentTrust>, String>>,
    /// What is published.
    pub(crate) published: watch::Receiver<Arc<Published>>,
    /// Answers visitors.
    pub(crate) flows: Arc<Flows>,
    /// Where links tell what they see.
    pub(crate) board: Arc<Board>,
    /// The counters.
    pub(crate) metrics: Arc<Metrics>,
    /// Orders the sessions of this agent.
    pub(crate) epochs: Epochs,
    /// Reads Secrets; `None` with manifests.
    pub(crate) client: Option<kube::Client>,
    /// Whether the agent is going away.
    pub(crate) draining: watch::Receiver<bool>,
}

/// Numbers that grow with each session of an agent, also over restarts: the time of the program's
/// first session in milliseconds since 1970, and one more for each that follows. A program that
/// was frozen, and replaced meanwhile by another one of the same name, stays older than that one
/// for ever: it does not take the place back when it wakes up.
#[derive(Debug, Default)]
pub(crate) struct Epochs(AtomicU64);

impl Epochs {
    /// The next number.
    pub(crate) fn next(&self) -> u64 {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let next = |last: u64| if last == 0 { now } else { last.saturating_add(1) };
        let update = |last| Some(next(last));
        let last = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, update);
        next(last.unwrap_or_default())
    }
}

/// Keeps the link until this is dropped.
pub(crate) async fn keep(
    gateway: String,
    mut settings: watch::Receiver<Arc<EdgeGatewaySettings>>,
    shared: Arc<Shared>,
) {
    let mut backoff = Backoff::new();
    let mut trust = shared.trust.clone();
    let auto = Auto::new();
    let mut replaced: Option<Instant> = None;
    let mut yielded = None;
    loop {
        let now = Arc::clone(&settings.borrow_and_update());
        let begun = Instant::now();
        // Who has given way comes back only when nobody else is there: with a newer epoch it would
        // throw out its successor.
        let epoch = yielded.unwrap_or_else(|| shared.epochs.next());
        let why = tokio::select! {
            dialled = dial(&gateway, &now, &auto, &mut trust, epoch, &shared) => match dialled {
                Ok(session) => {
                    serve(&gateway, session, epoch, &mut settings, &now, &auto, &shared).await
                }
                Err(why) => Over::Lost(why),
            },
            // Dialled anew, as the object says now.
            changed = differs(&mut settings, &now) => if changed { continue } else { return },
        };
        match why {
            Over::Lost(why) => {
                shared.metrics.reconnects.get_or_create(&label(&gateway)).inc();
                tracing::warn!(gateway, why, "no link");
                shared.board.lost(&gateway, &why);
                // A session that lived was the only one of its name.
                yielded = yielded.filter(|_| begun.elapsed() < HEALTHY);
                let wait = backoff.wait(begun.elapsed(), rand::random());
                tokio::select! {
                    () = sleep(wait) => {}
                    changed = differs(&mut settings, &now) => if !changed { return },
                }
            }
            Over::Yielded => {
                let why = "another agent of the same name has taken over";
                if yielded.replace(epoch).is_none() {
                    tracing::warn!(gateway, why, "no link");
                }
                shared.board.lost(&gateway, why);
                let wait = backoff.wait(Duration::ZERO, rand::random());
                tokio::select! {
                    () = sleep(wait) => {}
                    changed = differs(&mut settings, &now) => if !changed { return },
                }
            }
            // The next program of the gateway listens already, or there is another way to it. Should
            // that be said again and again, it is dialled ever less often.
            Over::Replaced => {
                yielded = None;
                if replaced.replace(Instant::now()).is_some_and(|it| it.elapsed() < HEALTHY) {
                    sleep(backoff.wait(Duration::ZERO, rand::random())).await;
                }
            }
            Over::Draining => return,
        }
    }
}

/// Why a session is no longer the link.
enum Over {
    /// There is none, or it ended.
    Lost(String),
    /// Another program with this agent's name has taken it over.
    Yielded,
    /// It goes on with what it has, and another one is wanted.
    Replaced,
    /// The agent is going away.
    Draining,
}

async fn dial(
    gateway: &str,
    settings: &EdgeGatewaySettings,
    auto: &Auto,
    trust: &mut watch::Receiver<Result<Arc<AgentTrust>, String>>,
    epoch: u64,
    shared: &Shared,
) -> Result<AgentSession, String> {
    if let Carrier::Ssh(carrier) = &settings.carrier {
        return dial::dial_ssh(gateway, settings, carrier, shared).await;
    }
    let held = trust.borrow_and_update().clone();
    let held = match held {
        Ok(held) => held,
        Err(why) => {
            // Noted as it is, and dialled the moment that there is a certificate.
            shared.board.waits(gateway, &why);
            match trust.wait_for(Result::is_ok).await {
                Ok(held) => held.clone()?,
                Err(_) => return Err("the agent ends".to_owned()),
            }
        }
    };
    dial::dial(gateway, settings, auto, &held, epoch, shared).await
}

/// Serves a session until it ends or another one is wanted.
async fn serve(
    gateway: &str,
    session: AgentSession,
    epoch: u64,
    settings: &mut watch::Receiver<Arc<EdgeGatewaySettings>>,
    now: &EdgeGatewaySettings,
    auto: &Auto,
    shared: &Arc<Shared>,
) -> Over {
    let used = session.carrier;
    let carrier = used.to_string();
    let up = LinkLabel { gateway: gateway.to_owned(), carrier: carrier.clone() };
    tracing::info!(gateway, carrier, address = %session.address, "linked");
    shared.board.connected(
        gateway,
        session.carrier,
        &session.address.to_string(),
        &session.welcome.program,
    );
    shared.metrics.link_up.get_or_create(&up).set(1);
    let running = Running::start(gateway, session, shared);
    let over = tokio::select! {
        ended = running.ended() => {
            // This process dials one session after another: a newer one is another program's.
            let is_newer = matches!(ended, Ended::Evicted { by } if by > epoch);
            if is_newer { Over::Yielded } else { Over::Lost(ended.to_string()) }
        }
        () = running.gateway_drains() => {
            tracing::info!(gateway, "the gateway is going away, dialling its successor");
            Over::Replaced
        }
        why = dial::until_better(gateway, now, auto, used, shared) => {
            tracing::info!(gateway, why, "dialling again");
            Over::Replaced
        }
        changed = differs(settings, now) => {
            running.drain();
            if changed { Over::Replaced } else { Over::Draining }
        }
        () = until_draining(shared) => {
            running.drain();
            // Visitors who are here stay until they leave, or patience ends.
            running.ended().await;
            Over::Draining
        }
    };
    shared.metrics.link_up.get_or_create(&up).set(0);
    if matches!(over, Over::Replaced) {
        running.leave();
    }
    over
}

/// Completes when the way to the gateway differs from `now`; `false` when it is not declared any
/// more.
async fn differs(
    settings: &mut watch::Receiver<Arc<EdgeGatewaySettings>>,
    now: &EdgeGatewaySettings,
) -> bool {
    let other = |it: &Arc<EdgeGatewaySettings>| {
        (&it.endpoints, &it.carrier, &it.adoption) != (&now.endpoints, &now.carrier, &now.adoption)
    };
    settings.wait_for(other).await.is_ok()
}

async fn until_draining(shared: &Shared) {
    session::until_true(shared.draining.clone()).await;
}

fn label(gateway: &str) -> GatewayLabel {
    GatewayLabel { gateway: gateway.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_grow_whatever_the_clock_does() {
        let epochs = Epochs::default();
        let mut last = 0;
        for _ in 0..1000 {
            let next = epochs.next();
            assert!(next > last, "{next} after {last}");
            last = next;
        }
        // Whoever began long ago stays older than whoever begins now.
        let frozen = Epochs(AtomicU64::new(1_000));
        assert_eq!(frozen.next(), 1_001);
        assert!(frozen.next() < Epochs::default().next());
        // A clock that was set back does not lead back.
        let epochs = Epochs(AtomicU64::new(u64::MAX - 2));
        assert_eq!(epochs.next(), u64::MAX - 1);
    }
}
