//! What a visitor, and what a cluster, may do.

use std::time::Duration;

use testkit::Protocol::{Tcp, Udp};
use testkit::probe::{Outcome, Probe, SILENCE};
use tunnel_proto::message::{Limits, PortState, PublishedPort, Range};

use crate::place::{Place, port, udp_port};

#[test]
fn the_kernel_keeps_an_allow_list() -> anyhow::Result<()> {
    let Some(place) = Place::new("allow")? else { return Ok(()) };
    let _running = place.start()?;
    let agent = place.agent("a")?;
    let blog = place.home.serve("blog", "127.0.0.1:0".parse()?, Tcp)?;
    let dns = place.home.serve("dns", "127.0.0.1:0".parse()?, Udp)?;
    let allow_from = vec![Range { address: "203.0.113.9".parse()?, prefix: 32 }];
    let tcp = PublishedPort { allow_from: allow_from.clone(), ..port(80, "blog") };
    let udp = PublishedPort { allow_from, ..udp_port(53, "dns") };
    agent.publish(1, vec![tcp, udp], &[("blog", blog.address()), ("dns", dns.address())]);
    for (at, protocol, server) in [("203.0.113.1:80", Tcp, "blog"), ("203.0.113.1:53", Udp, "dns")]
    {
        place.wait_for(at, protocol, server)?;
        // The other address of the same machine, and the other family.
        let other = Probe::new(at.parse()?, protocol).from("203.0.113.10:0".parse()?);
        // Until the kernel has its rules, the program resets.
        testkit::wait::until_ok("the kernel drops", crate::place::DEADLINE, || {
            Ok((place.visitor.probe(other.within(SILENCE))? == Outcome::Dropped).then_some(()))
        })?;
    }
    let v6 = place.visitor.probe(Probe::new("[2001:db8::1]:80".parse()?, Tcp).within(SILENCE))?;
    assert_eq!(v6, Outcome::Dropped);
    // The kernel did it.
    let rules = place.gateway.run("nft", &["list", "table", "inet", "portcullis_gateway"])?;
    assert!(!rules.contains("203.0.113.9 counter packets 0"), "{rules}");
    let report = agent.report().expect("there is one");
    assert!(!report.notes.iter().any(|it| it.contains("by the program")), "{report:?}");

    // Rules that somebody else removes come back.
    place.gateway.run("nft", &["flush", "ruleset"])?;
    testkit::wait::until_ok("the rules are back", crate::place::DEADLINE, || {
        let rules = place.gateway.run("nft", &["list", "ruleset"])?;
        Ok(rules.contains("203.0.113.9").then_some(()))
    })?;
    Ok(())
}

#[test]
fn the_kernel_keeps_what_one_source_may_do() -> anyhow::Result<()> {
    let Some(place) = Place::new("limits")? else { return Ok(()) };
    let _running = place.start()?;
    check_limits(&place, Outcome::Dropped)
}

#[test]
fn without_the_kernel_the_program_keeps_what_one_source_may_do() -> anyhow::Result<()> {
    let Some(place) = Place::new("limits-in-program")? else { return Ok(()) };
    let _running = place.start_without_kernel(place.config.clone())?;
    check_limits(&place, Outcome::Refused(String::new()))
}

/// Two open connections, and four new ones a second, for each source.
fn check_limits(place: &Place, refusal: Outcome) -> anyhow::Result<()> {
    let agent = place.agent("a")?;
    let blog = place.home.serve("blog", "127.0.0.1:0".parse()?, Tcp)?;
    let limited = |number, limits| PublishedPort { limits, ..port(number, "blog") };
    agent.publish(
        1,
        vec![
            limited(80, Limits { new_per_second: 0, open: 2 }),
            limited(81, Limits { new_per_second: 4, open: 0 }),
        ],
        &[("blog", blog.address())],
    );
    let report = agent.wait_for_report("both listen", |report| {
        report.ports.len() == 2 && report.ports.iter().all(|it| it.state == PortState::Listening)
    })?;
    let by_kernel = refusal == Outcome::Dropped;
    assert_eq!(
        report.notes.iter().any(|it| it.contains("by the program")),
        !by_kernel,
        "{report:?}"
    );
    let same =
        |outcome: &Outcome| std::mem::discriminant(outcome) == std::mem::discriminant(&refusal);
    let flow = |from: &str| {
        let probe = Probe::new("203.0.113.1:80".parse()?, Tcp).from(from.parse()?);
        place.visitor.flow(probe.within(Duration::from_millis(700)))
    };
    let (first, outcome) = flow("203.0.113.9:0")?;
    assert!(first.is_some(), "{outcome}");
    let (second, outcome) = flow("203.0.113.9:0")?;
    assert!(second.is_some(), "{outcome}");
    let (_, outcome) = flow("203.0.113.9:0")?;
    assert!(same(&outcome), "a third one: {outcome}");
    let (other, outcome) = flow("203.0.113.10:0")?;
    assert!(other.is_some(), "another source: {outcome}");
    drop(first);
    testkit::wait::until_ok("there is room again", crate::place::DEADLINE, || {
        Ok(flow("203.0.113.9:0")?.0)
    })?;

    let probe = Probe::new("203.0.113.1:81".parse()?, Tcp).within(Duration::from_millis(100));
    let burst = place.visitor.burst(probe, 12)?;
    assert!((3..=9).contains(&burst.answers.len()), "{} of 12 came through", burst.answers.len());
    assert!(burst.failed.iter().all(same), "{:?}", burst.failed);
    Ok(())
}

#[test]
fn a_cluster_gets_what_it_is_granted_and_no_more() -> anyhow::Result<()> {
    let Some(place) = Place::new("grants")? else { return Ok(()) };
    let mut config = place.config.clone();
    config.clusters[0].grants =
        Some(vec![toml::from_str("ports = [\"80-81/tcp\"]\nmaxPorts = 1")?]);
    let running = place.start_with(config.clone())?;
    let agent = place.agent("a")?;
    let blog = place.home.serve("blog", "127.0.0.1:0".parse()?, Tcp)?;
    let ports = vec![port(22, "blog"), port(80, "blog"), port(81, "blog"), udp_port(80, "blog")];
    agent.publish(1, ports, &[("blog", blog.address())]);
    place.wait_for("203.0.113.1:80", Tcp, "blog")?;
    let report = agent.wait_for_report("every port", |it| it.ports.len() == 4)?;
    let state = |number, index: usize| {
        assert_eq!(report.ports[index].port, number);
        report.ports[index].state.clone()
    };
    assert!(matches!(state(22, 0), PortState::NotGranted(why) if why.contains("22/tcp")));
    assert_eq!(state(80, 1), PortState::Listening);
    assert!(matches!(state(81, 2), PortState::NotGranted(why) if why.contains("1 ports")));
    assert!(matches!(state(80, 3), PortState::NotGranted(why) if why.contains("80/udp")));
    for closed in ["203.0.113.1:22", "203.0.113.1:81"] {
        let outcome = place.visit(closed, Tcp)?;
        assert!(matches!(outcome, Outcome::Refused(_)), "{closed}: {outcome}");
    }
    // The configuration takes a grant back while the gateway runs.
    config.clusters[0].grants = Some(Vec::new());
    running.configure(config);
    agent.wait_for_report("nothing is granted", |report| {
        report.ports.iter().all(|it| matches!(it.state, PortState::NotGranted(_)))
    })?;
    let outcome = place.visit("203.0.113.1:80", Tcp)?;
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome}");
    Ok(())
}
