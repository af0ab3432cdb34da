//! Whether a published port can be reached is told by a probe from the public side through to the
//! backend, not by processes that run.

use std::time::Duration;

use anyhow::Context as _;
use testkit::Protocol::Tcp;
use testkit::lab::Daemon;
use testkit::wait;

use crate::objects::Service;
use crate::place::{ONE, PATIENCE, Place, at};

/// Where the backend of these tests listens.
const BACKEND: u16 = 9000;

/// What the gateway says that its last probe of TCP 443 found.
fn reached(place: &Place) -> Option<String> {
    // On a busy machine its page may be cut short; it is asked again.
    let status = place.tunnels.gateway_status(place.gateway(1)).ok()?;
    let ports = status["clusters"][0]["ports"].as_array()?;
    let port = ports.iter().find(|it| it["port"] == "*:443/tcp")?;
    Some(port["reached"].as_str().unwrap_or_default().to_owned())
}

/// Waits until the probe says this, and the metric the same.
fn until(place: &Place, said: &str) -> anyhow::Result<()> {
    let mut last = String::new();
    wait::until(&format!("the probe says {said:?}"), PATIENCE, || {
        last = reached(place)?;
        last.starts_with(said).then_some(())
    })
    .with_context(|| format!("last it said {last:?}\n{}", place.logs()))?;
    let expected = if said.starts_with("backend") { " 1.0" } else { " 0.0" };
    wait::until(&format!("the metric says {expected}"), PATIENCE, || {
        let metrics = place.gateway(1).page(testkit::tunnels::PAGES, "/metrics").ok()?;
        let line = metrics.lines().find(|it| it.starts_with("portcullis_port_reachable{"))?;
        line.ends_with(expected).then_some(())
    })
}

#[test]
fn wb05_a_port_is_reachable_as_long_as_a_probe_comes_through_to_the_backend() -> anyhow::Result<()>
{
    let Some(place) = Place::build("reachable", ONE)? else { return Ok(()) };
    let service = Service { ports: &[(443, "TCP", BACKEND)], ..Service::default() };
    let backend = place.backends[0].serve("b1", format!("0.0.0.0:{BACKEND}").parse()?, Tcp)?;
    place.write("blog", &service.yaml())?;
    place.reached(at(1, 443), Tcp)?;
    until(&place, "backend, in ")?;

    // The backend is gone; every process of the tunnel is as well as it was.
    drop(backend);
    until(&place, "endpoint: ")?;
    let backend = place.backends[0].serve("b1", format!("0.0.0.0:{BACKEND}").parse()?, Tcp)?;
    until(&place, "backend, in ")?;

    // No endpoint is ready.
    place.write("blog", &Service { endpoints: &[], ..service.clone() }.yaml())?;
    until(&place, "endpoint: no connected agent has a ready endpoint")?;
    place.write("blog", &service.yaml())?;
    until(&place, "backend, in ")?;

    // The gateway's own packet filter drops visitors.
    place.gateway(1).nft(
        "table inet theirs { chain in { type filter hook input priority 0; tcp dport 443 drop; }\n}\n",
    )?;
    until(&place, "filtered: ")?;
    assert_eq!(place.visit(at(1, 443), Tcp)?.answer(), None);
    place.gateway(1).run("nft", &["delete", "table", "inet", "theirs"])?;
    until(&place, "backend, in ")?;

    // The agent is gone.
    place.kill_agent(1)?;
    until(&place, "no agent is connected")?;
    place.start_agent(1)?;
    until(&place, "backend, in ")?;
    drop(backend);
    place.with_gateway(1, Daemon::check_alive)
}

#[test]
fn wb05_an_agent_is_ready_while_a_gateway_can_be_reached_and_alive_in_any_case()
-> anyhow::Result<()> {
    let Some(place) = Place::build("ready", ONE)? else { return Ok(()) };
    let page = |path| place.agent(1).page(testkit::tunnels::AGENT_PAGES, path);
    assert!(page("/readyz").is_ok());
    place.kill_gateway(1)?;
    wait::until("it is not ready", PATIENCE, || page("/readyz").is_err().then_some(()))?;
    let begin = std::time::Instant::now();
    wait::until_ok("it stays alive", PATIENCE, || {
        page("/healthz").context("a restart would help nobody")?;
        Ok((begin.elapsed() > Duration::from_secs(3)).then_some(()))
    })?;
    place.start_gateway(1)?;
    wait::until("it is ready again", PATIENCE, || page("/readyz").ok())?;
    Ok(())
}
