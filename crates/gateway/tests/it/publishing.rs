//! Visitors come through: what is wished is listened on, and leads to the backend.

use std::time::Duration;

use testkit::Protocol::{Tcp, Udp};
use testkit::probe::{Outcome, Probe};
use tunnel_proto::message::{NamedBackend, PortState, Reached, Route};

use crate::place::{Place, port, udp_port};

#[test]
fn visitors_reach_backends_over_tcp_and_udp_and_both_families() -> anyhow::Result<()> {
    let Some(place) = Place::new("publishing")? else { return Ok(()) };
    let _running = place.start()?;
    let agent = place.agent("a")?;
    let blog = place.home.serve("blog", "127.0.0.1:0".parse()?, Tcp)?;
    let dns = place.home.serve("dns", "127.0.0.1:0".parse()?, Udp)?;
    agent.publish(
        1,
        vec![port(80, "blog"), udp_port(53, "dns")],
        &[("blog", blog.address()), ("dns", dns.address())],
    );
    place.wait_for("203.0.113.1:80", Tcp, "blog")?;
    for address in ["203.0.113.1", "203.0.113.2", "[2001:db8::1]"] {
        place.wait_for(&format!("{address}:80"), Tcp, "blog")?;
        // The probe's socket is connected: an answer from another address would not reach it.
        place.wait_for(&format!("{address}:53"), Udp, "dns")?;
    }
    let report = agent.wait_for_report("traffic is counted", |report| {
        report.ports.len() == 2 && report.ports.iter().all(|it| it.total >= 3 && it.sent > 0)
    })?;
    assert_eq!(report.revision, 1);
    // TCP visitors of this lab only listen.
    assert!(report.ports[1].received > 0, "{report:?}");
    assert!(report.ports.iter().all(|it| it.state == PortState::Listening && it.failed == 0));
    assert_eq!(report.sessions.len(), 1);
    Ok(())
}

#[test]
fn server_names_lead_to_different_backends() -> anyhow::Result<()> {
    let Some(place) = Place::new("names")? else { return Ok(()) };
    let _running = place.start()?;
    let agent = place.agent("a")?;
    let named = |name: &str, backend: &str| NamedBackend {
        name: name.to_owned(),
        backend: backend.to_owned(),
    };
    let mut by_name = port(443, "unused");
    by_name.route = Route::ServerName(vec![named("blog.example.com", "blog")]);
    // The greeting must arrive unbroken.
    agent.publish(1, vec![by_name], &[("blog", place.echo()?)]);
    agent.wait_for_report("it listens", |it| {
        it.ports.iter().any(|it| it.state == PortState::Listening)
    })?;
    let greeting = client_hello("blog.example.com");
    assert_eq!(place.say("203.0.113.1:443", &greeting, greeting.len())?, greeting);
    let unknown = place.say("203.0.113.1:443", &client_hello("other.example.com"), 1);
    assert!(unknown.is_err(), "reset: {unknown:?}");
    assert!(place.say("203.0.113.1:443", b"GET / HTTP/1.1\r\n\r\n", 1).is_err(), "reset");
    Ok(())
}

#[test]
fn sockets_outlive_agents_and_a_restart_listens_at_once() -> anyhow::Result<()> {
    let Some(place) = Place::new("restart")? else { return Ok(()) };
    let running = place.start()?;
    let agent = place.agent("a")?;
    let blog = place.home.serve("blog", "127.0.0.1:0".parse()?, Tcp)?;
    agent.publish(1, vec![port(80, "blog")], &[("blog", blog.address())]);
    place.wait_for("203.0.113.1:80", Tcp, "blog")?;
    drop(running);
    let _running = place.start()?;
    // No agent has come yet: the connection is taken, and reset.
    let early = place.visit("203.0.113.1:80", Tcp)?;
    assert!(matches!(early, Outcome::Refused(_) | Outcome::Reached(_)), "{early}");
    place.wait_for("203.0.113.1:80", Tcp, "blog")?;
    assert!(agent.sessions() >= 2);
    drop(agent);
    let listening = || place.gateway.run("ss", &["-Hltn", "sport = :80"]);
    assert!(listening()?.contains(":80"), "{}", listening()?);
    Ok(())
}

#[test]
fn a_new_wish_touches_only_what_it_changes() -> anyhow::Result<()> {
    let Some(place) = Place::new("changes")? else { return Ok(()) };
    let _running = place.start()?;
    let agent = place.agent("a")?;
    let blog = place.home.serve("blog", "127.0.0.1:0".parse()?, Tcp)?;
    let backends = [("blog", blog.address())];
    agent.publish(1, vec![port(80, "blog"), port(81, "blog")], &backends);
    place.wait_for("203.0.113.1:80", Tcp, "blog")?;
    let (flow, _) = place.visitor.flow(Probe::new("203.0.113.1:80".parse()?, Tcp))?;
    let flow = flow.expect("it was answered");
    agent.publish(2, vec![port(80, "blog"), port(82, "blog")], &backends);
    place.wait_for("203.0.113.1:82", Tcp, "blog")?;
    let closed = place.visit("203.0.113.1:81", Tcp)?;
    assert!(matches!(closed, Outcome::Refused(_)), "{closed}");
    assert!(flow.ask(Duration::from_secs(3))?.answer().is_some(), "an open flow goes on");
    // An older wish, of an agent that is behind, changes nothing.
    let behind = place.agent("behind")?;
    behind.publish(1, Vec::new(), &backends);
    behind.wait_for_report("it was heard", |it| it.sessions.len() == 2)?;
    place.wait_for("203.0.113.1:82", Tcp, "blog")?;
    // The cluster was set back to where it was before: the one who knew better says so.
    agent.publish(1, vec![port(81, "blog")], &backends);
    place.wait_for("203.0.113.1:81", Tcp, "blog")
}

#[test]
fn an_older_wish_counts_when_the_agent_that_knew_better_has_left() -> anyhow::Result<()> {
    let Some(place) = Place::new("set-back")? else { return Ok(()) };
    let running = place.start()?;
    let gone = place.agent("gone")?;
    let blog = place.home.serve("blog", "127.0.0.1:0".parse()?, Tcp)?;
    let backends = [("blog", blog.address())];
    gone.publish(9, vec![port(80, "blog")], &backends);
    place.wait_for("203.0.113.1:80", Tcp, "blog")?;
    let here = place.agent("here")?;
    here.publish(5, vec![port(81, "blog")], &backends);
    let report = here.wait_for_report("both are there", |it| it.sessions.len() == 2)?;
    assert_eq!(report.revision, 9);
    drop(gone);
    let report = here.wait_for_report("one has left", |it| it.sessions.len() == 1)?;
    assert_eq!(report.revision, 9, "what it wished stays in force");
    here.publish(6, vec![port(82, "blog")], &backends);
    place.wait_for("203.0.113.1:82", Tcp, "blog")?;
    // A restart knows the wish, and nobody who stands for it.
    drop(here);
    drop(running);
    let _running = place.start()?;
    let late = place.agent("late")?;
    late.publish(4, vec![port(83, "blog")], &backends);
    place.wait_for("203.0.113.1:83", Tcp, "blog")
}

#[test]
fn a_udp_port_that_was_withdrawn_can_be_had_again_at_once() -> anyhow::Result<()> {
    let Some(place) = Place::new("udp-again")? else { return Ok(()) };
    let _running = place.start()?;
    let agent = place.agent("a")?;
    let dns = place.home.serve("dns", "127.0.0.1:0".parse()?, Udp)?;
    let backends = [("dns", dns.address())];
    agent.publish(1, vec![udp_port(53, "dns")], &backends);
    place.wait_for("203.0.113.1:53", Udp, "dns")?;
    let (flow, outcome) = place.visitor.flow(Probe::new("203.0.113.1:53".parse()?, Udp))?;
    assert!(flow.is_some(), "{outcome}");
    agent.publish(2, Vec::new(), &backends);
    agent.wait_for_report("it is withdrawn", |it| it.revision == 2 && it.ports.is_empty())?;
    let bound = || place.gateway.run("ss", &["-Hlun", "sport = :53"]);
    testkit::wait::until_ok("the socket is closed", Duration::from_secs(3), || {
        Ok(bound()?.is_empty().then_some(()))
    })?;
    agent.publish(3, vec![udp_port(53, "dns")], &backends);
    agent.wait_for_report("it listens", |report| {
        report.revision == 3 && report.ports.iter().all(|it| it.state == PortState::Listening)
    })?;
    place.wait_for("203.0.113.1:53", Udp, "dns")
}

#[test]
fn a_port_in_use_names_the_program_and_is_taken_once_free() -> anyhow::Result<()> {
    let Some(place) = Place::new("in-use")? else { return Ok(()) };
    let _running = place.start()?;
    let agent = place.agent("a")?;
    let squatter = place.gateway.serve("squatter", "0.0.0.0:80".parse()?, Tcp)?;
    let blog = place.home.serve("blog", "127.0.0.1:0".parse()?, Tcp)?;
    agent.publish(1, vec![port(80, "blog")], &[("blog", blog.address())]);
    let report = agent.wait_for_report("it is in use", |report| {
        report.ports.iter().any(|it| matches!(it.state, PortState::InUse(_)))
    })?;
    let PortState::InUse(by) = &report.ports[0].state else { panic!("{report:?}") };
    assert!(by.contains("program `") && by.contains("(process "), "{by}");
    drop(squatter);
    place.wait_for("203.0.113.1:80", Tcp, "blog")
}

#[test]
fn a_probe_names_the_hop_that_fails() -> anyhow::Result<()> {
    let Some(place) = Place::new("probe")? else { return Ok(()) };
    let _running = place.start()?;
    let agent = place.agent("a")?;
    let blog = place.home.serve("blog", "127.0.0.1:0".parse()?, Tcp)?;
    let closed = place.home.serve("closed", "127.0.0.1:0".parse()?, Tcp)?;
    let nobody = closed.address();
    drop(closed);
    agent.publish(
        1,
        vec![port(80, "blog"), port(81, "closed"), port(82, "unknown"), udp_port(80, "blog")],
        &[("blog", blog.address()), ("closed", nobody)],
    );
    let report = agent.wait_for_report("every port was probed", |report| {
        report.ports.len() == 4 && report.ports.iter().all(|it| it.probed.is_some())
    })?;
    let reached: Vec<_> =
        report.ports.iter().map(|it| it.probed.as_ref().map(|it| it.reached.clone())).collect();
    let [blog, closed, unknown, udp] = reached.as_slice() else { panic!("{reached:?}") };
    assert!(matches!(blog, Some(Reached::Backend(1..))), "{blog:?}");
    assert!(
        matches!(closed, Some(Reached::Endpoint(why)) if why.contains("refused")),
        "{closed:?}"
    );
    assert!(matches!(unknown, Some(Reached::Endpoint(_))), "{unknown:?}");
    assert!(matches!(udp, Some(Reached::Backend(1..))), "{udp:?}");
    Ok(())
}

#[test]
fn an_agent_that_says_nothing_costs_no_visitor() -> anyhow::Result<()> {
    let Some(place) = Place::new("silent")? else { return Ok(()) };
    let _running = place.start()?;
    let (first, second) = (place.agent("a")?, place.agent("b")?);
    let blog = place.home.serve("blog", "127.0.0.1:0".parse()?, Tcp)?;
    for agent in [&first, &second] {
        agent.publish(1, vec![port(80, "blog")], &[("blog", blog.address())]);
        agent.wait_for_report("both are there", |it| it.sessions.len() == 2)?;
    }
    place.wait_for("203.0.113.1:80", Tcp, "blog")?;
    first.be_silent();
    let burst = place.visitor.burst(Probe::new("203.0.113.1:80".parse()?, Tcp), 20)?;
    assert_eq!(burst.failed.len(), 0, "{:?}", burst.failed);
    let slowest = burst.answers.iter().map(|it| it.answered).max();
    assert!(slowest < Some(Duration::from_secs(1)), "{slowest:?}");
    assert!(second.opened() > 0);
    Ok(())
}

/// The smallest greeting of TLS that names a server.
fn client_hello(name: &str) -> Vec<u8> {
    let length = |it: &[u8]| u16::try_from(it.len()).expect("short").to_be_bytes();
    let mut entry = vec![0];
    entry.extend(length(name.as_bytes()));
    entry.extend(name.as_bytes());
    let mut list = length(&entry).to_vec();
    list.extend(entry);
    let mut extension = vec![0, 0];
    extension.extend(length(&list));
    extension.extend(list);
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend(length(&extension));
    body.extend(extension);
    let mut message = vec![1, 0];
    message.extend(length(&body));
    message.extend(body);
    let mut record = vec![22, 3, 1];
    record.extend(length(&message));
    record.extend(message);
    record
}
