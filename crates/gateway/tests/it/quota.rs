//! A month's traffic, and what happens beyond.

use std::time::{Duration, Instant};

use testkit::Protocol::Tcp;
use testkit::probe::Probe;

use crate::place::{Place, Running, port};

#[test]
fn beyond_a_quota_flows_stop_also_after_a_restart() -> anyhow::Result<()> {
    let Some(place) = Place::new("quota-stop")? else { return Ok(()) };
    let mut config = place.config.clone();
    config.clusters[0].quota = Some(toml::from_str("bytesPerMonth = 100000\naction = \"stop\"")?);
    let running = place.start_with(config.clone())?;
    let agent = place.agent("a")?;
    let blog = place.home.serve("blog", "127.0.0.1:0".parse()?, Tcp)?;
    agent.publish(
        1,
        vec![port(80, "blog"), port(81, "echo")],
        &[("blog", blog.address()), ("echo", place.echo()?)],
    );
    place.wait_for("203.0.113.1:80", Tcp, "blog")?;
    let (flow, _) = place.visitor.flow(Probe::new("203.0.113.1:80".parse()?, Tcp))?;
    let flow = flow.expect("it was answered");
    let bytes = vec![7; 60_000];
    assert_eq!(place.say("203.0.113.1:81", &bytes, bytes.len())?, bytes);
    let report = agent.wait_for_report("it is used up", |report| {
        report.quota.is_some_and(|it| it.used >= 100_000)
    })?;
    assert_eq!(report.quota.map(|it| it.limit), Some(100_000));
    testkit::wait::until_ok("the open flow ends", crate::place::DEADLINE, || {
        Ok(flow.ask(Duration::from_secs(1))?.answer().is_none().then_some(()))
    })?;
    assert!(place.visit("203.0.113.1:80", Tcp)?.answer().is_none());
    running.end()?;
    let _running = place.start_with(config)?;
    agent.wait_for_report("it is still used up", |report| {
        report.sessions.iter().any(|it| it.age_seconds < 20)
            && report.quota.is_some_and(|it| it.used >= 100_000)
    })?;
    assert!(place.visit("203.0.113.1:80", Tcp)?.answer().is_none());
    Ok(())
}

#[test]
fn beyond_a_quota_the_kernel_makes_flows_slow() -> anyhow::Result<()> {
    let Some(place) = Place::new("quota-shape")? else { return Ok(()) };
    let config = shaping(&place)?;
    let running = place.start_with(config)?;
    check_slow(&place, &running)?;
    let rules = place.gateway.run("nft", &["list", "table", "inet", "portcullis_gateway"])?;
    assert!(rules.contains("shape-home"), "{rules}");
    Ok(())
}

#[test]
fn without_the_kernel_the_program_makes_flows_slow() -> anyhow::Result<()> {
    let Some(place) = Place::new("quota-shape-in-program")? else { return Ok(()) };
    let running = place.start_without_kernel(shaping(&place)?)?;
    check_slow(&place, &running)
}

/// From the first byte on, a megabyte a second.
fn shaping(place: &Place) -> anyhow::Result<gateway::config::Config> {
    let mut config = place.config.clone();
    let quota = "bytesPerMonth = 1\naction = \"shape\"\nshapeBitsPerSecond = 8000000";
    config.clusters[0].quota = Some(toml::from_str(quota)?);
    Ok(config)
}

fn check_slow(place: &Place, _running: &Running) -> anyhow::Result<()> {
    let agent = place.agent("a")?;
    agent.publish(1, vec![port(80, "echo")], &[("echo", place.echo()?)]);
    agent.wait_for_report("it listens", |it| it.ports.len() == 1)?;
    place.say("203.0.113.1:80", b"one byte is too much", 10)?;
    agent.wait_for_report("it is used up", |it| it.quota.is_some_and(|it| it.used > 0))?;
    // The rate follows within moments.
    let bytes = vec![7; 1_500_000];
    testkit::wait::until_ok("three megabytes take seconds", Duration::from_secs(30), || {
        let begin = Instant::now();
        let came = place.exchange("203.0.113.1:80", &bytes)?;
        assert_eq!(came, bytes.len());
        Ok((begin.elapsed() > Duration::from_millis(1500)).then_some(()))
    })
}
