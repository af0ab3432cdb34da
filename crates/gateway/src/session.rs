//! What an agent says over the time of its session, and what it is told.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep};
use tunnel::session::{Ended, GatewaySession};
use tunnel::trust::system_clock;
use tunnel_proto::message::{ToAgent, ToGateway};

use crate::cluster::{Cluster, Member};
use crate::inner::Inner;
use crate::keeper::Errand;

/// How often agents hear of the gateway although nothing happened.
const REPORT: Duration = Duration::from_secs(2);

/// What happens at about the same time is told at once.
const TOGETHER: Duration = Duration::from_millis(20);

/// How often it is asked whether the certificate should be renewed.
const RENEWAL: Duration = Duration::from_secs(60);

/// Talks with an agent until its session ends.
pub(crate) async fn serve(inner: Arc<Inner>, session: GatewaySession) {
    let Some(cluster) = inner.cluster(session.peer.cluster()) else {
        session.control.status().end(Ended::Here);
        return;
    };
    let member = Member::new(
        session.hello.agent.clone(),
        session.hello.node.clone(),
        session.hello.epoch,
        session.carrier(),
        session.address,
        Arc::clone(&session.link),
        session.control.status().clone(),
        session.control.outbox().clone(),
    );
    match cluster.join(Arc::clone(&member)) {
        Ok(Some(before)) => evict(&before, member.epoch),
        Ok(None) => {}
        Err(older) => {
            tracing::info!(cluster = %cluster.name, agent = member.agent, %older, "turned away");
            return session.evict(older.held);
        }
    }
    tracing::info!(
        cluster = %cluster.name, agent = member.agent, carrier = %member.carrier,
        address = %member.address, epoch = member.epoch, "connected"
    );
    let ended = talk(&inner, &cluster, &member, session).await;
    if cluster.leave(&member) {
        inner.errand(Errand::Left(cluster.name.clone(), member.agent.clone()));
    }
    tracing::info!(cluster = %cluster.name, agent = member.agent, %ended, "disconnected");
}

fn evict(before: &Member, by: u64) {
    // A session that has ended needs no telling.
    let _ended = before.outbox.send(ToAgent::Evicted { by });
    before.status.end(Ended::Evicted { by });
}

async fn talk(
    inner: &Inner,
    cluster: &Arc<Cluster>,
    member: &Member,
    mut session: GatewaySession,
) -> Ended {
    let control = &mut session.control;
    let mut news = cluster.news();
    let mut report = interval(REPORT);
    report.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut renewal = interval(RENEWAL);
    if inner.is_draining() {
        let _ended = control.send(ToAgent::Drain);
    }
    loop {
        tokio::select! {
            message = control.receive() => match message {
                Some(message) => match take(inner, cluster, member, message).await {
                    Ok(Taken::Trust) => renewal.reset_immediately(),
                    Ok(Taken::Other) => {}
                    Err(nonsense) => control.status().end(Ended::Nonsense(nonsense)),
                },
                None => return control.status().ended().unwrap_or(Ended::There),
            },
            changed = news.changed() => {
                if changed.is_err() {
                    return Ended::Here;
                }
                sleep(TOGETHER).await;
                news.mark_unchanged();
                report.reset_immediately();
            }
            _ = report.tick() => {
                // The end is told where messages are received.
                let _ended = control.send(ToAgent::Report(inner.report(cluster)));
            }
            _ = renewal.tick() => match inner.trust.renewal(cluster.name.as_str(), system_clock()) {
                Ok(Some(request)) => {
                    let _ended = control.send(ToAgent::CertificateWanted(request));
                }
                Ok(None) => {}
                Err(error) => tracing::error!(%error, "no new certificate can be asked for"),
            },
        }
    }
}

/// What a message was about.
enum Taken {
    /// The cluster's authorities, or the own certificate, are others now: the authority that signs
    /// from now on may not be the one that signed the certificate.
    Trust,
    Other,
}

async fn take(
    inner: &Inner,
    cluster: &Arc<Cluster>,
    member: &Member,
    message: ToGateway,
) -> Result<Taken, String> {
    match message {
        ToGateway::Desired(desired) => {
            inner.errand(Errand::Wish(cluster.name.clone(), member.agent.clone(), desired));
        }
        ToGateway::Serving(changes) => cluster.serving(member, changes)?,
        ToGateway::Drain => {
            tracing::info!(cluster = %cluster.name, agent = member.agent, "draining");
            cluster.drain(member);
        }
        ToGateway::Certificate(certificate) => {
            let (trust, name) = (Arc::clone(&inner.trust), cluster.name.clone());
            // Elsewhere, because a busy disk takes its time.
            let install = move || trust.install(name.as_str(), &certificate, system_clock());
            let installed = tokio::task::spawn_blocking(install).await;
            match installed.unwrap_or(Ok(false)) {
                Ok(true) => {
                    tracing::info!(cluster = %cluster.name, "certificate or trust renewed");
                    return Ok(Taken::Trust);
                }
                // Every session begins with what the agent trusts.
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(cluster = %cluster.name, %error, "a certificate is not taken");
                }
            }
        }
        ToGateway::Ping(_) | ToGateway::Pong(_) => {}
        ToGateway::Hello(_) | ToGateway::Adopt(_) | ToGateway::Reveal(_) => {
            return Err("a message that begins a conversation came within one".to_owned());
        }
    }
    Ok(Taken::Other)
}
