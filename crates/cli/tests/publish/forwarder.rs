//! A gateway on a machine where something else has its ports: a forwarder of an earlier tunnel.

use std::net::SocketAddr;

use anyhow::Context as _;
use testkit::Protocol::Tcp;
use testkit::wait;

use crate::objects::Service;
use crate::place::{ONE, PATIENCE, Place, at};

#[test]
fn wb03_a_forwarder_that_has_the_ports_is_replaced_when_it_stops() -> anyhow::Result<()> {
    let Some(place) = Place::build("forwarder", ONE)? else { return Ok(()) };
    let everywhere = |port| SocketAddr::from(([0, 0, 0, 0], port));
    let forwarders = [80, 443].map(|port| place.gateway(1).serve("old", everywhere(port), Tcp));
    let forwarders: Vec<_> = forwarders.into_iter().collect::<anyhow::Result<_>>()?;
    place.write("blog", &Service::default().yaml())?;
    let states = || -> Option<Vec<String>> {
        let status = place.agent_status(1).ok()?;
        let ports = status["gateways"]["g1"]["ports"].as_array()?;
        ports.iter().map(|it| it["state"].as_str().map(str::to_owned)).collect()
    };
    let mut last = None;
    wait::until("the agent says who has the ports", PATIENCE, || {
        last = states();
        let told = |it: &String| it.starts_with("in use") && it.contains("program");
        last.as_ref().is_some_and(|it| it.len() == 2 && it.iter().all(told)).then_some(())
    })
    .with_context(|| format!("last it said {last:?}\n{}", place.logs()))?;
    // Visitors are served as before.
    for port in [80, 443] {
        assert_eq!(place.visit(at(1, port), Tcp)?.server(), Some("old"), "port {port}");
    }
    drop(forwarders);
    for port in [80, 443] {
        assert_eq!(place.reached(at(1, port), Tcp)?.server, "b1", "port {port}");
    }
    Ok(())
}
