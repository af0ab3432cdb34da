//! What is published, and what is not.

use std::net::SocketAddr;

use anyhow::Context as _;
use testkit::Protocol::{Tcp, Udp};
use testkit::internet::{private, public6};
use testkit::probe::Probe;
use testkit::tunnels::AGENT_PAGES;
use testkit::{Machine, wait};

use crate::objects::Service;
use crate::place::{ONE, PATIENCE, Place, at, finish, program};

#[test]
fn wb01_a_home_behind_a_router_publishes_80_and_443_on_a_public_machine() -> anyhow::Result<()> {
    let Some(place) = Place::build("publish", ONE)? else { return Ok(()) };
    place.write("blog", &Service::default().yaml())?;
    for (port, target) in [(80, 8080), (443, 8443)] {
        let answer = place.reached(at(1, port), Tcp)?;
        assert_eq!(answer.server, "b1");
        assert_eq!(answer.reached_on.port(), target);
        // Without a PROXY header the backend sees the agent, which is beside it.
        assert_eq!(answer.source_seen.ip(), private(21));
        place.reached(SocketAddr::new(public6(1).into(), port), Tcp)?;
    }
    // Nothing was opened at home: the router itself refuses whatever begins on the internet.
    let filter = place.internet.router.run("nft", &["list", "ruleset"])?;
    assert!(!filter.contains("dnat"), "{filter}");

    place.remove("blog")?;
    place.closed(at(1, 443), Tcp)
}

#[test]
fn wb03_the_gateway_binds_80_and_443_without_root() -> anyhow::Result<()> {
    let Some(place) = Place::empty("unprivileged", ONE)? else { return Ok(()) };
    place.create_gateway(1, "", &[])?;
    place.start_gateway_as(1, 65534, "net_bind_service")?;
    place.start_agent(1)?;
    place.wait_connected(1, 1)?;
    place.write("blog", &Service::default().yaml())?;
    place.reached(at(1, 80), Tcp)?;
    place.reached(at(1, 443), Tcp)?;
    let pid = place.with_gateway(1, |it| Ok(it.pid()))?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = |key: &str| status.lines().find(|it| it.starts_with(key)).unwrap_or_default();
    assert!(line("Uid:").ends_with("65534\t65534\t65534\t65534"), "{}", line("Uid:"));
    // Bit 10 is CAP_NET_BIND_SERVICE (capabilities(7)).
    assert!(line("CapEff:").ends_with(&format!("{:016x}", 1 << 10)), "{}", line("CapEff:"));
    Ok(())
}

#[test]
fn wb07_a_service_is_published_by_an_annotation_on_other_ports() -> anyhow::Result<()> {
    let Some(place) = Place::build("annotation", ONE)? else { return Ok(()) };
    let annotations = [("gateway", "g1"), ("gateway-ports", "8080:80, 5353:53:udp")];
    let service = Service {
        name: "shop",
        annotations: &annotations,
        spec: "type: ClusterIP",
        ports: &[(80, "TCP", 8080), (53, "UDP", 8053)],
        ..Service::default()
    };
    place.write("shop", &service.yaml())?;
    assert_eq!(place.reached(at(1, 8080), Tcp)?.server, "b1");
    assert_eq!(place.reached(at(1, 5353), Udp)?.server, "b1");
    place.closed(at(1, 80), Tcp)
}

#[test]
fn wb07_an_ingress_on_the_agents_own_loopback_is_published() -> anyhow::Result<()> {
    let Some(place) = Place::empty("loopback", ONE)? else { return Ok(()) };
    place.create_gateway(1, "", &[])?;
    place.start_gateway(1)?;
    place.start_agent_with(1, &["--allow-host-target"])?;
    let at_home = SocketAddr::from(([127, 0, 0, 1], 8080));
    let _ingress = place.agent(1).serve("ingress", at_home, Tcp)?;
    let service = Service {
        annotations: &[("gateway", "*"), ("target", "host")],
        spec: "type: ClusterIP",
        ports: &[(80, "TCP", 8080)],
        endpoints: &[],
        ..Service::default()
    };
    place.write("ingress", &service.yaml())?;
    assert_eq!(place.reached(at(1, 80), Tcp)?.server, "ingress");

    // Only where the agent was told to: whoever annotates Services must not decide it.
    place.kill_agent(1)?;
    place.start_agent(1)?;
    place.wait_connected(1, 1)?;
    place.closed(at(1, 80), Tcp)?;
    wait::until_ok("the agent says why", PATIENCE, || {
        let status = place.agent_status(1)?.to_string();
        Ok(status.contains("--allow-host-target").then_some(()))
    })
}

#[test]
fn an_endpoint_that_nobody_can_reach_is_told_and_not_passed_over() -> anyhow::Result<()> {
    let Some(place) = Place::build("unreachable-endpoint", ONE)? else { return Ok(()) };
    let service = Service { endpoints: &["127.0.0.1"], ..Service::default() };
    place.write("blog", &service.yaml())?;
    wait::until_ok("the agent says so", PATIENCE, || {
        let status = place.agent_status(1)?.to_string();
        Ok(status.contains("these endpoints are left out").then_some(()))
    })?;
    place.closed(at(1, 443), Tcp)
}

#[test]
fn wb10_several_services_share_a_gateway_over_tcp_and_udp() -> anyhow::Result<()> {
    let Some(place) = Place::build("several", ONE)? else { return Ok(()) };
    let dns = Service {
        name: "dns",
        ports: &[(53, "UDP", 8053), (53, "TCP", 8080)],
        endpoints: &["10.77.0.32"],
        ..Service::default()
    };
    place.write("blog", &Service::default().yaml())?;
    place.write("dns", &dns.yaml())?;
    assert_eq!(place.reached(at(1, 443), Tcp)?.server, "b1");
    assert_eq!(place.reached(at(1, 53), Tcp)?.server, "b2");
    assert_eq!(place.reached(at(1, 53), Udp)?.server, "b2");

    // Each UDP source is a flow of its own, and keeps its backend and its source there.
    let flows: Vec<_> = (0..50)
        .map(|_| place.visitor().flow(Probe::new(at(1, 53), Udp)))
        .collect::<anyhow::Result<_>>()?;
    let mut sources = std::collections::BTreeSet::new();
    for (flow, first) in &flows {
        let flow = flow.as_ref().unwrap_or_else(|| panic!("{first}"));
        let first = first.answer().map(|it| it.source_seen);
        let again = flow.ask(PATIENCE)?;
        assert_eq!(again.answer().map(|it| it.source_seen), first, "the flow moved: {again}");
        sources.extend(first);
    }
    assert_eq!(sources.len(), flows.len(), "flows were mixed");
    Ok(())
}

#[test]
fn wb10_of_two_services_that_want_a_port_the_older_has_it_and_the_other_is_told()
-> anyhow::Result<()> {
    let Some(place) = Place::build("conflict", ONE)? else { return Ok(()) };
    let older = Service { ports: &[(443, "TCP", 8443)], ..Service::default() };
    let younger = Service {
        name: "usurper",
        created: "2026-06-01T00:00:00Z",
        endpoints: &["10.77.0.32"],
        ..older.clone()
    };
    place.write("a-usurper", &younger.yaml())?;
    assert_eq!(place.reached(at(1, 443), Tcp)?.server, "b2");
    place.write("z-blog", &older.yaml())?;
    wait::until_ok("the older Service has the port", PATIENCE, || {
        let outcome = place.visit(at(1, 443), Tcp)?;
        Ok((outcome.server() == Some("b1")).then_some(()))
    })?;
    let status = place.agent_status(1)?.to_string();
    assert!(status.contains("usurper") && status.contains("Service web/blog"), "{status}");

    place.remove("z-blog")?;
    wait::until_ok("the port falls to the other", PATIENCE, || {
        let outcome = place.visit(at(1, 443), Tcp)?;
        Ok((outcome.server() == Some("b2")).then_some(()))
    })
}

#[test]
fn wb09_a_port_that_the_gateway_does_not_grant_is_not_opened() -> anyhow::Result<()> {
    let Some(place) = Place::empty("grants", ONE)? else { return Ok(()) };
    place.create_gateway(1, "", &["--ports", "443"])?;
    place.start_gateway(1)?;
    place.start_agent(1)?;
    place.wait_connected(1, 1)?;
    place.write("blog", &Service::default().yaml())?;
    place.reached(at(1, 443), Tcp)?;
    assert_eq!(place.visit(at(1, 80), Tcp)?.answer(), None, "80 was not granted");
    let listening = place.gateway(1).run("ss", &["-Hltn", "sport", "=", ":80"])?;
    assert_eq!(listening, "", "somebody listens on 80");
    wait::until_ok("the agent says so", PATIENCE, || {
        let status = place.agent_status(1)?.to_string();
        Ok(status.contains("does not grant 80/tcp").then_some(()))
    })
}

#[test]
fn both_ends_show_links_ports_and_bytes() -> anyhow::Result<()> {
    let Some(place) = Place::build("status", ONE)? else { return Ok(()) };
    place.write("blog", &Service::default().yaml())?;
    place.reached(at(1, 443), Tcp)?;
    let program = program().display().to_string();
    let ask =
        |machine: &Machine, more: &[&str]| machine.run(&program, &[&["status"], more].concat());
    let shows = |text: &str, words: &[&str]| words.iter().all(|it| text.contains(it));
    let linked =
        ["ok   g1: linked over tls to ", " ms, ", "443/tcp for Service web/blog listening: "];
    let serves = ["gateway g1 (", "ok   cluster home: 1 agents", "a1: linked over tls from "];
    // Reports come every few seconds.
    let mut last = (String::new(), String::new());
    let shown = wait::until_ok("both ends tell of links and ports", PATIENCE, || {
        let agent = ask(place.agent(1), &["--address", AGENT_PAGES])?;
        last = (agent, ask(place.gateway(1), &[])?);
        Ok((shows(&last.0, &linked) && shows(&last.1, &serves)).then_some(()))
    });
    shown.with_context(|| format!("{last:?}"))?;
    let document = ask(place.gateway(1), &["--output", "json"])?;
    let document: serde_json::Value = serde_json::from_str(&document)?;
    let cluster = &document["gateway"]["clusters"][0];
    assert_eq!(cluster["agents"][0]["name"], "a1", "{document:#}");
    assert!(cluster["agents"][0]["roundTripMicroseconds"].as_u64() > Some(0), "{document:#}");
    assert!(document.get("hosts").is_none() && document.get("agent").is_none(), "{document:#}");
    Ok(())
}

#[test]
fn endpoints_that_go_take_no_connection_with_them() -> anyhow::Result<()> {
    let Some(place) = Place::build("endpoints", ONE)? else { return Ok(()) };
    let with = |endpoints: &[&str]| {
        let service = Service { ports: &[(443, "TCP", 8443)], endpoints, ..Service::default() };
        place.write("blog", &service.yaml())
    };
    with(&["10.77.0.31", "10.77.0.32"])?;
    let prober = place.prober(at(1, 443))?;
    let answered_by = |wanted: &[&str]| {
        wait::until_ok(&format!("{wanted:?} answer"), PATIENCE, || {
            let mut seen = std::collections::BTreeSet::new();
            for _ in 0..12 {
                seen.extend(place.visit(at(1, 443), Tcp)?.server().map(str::to_owned));
            }
            Ok(seen.iter().map(String::as_str).eq(wanted.iter().copied()).then_some(()))
        })
    };
    answered_by(&["b1", "b2"])?;
    with(&["10.77.0.32"])?;
    answered_by(&["b2"])?;
    with(&["10.77.0.31"])?;
    answered_by(&["b1"])?;
    crate::place::none_failed_or_slow(&finish(prober)?, std::time::Duration::from_secs(1));
    Ok(())
}

#[test]
fn the_last_good_state_stays_when_the_agent_dies_and_comes_back() -> anyhow::Result<()> {
    let Some(place) = Place::build("last-good", ONE)? else { return Ok(()) };
    place.write("blog", &Service::default().yaml())?;
    place.reached(at(1, 443), Tcp)?;
    place.kill_agent(1)?;
    // The listener is the gateway's own: visitors are told at once, not left waiting.
    wait::until_ok("visitors are refused at once", PATIENCE, || {
        let outcome = place.visit(at(1, 443), Tcp)?;
        Ok(matches!(outcome, testkit::probe::Outcome::Refused(_)).then_some(()))
    })?;
    let listening = place.gateway(1).run("ss", &["-Hltn", "sport", "=", ":443"])?;
    assert_ne!(listening, "", "the gateway gave up the port");
    place.start_agent(1)?;
    place.reached(at(1, 443), Tcp)?;
    Ok(())
}
