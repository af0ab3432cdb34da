//! Adoption over real TLS sessions, with everybody who should not succeed.

mod stage;

use std::time::Duration;

use tunnel_proto::message::{Proof, ToAgent, ToGateway};

use super::{AdoptionError, adopt, dial, proof, serve};
use crate::trust::{OneTimeSecret, Role, TrustError, system_clock};
use stage::{Stage, cluster, relay, secret};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_gateway_is_adopted_and_then_known_by_its_certificate() {
    let stage = Stage::new("home", MINUTE, 1).await;
    let (agent, gateway) = stage.adopt(&secret()).await;
    agent.expect("adopted");
    assert_eq!(gateway.expect("adopted").to_string(), "portcullis://home/agent/agent-0");
    stage.connect(&stage.agent).await.expect("a session with certificates on both sides");
    let standing = &stage.gateway.standings(system_clock())[0];
    assert!(standing.certificate.is_some() && !standing.adoptable, "{standing:?}");
}

#[tokio::test]
async fn the_certificate_outlives_the_process() {
    let stage = Stage::new("home", MINUTE, 1).await;
    stage.adopt(&secret()).await.0.expect("adopted");
    let again = stage.restarted();
    again.connect(&again.agent).await.expect("the certificate was kept");
    let files = again.files();
    assert!(files.iter().all(|(_, mode)| mode & 0o077 == 0), "only for its owner: {files:?}");
}

#[tokio::test]
async fn a_wrong_secret_adopts_nobody() {
    let stage = Stage::new("home", MINUTE, 1).await;
    let wrong = OneTimeSecret::generate().expect("randomness");
    let (agent, gateway) = stage.adopt(&wrong).await;
    assert!(matches!(gateway, Err(AdoptionError::Unproven)), "{gateway:?}");
    assert!(matches!(agent, Err(AdoptionError::Ended(_))), "{agent:?}");
    stage.adopt(&secret()).await.0.expect("the true secret has not burnt");
}

#[tokio::test]
async fn a_secret_burns_with_its_use_and_over_a_restart() {
    let stage = Stage::new("home", MINUTE, 1).await;
    stage.adopt(&secret()).await.0.expect("adopted");
    let again = stage.restarted();
    let (_, gateway) = again.adopt(&secret()).await;
    assert!(matches!(gateway, Err(AdoptionError::NoOffer(_))), "{gateway:?}");
}

#[tokio::test]
async fn two_redemptions_are_two() {
    let stage = Stage::new("home", MINUTE, 2).await;
    stage.adopt(&secret()).await.0.expect("the first");
    stage.adopt(&secret()).await.0.expect("the second");
    stage.adopt(&secret()).await.0.expect_err("a third");
}

#[tokio::test]
async fn an_agent_that_has_no_use_left_does_not_reveal_the_secret() {
    let stage = Stage::new("home", MINUTE, 1).await;
    let served = stage.serving();
    let adoption = dial(&stage.endpoints(), &stage.agent, "fra1").await.expect("dialled");
    let burn = async { Err("every use is spent".to_owned()) };
    let adopted = adopt(adoption, &stage.agent, secret(), burn).await;
    assert!(matches!(adopted, Err(AdoptionError::Unredeemed(_))), "{adopted:?}");
    let served = served.await.expect("it ends");
    assert!(matches!(served, Err(AdoptionError::Ended(_))), "{served:?}");
    assert!(stage.gateway.open_offer("home", system_clock()).is_some(), "nothing burnt there");
}

#[tokio::test]
async fn an_expired_secret_adopts_nobody() {
    let stage = Stage::new("home", Duration::ZERO, 1).await;
    let (_, gateway) = stage.adopt(&secret()).await;
    assert!(matches!(gateway, Err(AdoptionError::NoOffer(_))), "{gateway:?}");
}

/// Somebody sits between both, ends both TLS sessions, and passes on every message. The agent
/// believes whoever answers; but the proofs belong to one TLS session.
#[tokio::test]
async fn a_man_in_the_middle_gains_nothing() {
    let stage = Stage::new("home", MINUTE, 1).await;
    // He has even stolen an agent's certificate of the right cluster.
    let thief = stage.another_agent("thief").await;
    let middle = relay(&stage, thief).await;
    let (agent, gateway) = stage.adopt_at(middle, &secret()).await;
    assert!(matches!(gateway, Err(AdoptionError::Unproven)), "{gateway:?}");
    agent.expect_err("the agent has not revealed the secret");
    assert!(stage.gateway.open_offer("home", system_clock()).is_some(), "nothing burnt");
}

/// Who knows the hash, as anyone who can read the machine's start data does, and has an agent's
/// certificate, still has to show the secret.
#[tokio::test]
async fn the_hash_alone_does_not_adopt() {
    let stage = Stage::new("home", MINUTE, 1).await;
    let (mut thief, served) = stage.begin(&stage.agent).await;
    let ours = proof(&secret().hash(), &thief.exporter, Role::Agent);
    thief.control.send(ToGateway::Adopt(ours)).expect("sent");
    assert!(matches!(thief.control.receive().await, Some(ToAgent::Adopting(_))));
    thief.control.send(ToGateway::Reveal(vec![0; 32])).expect("sent");
    let served = served.await.expect("it ends");
    assert!(matches!(served, Err(AdoptionError::Secret)), "{served:?}");
}

#[tokio::test]
async fn a_gateway_that_does_not_know_the_hash_never_sees_the_secret() {
    let stage = Stage::new("home", MINUTE, 1).await;
    let (impostor, mut arrived) = stage.impostor();
    let adopting = stage.spawn_adopt(impostor);
    let mut impostor = arrived.recv().await.expect("the agent comes");
    let theirs = impostor.control.receive().await;
    // The agent's own proof, sent back, is not the gateway's.
    let Some(ToGateway::Adopt(theirs)) = theirs else { panic!("{theirs:?}") };
    impostor.control.send(ToAgent::Adopting(theirs)).expect("sent");
    impostor.control.send(ToAgent::CertificateWanted(vec![1, 2, 3])).expect("sent");
    let adopted = adopting.await.expect("it ends");
    assert!(matches!(adopted, Err(AdoptionError::Unproven)), "{adopted:?}");
    assert_eq!(impostor.control.receive().await, None, "not a word more");
}

#[tokio::test]
async fn a_gateway_that_skips_its_proof_never_sees_the_secret() {
    let stage = Stage::new("home", MINUTE, 1).await;
    let (impostor, mut arrived) = stage.impostor();
    let adopting = stage.spawn_adopt(impostor);
    let impostor = arrived.recv().await.expect("the agent comes");
    impostor.control.send(ToAgent::CertificateWanted(vec![1, 2, 3])).expect("sent");
    let adopted = adopting.await.expect("it ends");
    assert!(matches!(adopted, Err(AdoptionError::Unexpected { .. })), "{adopted:?}");
}

#[tokio::test]
async fn a_proof_of_another_session_is_worth_nothing() {
    let stage = Stage::new("home", MINUTE, 1).await;
    let (first, _served) = stage.begin(&stage.agent).await;
    let recorded = proof(&secret().hash(), &first.exporter, Role::Agent);
    let (second, served) = stage.begin(&stage.agent).await;
    second.control.send(ToGateway::Adopt(recorded)).expect("sent");
    let served = served.await.expect("it ends");
    assert!(matches!(served, Err(AdoptionError::Unproven)), "{served:?}");
}

#[tokio::test]
async fn messages_out_of_order_end_the_conversation() {
    let stage = Stage::new("home", MINUTE, 1).await;
    for message in [
        ToGateway::Reveal(secret().bytes().to_vec()),
        ToGateway::Drain,
        ToGateway::Adopt(Proof([0; 32])),
    ] {
        let (agent, served) = stage.begin(&stage.agent).await;
        agent.control.send(message).expect("sent");
        served.await.expect("it ends").expect_err("refused");
    }
}

#[tokio::test]
async fn a_cluster_that_was_not_announced_does_not_get_through_the_door() {
    let stage = Stage::new("home", MINUTE, 1).await;
    // The same name, another authority: the pin says which.
    let impostor = cluster("home", "agent-0").await;
    let tried = dial(&stage.endpoints(), &impostor, "fra1").await;
    let refused = match tried {
        Ok(adoption) => {
            let burn = async { Ok(()) };
            adopt(adoption, &impostor, secret(), burn).await.expect_err("refused")
        }
        Err(error) => error,
    };
    assert!(
        matches!(refused, AdoptionError::Handshake(_) | AdoptionError::Ended(_)),
        "{refused:?}"
    );
    let other = cluster("elsewhere", "agent-0").await;
    stage.connect(&other).await.expect_err("not served here");
}

#[tokio::test]
async fn a_certificate_for_somebody_else_is_not_taken_and_burns_nothing() {
    let stage = Stage::new("home", MINUTE, 1).await;
    // Its own name, so says the agent; but the gateway is called fra1.
    let adoption = dial(&stage.endpoints(), &stage.agent, "ams1").await.expect("dialled");
    let served = stage.serving();
    let adopted = adopt(adoption, &stage.agent, secret(), async { Ok(()) }).await;
    let served = served.await.expect("it ends");
    assert!(
        matches!(served, Err(AdoptionError::Trust(TrustError::WrongIdentity { .. }))),
        "{served:?}"
    );
    adopted.expect_err("not adopted");
    assert!(stage.gateway.open_offer("home", system_clock()).is_some(), "nothing burnt");
}

#[tokio::test]
async fn a_machine_that_is_replaced_is_adopted_again() {
    // WB-12: the same start data, another machine, nobody does anything by hand.
    let stage = Stage::new("home", MINUTE, 1).await;
    stage.adopt(&secret()).await.0.expect("the first machine");
    let replaced = stage.replaced();
    let refused = replaced.connect(&replaced.agent).await.expect_err("it has no certificate");
    assert!(super::wants_adoption(&refused), "{refused:?}");
    replaced.adopt(&secret()).await.0.expect("the second machine");
    replaced.connect(&replaced.agent).await.expect("a session");
}
