//! Authorities that follow one another, certificates of everybody who should not get in, and
//! renewal under open connections.

mod stage;

use std::time::{Duration, SystemTime};

use rcgen::PublicKeyData as _;
use rustls::pki_types::CertificateDer;
use tunnel_proto::message::Certificate;

use super::credentials::Requested;
use super::verify::{acceptable, verify};
use super::*;
use stage::{Stage, now};

const DAY: Duration = Duration::from_secs(24 * 3600);

#[test]
fn identities_are_read_back_as_they_are_written() {
    let check = |text: &str, expected: Result<(), &str>| match (text.parse::<Identity>(), expected)
    {
        (Ok(identity), Ok(())) => assert_eq!(identity.to_string(), text),
        (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
        (found, expected) => panic!("{text}: {found:?}, expected {expected:?}"),
    };
    check("portcullis://home/agent/agent-0", Ok(()));
    check("portcullis://home/gateway/fra1.example", Ok(()));
    check("https://home/agent/a", Err("expected portcullis://"));
    check("portcullis://home/agent", Err("expected portcullis://CLUSTER/ROLE/NAME"));
    check("portcullis://home/controller/a", Err("expected the role"));
    check("portcullis://Home/agent/a", Err("a cluster has a name"));
    check("portcullis:///agent/a", Err("a cluster has a name"));
    check("portcullis://a.b/agent/a", Err("a cluster has a name"));
    check("portcullis://home/agent/a/b", Err("expected lower case letters"));
    check("portcullis://home/agent/..", Err("expected lower case letters"));
    check("portcullis://home/agent/", Err("expected lower case letters"));
}

#[test]
fn a_certificate_says_what_the_signer_says_and_not_what_the_request_says() {
    let authorities = authorities("home");
    let asked = Identity::new("home", Role::Gateway, "i-want-this").expect("an identity");
    let request = Requested::new(&asked).expect("a request");
    let given = Identity::new("home", Role::Agent, "i-get-this").expect("an identity");
    let issued = authorities.sign(&request.request, &given, DAY, now()).expect("signed");
    assert_eq!(identity_of(&issued.certificate).expect("an identity"), given);
    assert!(request.answers(&issued.certificate));
    assert_eq!(verify(&issued.certificate, &issued.authorities, now()).expect("good"), given);
}

#[test]
fn requests_that_nobody_should_sign_are_refused() {
    let authorities = authorities("home");
    let identity = Identity::new("home", Role::Agent, "a").expect("an identity");
    let request = Requested::new(&identity).expect("a request").request;
    let refused = |request: &[u8]| match authorities.sign(request, &identity, DAY, now()) {
        Err(TrustError::Request(why)) => why,
        other => panic!("{other:?}"),
    };
    refused(b"");
    refused(&vec![0; 5000]);
    // Another key than the one that signed: nobody shows that he has it.
    let mut forged = request.clone();
    let middle = forged.len() / 2;
    forged[middle] ^= 1;
    refused(&forged);
    let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("a key");
    let other = rcgen::CertificateParams::default().serialize_request(&other).expect("a request");
    assert!(refused(other.der()).contains("P-256"));
    let elsewhere = Identity::new("elsewhere", Role::Agent, "a").expect("an identity");
    let elsewhere = authorities.sign(&request, &elsewhere, DAY, now());
    assert!(matches!(elsewhere, Err(TrustError::WrongIdentity { .. })), "{elsewhere:?}");
}

#[test]
fn authorities_are_read_back_as_they_are_written() {
    let first = authorities("home");
    let both = first.rotate(now() + LIFETIME, now()).expect("rotated");
    let read = Authorities::from_pem("a test", &both.to_pem()).expect("read");
    assert_eq!(read.pins(now()), both.pins(now()));
    assert_eq!(read.cluster(), "home");
    assert!(format!("{read:?}").len() < 300, "no key is shown: {read:?}");
}

#[test]
fn a_text_that_is_no_authority_is_refused() {
    let [one, other] = ["home", "elsewhere"].map(authorities);
    let refused =
        |text: &str| Authorities::from_pem("a test", text).expect_err("refused").to_string();
    assert!(refused("").contains("there is no authority"));
    assert!(refused("-----BEGIN CERTIFICATE-----\nA").contains("a test"));
    let both = format!("{}{}", one.to_pem(), other.to_pem());
    assert!(refused(&both).contains("one cluster"), "{}", refused(&both));
    let (certificate, _) = one.to_pem().split_once("-----BEGIN PRIVATE").map(split).expect("two");
    let (_, key) = other.to_pem().split_once("-----BEGIN PRIVATE").map(split).expect("two");
    let mixed = format!("{certificate}-----BEGIN PRIVATE{key}");
    assert!(refused(&mixed).contains("does not belong"), "{}", refused(&mixed));
    assert!(refused(&certificate).contains("expected a certificate and its key"));
}

fn split((a, b): (&str, &str)) -> (String, String) {
    (a.to_owned(), b.to_owned())
}

/// One lifetime trusted and silent, one lifetime beside its predecessor, then alone.
#[test]
fn an_authority_follows_another_by_time_alone() {
    let start = now();
    let first = authorities("home");
    let old = first.signing(start).pin();
    let both = first.rotate(start + LIFETIME, start).expect("rotated");
    let new = *both.pins(start).last().expect("two");
    let at = |days: u32| start + DAY * days;

    assert_eq!((both.signing(at(0)).pin(), both.pins(at(0))), (old, vec![old, new]));
    assert_eq!((both.signing(at(6)).pin(), both.pins(at(6))), (old, vec![old, new]));
    assert_eq!((both.signing(at(8)).pin(), both.pins(at(8))), (new, vec![new, old]));
    assert_eq!((both.signing(at(15)).pin(), both.pins(at(15))), (new, vec![new]));
    assert!(both.next_change(at(0)).is_some_and(|it| it > at(6) && it < at(8)));
    assert_eq!(both.next_change(at(15)), None);
    both.rotate(at(2) + LIFETIME, at(2)).expect_err("one at a time");
    let third = both.rotate(at(20), at(20)).expect("again");
    assert_eq!(third.pins(at(20)).len(), 2, "the first is gone from the text too");
    let retired = first.rotate(start, start).expect("at once").retire(start + DAY);
    assert_eq!(retired.pins(start + DAY).len(), 1);
    assert_ne!(retired.signing(start + DAY).pin(), old);
}

#[test]
fn only_a_successor_that_was_signed_is_accepted() {
    let first = authorities("home");
    let both = first.rotate(now() + LIFETIME, now()).expect("rotated");
    let all = both.trusted(now());
    let stranger = authorities("home").trusted(now());
    let pin = [first.signing(now()).pin()];
    assert_eq!(acceptable("home", &[], &pin, &all), all, "by pin, then by signature");
    assert_eq!(acceptable("home", &all[..1], &[], &all), all, "by knowledge, then by signature");
    assert_eq!(acceptable("home", &all[..1], &[], &stranger), [], "the same name is not enough");
    assert_eq!(acceptable("elsewhere", &[], &pin, &all), [], "of this cluster");
    assert_eq!(acceptable("home", &[], &[], &all), []);
    // A certificate of an agent, although an authority has signed it, is no authority.
    let agent = Identity::new("home", Role::Agent, "a").expect("an identity");
    let request = Requested::new(&agent).expect("a request").request;
    let leaf = first.sign(&request, &agent, DAY, now()).expect("signed").certificate;
    assert_eq!(acceptable("home", &all[..1], &[], &[leaf]), []);
}

#[test]
fn an_agents_certificate_signs_nobody() {
    let home = authorities("home");
    let thief = Requested::new(&Identity::new("home", Role::Agent, "thief").expect("an identity"))
        .expect("a request");
    let identity = Identity::new("home", Role::Agent, "thief").expect("an identity");
    let issued = home.sign(&thief.request, &identity, DAY, now()).expect("signed");
    // The thief signs a certificate of a gateway with the agent's key.
    let mut params = rcgen::CertificateParams::default();
    params.subject_alt_names =
        vec![rcgen::SanType::URI("portcullis://home/gateway/fra1".try_into().expect("a URI"))];
    let issuer =
        rcgen::Issuer::from_ca_cert_der(&issued.certificate, &thief.key).expect("an issuer");
    let victim = rcgen::KeyPair::generate().expect("a key");
    assert!(!victim.subject_public_key_info().is_empty());
    let forged = params.signed_by(&victim, &issuer).expect("signed");
    verify(forged.der(), &issued.authorities, now()).expect_err("it is no authority");
}

#[test]
fn secrets_are_read_and_never_shown() {
    let secret = OneTimeSecret::generate().expect("randomness");
    assert_eq!(secret.reveal().parse::<OneTimeSecret>().expect("read"), secret);
    assert_eq!(format!("{secret:?}"), "OneTimeSecret(..)");
    assert!(secret.hash().matches(&secret));
    assert!(!secret.hash().matches(&OneTimeSecret::generate().expect("randomness")));
    for wrong in ["", "pcs1-", "pcs1-00", &secret.reveal()[1..], "pcs1-\u{e9}"] {
        wrong.parse::<OneTimeSecret>().expect_err(wrong);
    }
}

#[tokio::test]
async fn a_flow_stays_open_while_certificates_are_renewed() {
    let stage = Stage::new(LIFETIME).await;
    let mut flow = stage.connect().await.expect("connected");
    flow.echo(b"before").await.expect("echoed");
    let before = flow.shown();

    assert_eq!(stage.gateway.renewal("home", now() + DAY * 4).expect("served"), None, "too early");
    let request = stage.gateway.renewal("home", now() + DAY * 5).expect("served").expect("due");
    let again = stage.gateway.renewal("home", now() + DAY * 5).expect("served");
    assert_eq!(again.as_ref(), Some(&request), "any agent may answer");
    let answer = stage.agent.certify(&stage.identity, request).await.expect("signed");
    stage.gateway.install("home", &answer, now()).expect("taken");
    let late = stage.gateway.install("home", &answer, now());
    late.expect("a second agent's answer does no harm when it is the same");
    stage.agent.renew().await.expect("renewed");

    flow.echo(b"after").await.expect("the flow has noticed nothing");
    let mut next = stage.connect().await.expect("connected");
    next.echo(b"next").await.expect("echoed");
    assert_ne!(next.shown(), before, "new connections see the new certificate");
}

#[tokio::test]
async fn a_flow_stays_open_while_the_authority_changes() {
    let stage = Stage::new(LIFETIME).await;
    let mut flow = stage.connect().await.expect("connected");

    // At once, as after a theft; by time it is the same in slow motion.
    let rotated = stage.authorities.rotate(now(), now()).expect("rotated");
    stage.signer.replace(rotated.clone());
    assert!(stage.agent.refresh(now()).await.expect("the signer answers"), "it has changed");
    // The gateway hears of it before anybody shows it a certificate of the new one.
    stage.gateway.install("home", &stage.agent.announcement(), now()).expect("taken");
    stage.agent.renew().await.expect("renewed");
    stage.connect().await.expect("the new agent's certificate").echo(b"1").await.expect("echoed");
    // Its own is of the old authority: time for another.
    let request = stage.gateway.renewal("home", now()).expect("served").expect("due at once");
    let answer = stage.agent.certify(&stage.identity, request).await.expect("signed");
    stage.gateway.install("home", &answer, now()).expect("taken");
    assert_eq!(stage.gateway.renewal("home", now()).expect("served"), None);

    // The old one goes.
    stage.signer.replace(rotated.retire(now() + DAY));
    assert!(stage.agent.refresh(now()).await.expect("the signer answers"));
    stage.gateway.install("home", &stage.agent.announcement(), now()).expect("taken");
    stage.connect().await.expect("connected").echo(b"2").await.expect("echoed");
    flow.echo(b"3").await.expect("the flow has noticed nothing");
    let standings = stage.gateway.standings(now());
    let home = standings.iter().find(|it| it.identity.cluster() == "home").expect("served");
    assert_eq!(home.authorities.len(), 1);
}

#[tokio::test]
async fn an_agent_that_starts_while_authorities_change_is_let_in_and_can_tell() {
    let stage = Stage::new(LIFETIME).await;
    // The gateway has heard of nothing, and every agent that could have told it is gone.
    let rotated = stage.authorities.rotate(now(), now()).expect("rotated");
    let agent = AgentTrust::new(LocalSigner::new(rotated), "agent-0").await.expect("an agent");
    stage.connect_as(&agent, "fra1").await.expect("let in").echo(b"x").await.expect("echoed");
    let told = stage.gateway.install("home", &agent.announcement(), now());
    assert!(told.expect("taken"), "it is news");
    let again = stage.gateway.install("home", &agent.announcement(), now());
    assert!(!again.expect("taken"), "it is no news twice");
}

#[tokio::test]
async fn an_agent_does_not_keep_a_certificate_of_an_authority_that_signs_no_more() {
    let stage = Stage::new(LIFETIME).await;
    let rotated = stage.authorities.rotate(now(), now()).expect("rotated");
    stage.signer.replace(rotated.clone());
    assert!(stage.agent.refresh(now()).await.expect("the signer answers"));
    stage.gateway.install("home", &stage.agent.announcement(), now()).expect("taken");
    let request = stage.gateway.renewal("home", now()).expect("served").expect("due at once");
    let answer = stage.agent.certify(&stage.identity, request).await.expect("signed");
    stage.gateway.install("home", &answer, now()).expect("taken");
    // The old one goes at once, as after a theft; what it has signed counts no more.
    stage.signer.replace(rotated.retire(now() + DAY));
    assert!(stage.agent.refresh(now()).await.expect("the signer answers"));
    stage.gateway.install("home", &stage.agent.announcement(), now()).expect("taken");
    stage.connect().await.expect("connected").echo(b"x").await.expect("echoed");
}

#[tokio::test]
async fn certificates_that_end_are_refused_until_they_are_renewed() {
    let stage = Stage::new(Duration::from_secs(2)).await;
    let mut flow = stage.connect().await.expect("connected");
    let refused = async {
        while stage.connect().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(10), refused).await;
    in_time.expect("certificates end");
    flow.echo(b"still").await.expect("what is open stays open");
    stage.agent.renew().await.expect("renewed");
    let request = stage.gateway.renewal("home", now()).expect("served").expect("due");
    let answer = stage.agent.certify(&stage.identity, request).await.expect("signed");
    stage.gateway.install("home", &answer, now()).expect("taken");
    stage.connect().await.expect("connected").echo(b"again").await.expect("echoed");
}

#[tokio::test]
async fn nobody_else_gets_in() {
    let stage = Stage::new(LIFETIME).await;
    stage.connect().await.expect("the agent").echo(b"x").await.expect("echoed");

    // A stolen certificate of another cluster that the gateway serves too: it stays there.
    let elsewhere = stage.agent_of("elsewhere").await;
    stage.connect_as(&elsewhere, "fra1").await.expect_err("asks for another gateway's name");
    stage.connect_with(&elsewhere.forged_for("home")).await.expect_err("not of this cluster");

    // Another authority under the same name.
    let impostor = stage.agent_of("home").await;
    stage.connect_with(&impostor.forged_for("home")).await.expect_err("another authority");

    // A gateway's certificate is no agent's.
    let gateway = stage.signed(Role::Gateway, "fra1");
    stage.connect_with(&gateway).await.expect_err("the wrong role");

    // None at all.
    stage.connect_bare().await.expect_err("no certificate");
}

#[tokio::test]
async fn an_agent_talks_to_the_gateway_it_dialled_and_to_nobody_else() {
    let stage = Stage::new(LIFETIME).await;
    // The machine has certificates as fra1; ams1 is a sister of the same cluster.
    stage.connect_as(&stage.agent_named("agent-0"), "ams1").await.expect_err("another gateway");
    let authority = stage.impostor_authority();
    stage.connect_trusting(&authority).await.expect_err("another authority's gateway");
}

#[tokio::test]
async fn a_stolen_agent_key_brings_no_authority_of_its_own() {
    let stage = Stage::new(LIFETIME).await;
    let thief = authorities("home").trusted(now());
    let given = |authorities: &[CertificateDer<'_>]| Certificate {
        certificate: Vec::new(),
        authorities: authorities.iter().map(|it| it.to_vec().into()).collect(),
    };
    let own = stage.authorities.trusted(now());
    for authorities in [thief.clone(), [own.clone(), thief].concat(), Vec::new()] {
        let refused = stage.gateway.install("home", &given(&authorities), now());
        assert!(matches!(refused, Err(TrustError::WrongAuthority { .. })), "{refused:?}");
    }
    stage.gateway.install("home", &given(&own), now()).expect("its own are no news");
    stage.connect().await.expect("nothing has changed").echo(b"x").await.expect("echoed");
}

fn authorities(cluster: &str) -> Authorities {
    Authorities::create(cluster, SystemTime::now()).expect("an authority")
}
