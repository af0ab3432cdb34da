//! An agent and the gateway's end of its links: what it does when the gateway goes away, probes, or
//! has another agent of the same name; and what it tells of a new authority.

use std::time::SystemTime;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tunnel_proto::message::{ToAgent, ToGateway};

use super::gateway::{Site, connected_pair, relay, soon};

/// An annotation, and what it makes of the backend's key.
const PROXIED: (&str, &str) =
    ("portcullis.dev/proxy-protocol: v2", "tcp:web/blog:443+host+proxy-v2");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_goes_away_is_dialled_at_once_and_keeps_its_flows() -> anyhow::Result<()> {
    let mut site = Site::open().await?;
    let mut first = site.session().await;
    let (mut visitor, plain) = connected_pair().await?;
    let flow = soon("a flow", first.link.open(site.ask(false))).await?;
    let relayed = relay(flow, plain);
    let (mut backend, _) = soon("the backend's visitor", site.backend.accept()).await?;
    visitor.write_all(b"before").await?;
    let mut bytes = [0; 6];
    soon("bytes", backend.read_exact(&mut bytes)).await?;

    first.control.send(ToAgent::Drain)?;
    let second = site.session().await;
    assert!(second.hello.epoch > first.hello.epoch);
    // New flows go by the new session, and what is open stays where it is.
    let more = soon("another flow", second.link.open(site.ask(false))).await?;
    soon("the backend's next visitor", site.backend.accept()).await?;
    drop(more);
    backend.write_all(b"after!").await?;
    soon("bytes", visitor.read_exact(&mut bytes)).await?;
    assert_eq!(&bytes, b"after!");
    assert_eq!(first.control.status().ended(), None, "it has a flow");

    drop((visitor, backend));
    soon("the flow's end", relayed).await?;
    let ended = async { while first.control.receive().await.is_some() {} };
    soon("the end of a session without flows", ended).await;
    assert_eq!(second.control.status().ended(), None);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_reaches_the_backend_and_is_no_visitor() -> anyhow::Result<()> {
    let mut site = Site::open_with(PROXIED.0, PROXIED.1).await?;
    let session = site.session().await;
    let flow = soon("a probe", session.link.open(site.ask(true))).await?;
    let (mut backend, _) = soon("the backend's visitor", site.backend.accept()).await?;
    // Having been answered, the gateway wants no more.
    drop(flow);
    let mut said = Vec::new();
    let _end_or_reset = soon("the end", backend.read_to_end(&mut said)).await;
    assert_eq!(said, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", "LOCAL: there is nobody behind it");
    let status = site.status().await?;
    let gateway = &status["gateways"]["fra1"];
    assert_eq!((&gateway["flows"], &gateway["received"]), (&0.into(), &0.into()), "{status:#}");

    let (_visitor, plain) = connected_pair().await?;
    let flow = soon("a flow", session.link.open(site.ask(false))).await?;
    let _relayed = relay(flow, plain);
    assert_eq!(site.status().await?["gateways"]["fra1"]["flows"], 1, "a visitor is one");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_hear_of_a_new_authority() -> anyhow::Result<()> {
    let mut site = Site::open().await?;
    let mut session = site.session().await;
    let now = SystemTime::now();
    site.authorize(&site.authorities.rotate(now, now)?)?;
    let told = async {
        loop {
            match session.control.receive().await {
                Some(ToGateway::Certificate(it)) => return Some(it),
                Some(_) => {}
                None => return None,
            }
        }
    };
    let told = soon("what is trusted now", told).await.context("the session ended")?;
    assert_eq!((told.certificate.len(), told.authorities.len()), (0, 2), "the old and the new one");
    assert_eq!(session.control.status().ended(), None);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_does_not_throw_out_another_one_that_has_taken_its_name() -> anyhow::Result<()> {
    let mut site = Site::open().await?;
    let session = site.session().await;
    let own = session.hello.epoch;
    // As after a pause of the machine, in which a successor was started.
    let successor = own + 1_000;
    session.evict(successor);
    for _ in 0..2 {
        let again = site.session().await;
        assert_eq!(again.hello.epoch, own, "with a newer epoch it would win");
        again.evict(successor);
    }
    // The successor is gone: what comes now is let in and stays.
    let again = site.session().await;
    let (_visitor, plain) = connected_pair().await?;
    let flow = soon("a flow", again.link.open(site.ask(false))).await?;
    let _relayed = relay(flow, plain);
    Ok(())
}
