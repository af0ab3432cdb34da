//! Several agents and several gateways, all at work at the same time.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;
use testkit::Protocol::Tcp;
use testkit::probe::Probe;
use testkit::wait;

use crate::objects::Service;
use crate::place::{
    PATIENCE, Place, Size, at, finish, none_failed_or_slow, none_failed_or_slow_but,
};

const TWO: Size = Size { gateways: 2, agents: 2 };

#[test]
fn wb06_every_agent_serves_every_gateway_and_all_share_the_load() -> anyhow::Result<()> {
    let Some(place) = Place::build("n-by-m", TWO)? else { return Ok(()) };
    place.write("blog", &Service::default().yaml())?;
    for gateway in [1, 2] {
        wait::until_ok("both agents answer", PATIENCE, || {
            let mut sources = BTreeSet::new();
            let flows: Vec<_> = (0..8)
                .map(|_| place.visitor().flow(Probe::new(at(gateway, 443), Tcp)))
                .collect::<anyhow::Result<_>>()?;
            for (_, outcome) in &flows {
                sources.extend(outcome.answer().map(|it| it.source_seen.ip()));
            }
            Ok((sources.len() == 2).then_some(()))
        })?;
    }
    Ok(())
}

#[test]
fn wb06_a_killed_agent_costs_no_new_connection() -> anyhow::Result<()> {
    let Some(place) = Place::build("killed-agent", TWO)? else { return Ok(()) };
    place.write("blog", &Service::default().yaml())?;
    let probers = [place.prober(at(1, 443))?, place.prober(at(2, 443))?];
    let mut kills = Vec::new();
    for _ in 0..3 {
        place.kill_agent(1)?;
        kills.push(SystemTime::now());
        place.start_agent(1)?;
        place.wait_connected(1, 2)?;
    }
    for prober in probers {
        none_failed_or_slow_but(&finish(prober)?, Duration::from_secs(1), &kills);
    }
    Ok(())
}

#[test]
fn wb06_a_killed_gateway_does_not_touch_the_other() -> anyhow::Result<()> {
    let Some(place) = Place::build("killed-gateway", TWO)? else { return Ok(()) };
    place.write("blog", &Service::default().yaml())?;
    let prober = place.prober(at(2, 443))?;
    let (flow, outcome) = place.visitor().flow(Probe::new(at(2, 443), Tcp))?;
    let flow = flow.unwrap_or_else(|| panic!("{outcome}"));
    place.reached(at(1, 443), Tcp)?;
    place.kill_gateway(1)?;
    wait::until("the agents notice", PATIENCE, || (place.connected(1).ok()? == 1).then_some(()))?;
    assert_eq!(flow.ask(PATIENCE)?.server(), Some("b1"), "an established flow");
    place.start_gateway(1)?;
    place.reached(at(1, 443), Tcp)?;
    none_failed_or_slow(&finish(prober)?, Duration::from_secs(1));
    Ok(())
}

#[test]
fn an_agent_that_drains_finishes_its_flows_and_costs_no_new_connection() -> anyhow::Result<()> {
    let size = Size { gateways: 1, agents: 2 };
    let Some(place) = Place::build("drain", size)? else { return Ok(()) };
    place.write("blog", &Service::default().yaml())?;
    let prober = place.prober(at(1, 443))?;
    let flows: Vec<_> = (0..8)
        .map(|_| place.visitor().flow(Probe::new(at(1, 443), Tcp)))
        .collect::<anyhow::Result<_>>()?;
    place.with_agent(1, |it| it.signal(Signal::SIGTERM))?;
    wait::until("the gateway sends it nothing new", PATIENCE, || {
        let outcome = place.visit(at(1, 443), Tcp).ok()?;
        (outcome.answer()?.source_seen.ip() == testkit::internet::private(22)).then_some(())
    })?;
    for (flow, outcome) in &flows {
        let flow = flow.as_ref().unwrap_or_else(|| panic!("{outcome}"));
        assert_eq!(flow.ask(PATIENCE)?.server(), Some("b1"), "an open flow was cut");
    }
    drop(flows);
    let status = place.with_agent(1, |it| it.wait(PATIENCE))?;
    assert!(status.success(), "{status}");
    none_failed_or_slow(&finish(prober)?, Duration::from_secs(1));
    Ok(())
}
