//! Two carriers on one wire, with one or the other cut.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tunnel_proto::message::Protocol;

use super::Auto;
use crate::dialler::DiallerSettings;
use crate::link::{Carrier, DatagramFlow, Measured};
use crate::quic::stage::{Cut, Stage, next, open, soon};
use crate::session::{AgentSession, Ended, GatewaySession};

#[tokio::test]
async fn bytes_go_over_tls_and_datagrams_over_the_connection_that_joins() {
    let (stage, gateway, mut agent) = begin(Cut::Nothing).await;
    assert_eq!((agent.carrier, gateway.carrier()), (Carrier::Tls, Carrier::Tls));
    joined(&gateway).await;

    let before = gateway.link.measured().packets_sent;
    let (near, far) = datagrams(&gateway, &mut agent).await;
    for _ in 0..100 {
        near.send(b"question").expect("sent");
        assert_eq!(soon(far.receive()).await.expect("a datagram"), "question");
    }
    let carried = gateway.link.measured().packets_sent - before;
    assert!(carried >= 100, "{carried} packets for 100 datagrams");
    assert_eq!(gateway.link.measured().flows, 1);
    drop((near, far));

    // Bytes do not need UDP at all.
    stage.wire.cut(Cut::Udp);
    let accept = async { next(&mut agent).await.answer.accept().await };
    let (near, far) = tokio::join!(soon(gateway.link.open(open(Protocol::Tcp))), accept);
    assert!(near.is_ok() && far.is_ok());
}

#[tokio::test]
async fn without_udp_everything_goes_over_tls() {
    let (_stage, gateway, mut agent) = begin(Cut::Udp).await;
    assert_eq!(agent.carrier, Carrier::Tls);
    let (near, far) = datagrams(&gateway, &mut agent).await;
    near.send(&[1; 20_000]).expect("sent");
    assert_eq!(soon(far.receive()).await.expect("a datagram"), vec![1; 20_000]);
    assert_eq!(gateway.link.measured().packets_sent, 0, "TLS counts no packets");
}

/// UDP is dropped silently from one moment to the next: nobody has noticed yet.
#[tokio::test]
async fn a_flow_of_datagrams_finds_tls_when_quic_has_just_died() {
    let (stage, gateway, mut agent) = begin(Cut::Nothing).await;
    joined(&gateway).await;
    stage.wire.cut(Cut::Udp);
    let begun = Instant::now();
    let (near, far) = datagrams(&gateway, &mut agent).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    far.send(b"answer").expect("sent");
    assert_eq!(soon(near.receive()).await.expect("a datagram"), "answer");
    assert_eq!(gateway.control.status().ended(), None);
}

#[tokio::test]
async fn without_tcp_the_session_goes_over_quic_until_tls_can_be_had() {
    let (mut stage, gateway, agent) = begin(Cut::Tcp).await;
    assert_eq!((agent.carrier, gateway.carrier()), (Carrier::Quic, Carrier::Quic));

    let auto = impatient();
    let settings = stage.settings().clone();
    let better = auto.until_better(&settings, agent.carrier);
    tokio::pin!(better);
    let waited = tokio::time::timeout(Duration::from_millis(500), &mut better).await;
    assert!(waited.is_err(), "TCP does not pass: {waited:?}");
    stage.wire.cut(Cut::Nothing);
    assert_eq!(soon(better).await, "tls can be had again, better than quic");

    let (again, successor) = dial(&mut stage, &auto).await;
    assert_eq!(again.carrier, Carrier::Tls);
    let never = auto.until_better(&settings, again.carrier);
    assert!(tokio::time::timeout(Duration::from_millis(100), never).await.is_err());
    // The older gives way, as the gateway decides.
    gateway.evict(successor.hello.epoch);
    let ended = soon(agent.control.status().until_ended()).await;
    assert_eq!(ended, Ended::Evicted { by: successor.hello.epoch });
}

#[tokio::test]
async fn a_carrier_that_breaks_again_and_again_is_dialled_second() {
    let (mut stage, gateway, agent) = begin(Cut::Nothing).await;
    let auto = Auto::new();
    drop((gateway, agent));
    for _ in 0..2 {
        let (agent, gateway) = dial(&mut stage, &auto).await;
        assert_eq!(agent.carrier, Carrier::Tls);
        agent.control.status().end(Ended::Broken("the network lets nothing live".into()));
        drop(gateway);
    }
    // What was learnt is learnt by a task of its own.
    let now = || auto.state().first.first(Duration::ZERO);
    soon(async {
        while now() == tunnel_proto::carrier_choice::Which::Preferred {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let (agent, _gateway) = dial(&mut stage, &auto).await;
    assert_eq!(agent.carrier, Carrier::Quic);
}

#[tokio::test]
async fn nobody_joins_a_session_of_somebody_else() {
    let (stage, gateway, agent) = begin(Cut::Nothing).await;
    joined(&gateway).await;
    let status = agent.control.status().clone();
    let error = crate::quic::join(stage.settings(), [7; 16], &status).await.err();
    assert!(error.is_some(), "no session has this token");
    assert_eq!(gateway.control.status().ended(), None);
}

#[tokio::test]
async fn what_has_joined_ends_with_the_session() {
    let (_stage, gateway, mut agent) = begin(Cut::Nothing).await;
    joined(&gateway).await;
    let (near, far) = datagrams(&gateway, &mut agent).await;
    gateway.link.close();
    assert_eq!(soon(far.receive()).await, None);
    drop(near);
    assert!(soon(agent.flows.recv()).await.is_none());
}

async fn begin(cut: Cut) -> (Stage, GatewaySession, AgentSession) {
    let mut stage = Stage::new().await;
    stage.wire.cut(cut);
    let (agent, gateway) = dial(&mut stage, &Auto::new()).await;
    (stage, gateway, agent)
}

async fn dial(stage: &mut Stage, auto: &Auto) -> (AgentSession, GatewaySession) {
    let (settings, epoch): (DiallerSettings, u64) = (stage.settings().clone(), stage.next_epoch());
    let (agent, gateway) = tokio::join!(soon(auto.dial(&settings, epoch)), stage.arrival());
    (agent.expect("a session"), gateway)
}

/// One that tries the better carrier soon.
fn impatient() -> Auto {
    let auto = Auto::new();
    auto.state().next_try = Duration::from_millis(50);
    auto
}

/// Waits until a QUIC connection has joined.
async fn joined(gateway: &GatewaySession) {
    soon(async {
        while gateway.link.measured() == (Measured { packets_sent: 0, ..gateway.link.measured() }) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

async fn datagrams(
    gateway: &GatewaySession,
    agent: &mut AgentSession,
) -> (Arc<dyn DatagramFlow>, Arc<dyn DatagramFlow>) {
    let accept = async {
        // One that the gateway has given up may come first.
        loop {
            let incoming = next(agent).await;
            if let Ok(flow) = incoming.answer.accept().await {
                return flow.into_datagrams();
            }
        }
    };
    let (near, far) = tokio::join!(soon(gateway.link.open(open(Protocol::Udp))), accept);
    (near.expect("accepted").into_datagrams().into(), far.into())
}
