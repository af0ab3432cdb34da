//! Agents that come, come back, and behave badly.

use std::time::{Duration, Instant};

use testkit::Protocol::{Tcp, Udp};
use testkit::probe::Probe;
use tunnel_proto::message::{Desired, PublishedPort, Reach, Route, Serving, ToGateway};

use crate::place::{Place, port, udp_port};

#[test]
fn an_agent_that_comes_back_takes_over_at_once() -> anyhow::Result<()> {
    let Some(place) = Place::new("epoch")? else { return Ok(()) };
    let _running = place.start()?;
    let ghost = place.agent("a")?;
    let old = place.home.serve("old", "127.0.0.1:0".parse()?, Tcp)?;
    ghost.publish(1, vec![port(80, "blog")], &[("blog", old.address())]);
    place.wait_for("203.0.113.1:80", Tcp, "old")?;
    let (flow, _) = place.visitor.flow(Probe::new("203.0.113.1:80".parse()?, Tcp))?;
    let flow = flow.expect("it was answered");
    ghost.do_not_come_back();
    let prober = place
        .visitor
        .prober(Probe::new("203.0.113.1:80".parse()?, Tcp), Duration::from_millis(5))?;
    let new = place.home.serve("new", "127.0.0.1:0".parse()?, Tcp)?;
    let agent = place.agent("a")?;
    agent.publish(2, vec![port(80, "blog")], &[("blog", new.address())]);
    place.wait_for("203.0.113.1:80", Tcp, "new")?;
    let report = agent.wait_for_report("one session", |it| it.sessions.len() == 1)?;
    assert_eq!(report.sessions[0].agent, "a");
    assert!(flow.ask(Duration::from_secs(3))?.answer().is_some(), "its open flow goes on");
    let servers: Vec<_> =
        prober.stop()?.into_iter().map(|it| it.outcome.server().map(str::to_owned)).collect();
    let after = servers.iter().skip_while(|it| it.as_deref() != Some("new"));
    assert!(after.clone().all(|it| it.as_deref() == Some("new")), "{servers:?}");
    Ok(())
}

#[test]
fn visitors_wait_for_an_agent_where_that_is_wished() -> anyhow::Result<()> {
    let Some(place) = Place::new("hold")? else { return Ok(()) };
    let mut config = place.config.clone();
    config.hold_milliseconds = 10_000;
    let _running = place.start_with(config)?;
    let agent = place.agent("a")?;
    agent.publish(1, vec![port(80, "blog")], &[]);
    agent.wait_for_report("it listens", |it| it.ports.len() == 1)?;
    let blog = place.home.serve("blog", "127.0.0.1:0".parse()?, Tcp)?;
    let probe = Probe::new("203.0.113.1:80".parse()?, Tcp).within(Duration::from_secs(10));
    let begin = Instant::now();
    let outcome = std::thread::scope(|scope| {
        let visit = scope.spawn(|| place.visitor.probe(probe));
        // The visitor is there, and waits.
        testkit::wait::until_ok("the visitor waits", Duration::from_secs(5), || {
            let connections = place.gateway.run("ss", &["-Htn", "state", "established"])?;
            Ok(connections.lines().any(|it| it.contains(":80 ")).then_some(()))
        })?;
        agent.publish(2, vec![port(80, "blog")], &[("blog", blog.address())]);
        visit.join().map_err(|_| anyhow::anyhow!("a panic"))?
    })?;
    assert_eq!(outcome.server(), Some("blog"), "{outcome} after {:?}", begin.elapsed());
    Ok(())
}

#[test]
fn an_agent_that_talks_nonsense_is_sent_away_and_others_stay() -> anyhow::Result<()> {
    let Some(place) = Place::new("nonsense")? else { return Ok(()) };
    let _running = place.start()?;
    let (good, bad) = (place.agent("good")?, place.agent("bad")?);
    let blog = place.home.serve("blog", "127.0.0.1:0".parse()?, Tcp)?;
    good.publish(5, vec![port(80, "blog")], &[("blog", blog.address())]);
    place.wait_for("203.0.113.1:80", Tcp, "blog")?;
    for nonsense in [
        ToGateway::Reveal(vec![1; 32]),
        ToGateway::Serving(
            (0..70_000)
                .map(|it| Serving { backend: it.to_string(), reach: Reach::Remote })
                .collect(),
        ),
    ] {
        let before = bad.sessions();
        bad.send(nonsense);
        testkit::wait::until("it is sent away", crate::place::DEADLINE, || {
            (bad.sessions() > before).then_some(())
        })?;
    }
    // A wish that contradicts itself, and one with more ports than anybody may have.
    let twice = Desired { revision: 9, ports: vec![port(81, "x"), port(81, "y")], quota: None };
    bad.send(ToGateway::Desired(twice));
    place.wait_for("203.0.113.1:80", Tcp, "blog")?;
    let report = good.wait_for_report("its own wish", |it| it.sessions.len() == 2)?;
    assert_eq!(report.revision, 5);
    Ok(())
}

#[test]
fn udp_flows_end_when_nothing_comes_and_go_on_while_something_does() -> anyhow::Result<()> {
    let Some(place) = Place::new("udp-idle")? else { return Ok(()) };
    let _running = place.start()?;
    let agent = place.agent("a")?;
    let dns = place.home.serve("dns", "127.0.0.1:0".parse()?, Udp)?;
    let short = PublishedPort { idle_seconds: 1, ..udp_port(53, "dns") };
    agent.publish(1, vec![short], &[("dns", dns.address())]);
    place.wait_for("203.0.113.1:53", Udp, "dns")?;
    let (flow, _) = place.visitor.flow(Probe::new("203.0.113.1:53".parse()?, Udp))?;
    let flow = flow.expect("it was answered");
    let first = flow.ask(Duration::from_secs(3))?;
    let source = |it: &testkit::probe::Outcome| it.answer().map(|it| it.source_seen);
    for _ in 0..4 {
        std::thread::park_timeout(Duration::from_millis(500));
        let again = flow.ask(Duration::from_secs(3))?;
        assert_eq!(source(&again), source(&first), "the same flow: {again}");
    }
    agent.wait_for_report("no flow is open", |it| it.ports.iter().all(|it| it.open == 0))?;
    let later = flow.ask(Duration::from_secs(3))?;
    assert_ne!(source(&later), source(&first), "another flow: {later}");
    Ok(())
}

#[test]
fn visitors_that_say_nothing_to_a_named_port_go_and_cost_nobody() -> anyhow::Result<()> {
    let Some(place) = Place::new("mute")? else { return Ok(()) };
    let _running = place.start()?;
    let agent = place.agent("a")?;
    let blog = place.home.serve("blog", "127.0.0.1:0".parse()?, Tcp)?;
    let mut named = port(443, "unused");
    named.route = Route::ServerName(vec![tunnel_proto::message::NamedBackend {
        name: String::new(),
        backend: "blog".to_owned(),
    }]);
    agent.publish(1, vec![named, port(80, "blog")], &[("blog", blog.address())]);
    place.wait_for("203.0.113.1:80", Tcp, "blog")?;
    let begin = Instant::now();
    let mute: Vec<_> = place
        .visitor
        .enter(|| (0..500).map(|_| std::net::TcpStream::connect("203.0.113.1:443")).collect())?;
    assert!(mute.iter().all(Result::is_ok));
    place.wait_for("203.0.113.1:80", Tcp, "blog")?;
    testkit::wait::until_ok("they are sent away", crate::place::DEADLINE, || {
        let connections = place.gateway.run("ss", &["-Htn", "state", "established"])?;
        Ok((!connections.contains(":443 ")).then_some(()))
    })?;
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    let page = place.page("/metrics")?;
    let rejected = "portcullis_listener_rejected_total{cluster=\"home\",port=\"*:443/tcp\",\
                    reason=\"no_greeting\"} 500";
    assert!(page.contains(rejected), "{page}");
    Ok(())
}

#[test]
fn the_pages_tell_what_the_gateway_does() -> anyhow::Result<()> {
    let Some(place) = Place::new("pages")? else { return Ok(()) };
    let _running = place.start()?;
    assert!(place.page("/readyz")?.contains("no agent of cluster home"));
    let agent = place.agent("a")?;
    let blog = place.home.serve("blog", "127.0.0.1:0".parse()?, Tcp)?;
    agent.publish(1, vec![port(80, "blog")], &[("blog", blog.address())]);
    place.wait_for("203.0.113.1:80", Tcp, "blog")?;
    let page = place.page("/metrics")?;
    for line in [
        "portcullis_link_up{cluster=\"home\",agent=\"a\",carrier=\"tls\"} 1",
        "portcullis_flows_total{cluster=\"home\",port=\"*:80/tcp\",owner=\"Service web/blog\"} ",
        "portcullis_transferred_bytes_total{",
        "portcullis_flow_open_seconds_bucket{",
        "portcullis_port_listening{",
        "# EOF",
    ] {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
    let status = place.page("/status")?;
    assert!(status.contains("\"*:80/tcp\"") && status.contains("\"listening\""), "{status}");
    assert!(place.page("/readyz")?.contains("ok"));
    Ok(())
}
