//! Who may connect and how often, as the gateway's kernel sees to it.

use std::time::Duration;

use testkit::Protocol::Tcp;
use testkit::probe::{Outcome, Probe};
use testkit::wait;

use crate::objects::{BY_CLASS, Service};
use crate::place::{ONE, PATIENCE, Place, at};

#[test]
fn wb08_only_the_ranges_of_a_service_get_through_the_gateways_kernel() -> anyhow::Result<()> {
    let Some(place) = Place::build("allow", ONE)? else { return Ok(()) };
    let stranger = place.internet.public("stranger", 10)?;
    let spec = format!("{BY_CLASS}\nloadBalancerSourceRanges: [198.51.100.9/32]");
    let closed = Service { spec: &spec, ports: &[(443, "TCP", 8443)], ..Service::default() };
    let open = Service { name: "open", ports: &[(80, "TCP", 8080)], ..Service::default() };
    place.write("blog", &closed.yaml())?;
    place.write("open", &open.yaml())?;
    place.reached(at(1, 443), Tcp)?;
    place.reached(at(1, 80), Tcp)?;
    let probe = |port| Probe::new(at(1, port), Tcp).within(Duration::from_secs(1));
    assert_eq!(stranger.probe(probe(443))?.answer(), None, "a stranger got through");
    assert_eq!(stranger.probe(probe(80))?.server(), Some("b1"), "the other port is for all");
    let rules = place.gateway(1).run("nft", &["list", "ruleset"])?;
    assert!(rules.contains("198.51.100.9"), "{rules}");

    // A change takes effect without a new listener.
    let both = spec.replace("[198.51.100.9/32]", "[198.51.100.8/30]");
    place.write("blog", &Service { spec: &both, ..closed }.yaml())?;
    wait::until_ok("the stranger is let in", PATIENCE, || {
        Ok(stranger.probe(probe(443))?.answer().map(|_| ()))
    })
}

#[test]
fn wb08_one_source_cannot_open_more_connections_than_it_may() -> anyhow::Result<()> {
    let Some(place) = Place::build("limits", ONE)? else { return Ok(()) };
    let other = place.internet.public("other", 10)?;
    let service = Service {
        annotations: &[("max-open", "5")],
        ports: &[(443, "TCP", 8443)],
        ..Service::default()
    };
    place.write("blog", &service.yaml())?;
    place.reached(at(1, 443), Tcp)?;
    let limited = |machine: &testkit::Machine| -> anyhow::Result<usize> {
        let probe = Probe::new(at(1, 443), Tcp).within(Duration::from_millis(500));
        let flows: Vec<_> = (0..8).map(|_| machine.flow(probe)).collect::<anyhow::Result<_>>()?;
        Ok(flows.iter().filter(|(flow, _)| flow.is_some()).count())
    };
    // Connections that were just closed may still be counted.
    wait::until_ok("exactly five get through", PATIENCE, || {
        Ok((limited(place.visitor())? == 5).then_some(()))
    })?;
    assert_eq!(limited(&other)?, 5, "each source has its own count");
    Ok(())
}

#[test]
fn wb08_one_source_cannot_connect_faster_than_it_may() -> anyhow::Result<()> {
    let Some(place) = Place::build("rate", ONE)? else { return Ok(()) };
    let service = Service {
        annotations: &[("max-new-per-second", "10")],
        ports: &[(443, "TCP", 8443)],
        ..Service::default()
    };
    place.write("blog", &service.yaml())?;
    place.reached(at(1, 443), Tcp)?;
    let probe = Probe::new(at(1, 443), Tcp).within(Duration::from_millis(300));
    let prober = place.visitor().prober(probe, Duration::from_millis(10))?;
    let mut attempts = Vec::new();
    wait::until_ok("four seconds of attempts", PATIENCE, || {
        attempts.extend(prober.read()?);
        Ok((attempts.len() >= 400).then_some(()))
    })?;
    let reached = attempts.iter().filter(|it| matches!(it.outcome, Outcome::Reached(_))).count();
    // Ten a second and what was saved up before, in four seconds or a little more.
    assert!((20..=80).contains(&reached), "{reached} of {} got through", attempts.len());
    Ok(())
}
