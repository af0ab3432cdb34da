//! One process takes over from another while visitors come.

use std::time::Duration;

use testkit::Protocol::Tcp;
use testkit::probe::Probe;

use crate::place::{Place, port};

#[test]
fn an_upgrade_refuses_no_visitor() -> anyhow::Result<()> {
    let Some(place) = Place::new("upgrade")? else { return Ok(()) };
    let first = place.start()?;
    let agent = place.agent("a")?;
    let blog = place.home.serve("blog", "127.0.0.1:0".parse()?, Tcp)?;
    agent.publish(1, vec![port(80, "blog")], &[("blog", blog.address())]);
    place.wait_for("203.0.113.1:80", Tcp, "blog")?;
    let probe = Probe::new("203.0.113.1:80".parse()?, Tcp);
    let (flow, _) = place.visitor.flow(probe)?;
    let flow = flow.expect("it was answered");

    let prober = place.visitor.prober(probe, Duration::from_millis(5))?;
    let second = place.start()?;
    // The old one still serves what it has.
    assert!(flow.ask(Duration::from_secs(3))?.answer().is_some());
    drop(flow);
    first.wait()?;
    let mut present = second;
    let mut attempts = Vec::new();
    for _ in 0..5 {
        // Visitors come before, during and after.
        let so_far = attempts.len();
        testkit::wait::until_ok("visitors come", crate::place::DEADLINE, || {
            attempts.extend(prober.read()?);
            Ok((attempts.len() >= so_far + 30).then_some(()))
        })?;
        let next = place.start()?;
        present.wait()?;
        present = next;
    }
    attempts.extend(prober.stop()?);
    let failed: Vec<_> = attempts.iter().filter(|it| it.outcome.answer().is_none()).collect();
    assert!(failed.is_empty(), "{} of {}: {:?}", failed.len(), attempts.len(), failed.first());
    assert!(agent.sessions() >= 7, "{}", agent.sessions());
    present.end()
}

#[test]
fn draining_lets_open_flows_end_and_takes_no_new_ones() -> anyhow::Result<()> {
    let Some(place) = Place::new("drain")? else { return Ok(()) };
    let running = place.start()?;
    let agent = place.agent("a")?;
    let blog = place.home.serve("blog", "127.0.0.1:0".parse()?, Tcp)?;
    agent.publish(1, vec![port(80, "blog")], &[("blog", blog.address())]);
    place.wait_for("203.0.113.1:80", Tcp, "blog")?;
    let probe = Probe::new("203.0.113.1:80".parse()?, Tcp);
    let (flow, _) = place.visitor.flow(probe)?;
    let flow = flow.expect("it was answered");
    running.begin_to_end();
    testkit::wait::until_ok("no new visitor", crate::place::DEADLINE, || {
        Ok(place.visitor.probe(probe)?.answer().is_none().then_some(()))
    })?;
    assert!(flow.ask(Duration::from_secs(3))?.answer().is_some(), "an open flow goes on");
    drop(flow);
    running.wait()?;
    let table = place.gateway.run("nft", &["list", "ruleset"])?;
    assert!(!table.contains("portcullis_gateway"), "{table}");
    Ok(())
}
