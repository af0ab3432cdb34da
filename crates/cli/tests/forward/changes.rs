//! Nodes, pods, addresses and Services change; connections follow.

use std::time::Duration;

use testkit::Protocol::{Tcp, Udp};
use testkit::border::{HOST, HOST6, at};
use testkit::probe::{Probe, SILENCE};
use testkit::wait;

use crate::objects;
use crate::place::{PATIENCE, Place, counts};

#[test]
fn ep04_connections_are_spread_evenly_on_every_interface() -> anyhow::Result<()> {
    for backend in ["nftables", "iptables"] {
        let Some(place) = Place::build("even", &format!("backend: {backend}"))? else {
            return Ok(());
        };
        place.write("blog", &objects::blog())?;
        let _controller = place.start()?;
        for to in [HOST, HOST6] {
            place.wait_reached(at(to, 443), Tcp)?;
            for client in [&place.border.outside, &place.border.vpn] {
                let spread = place.spread(client, at(to, 443), 30)?;
                assert_eq!(
                    spread,
                    counts([("n1", 15), ("n2", 15)]),
                    "{backend} {to} {}",
                    client.name()
                );
            }
        }
    }
    Ok(())
}

#[test]
fn ep13_a_node_that_flaps_costs_one_update_for_a_hundred_services() -> anyhow::Result<()> {
    let Some(place) = Place::build("flap", "")? else { return Ok(()) };
    let services: String = (0..100)
        .map(|it| {
            let ports = format!("{}:30443", 1000 + it);
            objects::service(&format!("s{it}"), &[("portcullis.dev/host-ports", &ports)]) + "---\n"
        })
        .collect();
    place.write("services", &services)?;
    let _controller = place.start()?;
    place.wait_reached(at(HOST, 1099), Tcp)?;
    let revision = || -> anyhow::Result<Option<u64>> {
        Ok(place.status()?["hosts"]["edge"]["revision"].as_u64())
    };
    let before = wait::until_ok("it is told", PATIENCE, || Ok(revision()?.filter(|it| *it > 0)))?;

    place.write("n1", &objects::node(1, false))?;
    wait::until_ok("the node is gone", PATIENCE, || {
        let spread = place.spread(&place.border.outside, at(HOST, 1000), 4)?;
        Ok((spread == counts([("n2", 4)])).then_some(()))
    })?;
    let after =
        wait::until_ok("it is told", PATIENCE, || Ok(revision()?.filter(|it| *it > before)))?;
    assert_eq!(after, before + 1, "one revision");
    Ok(())
}

#[test]
fn ep14_a_udp_flow_leaves_a_target_that_is_gone() -> anyhow::Result<()> {
    let Some(mut place) = Place::build("flow", "")? else { return Ok(()) };
    place
        .write("dns", &objects::service("dns", &[("portcullis.dev/host-ports", "53:30053:udp")]))?;
    let _controller = place.start()?;
    place.wait_reached(at(HOST, 53), Udp)?;
    let (flow, first) = place.border.outside.flow(Probe::new(at(HOST, 53), Udp).within(SILENCE))?;
    let flow = flow.expect("the port answers");
    let (gone, left) = if first.server() == Some("n1") { (1, "n2") } else { (2, "n1") };

    place.servers[gone - 1].clear();
    place.write(&format!("n{gone}"), &objects::node(gone, false))?;

    wait::until_ok("the same flow reaches the other node", PATIENCE, || {
        let outcome = flow.ask(Duration::from_millis(100))?;
        Ok((outcome.server() == Some(left)).then_some(()))
    })
}

#[test]
fn ep16_an_external_address_that_changes_is_followed() -> anyhow::Result<()> {
    let Some(place) = Place::build("dhcp", "externalInterface: eth0")? else { return Ok(()) };
    place.write("blog", &objects::blog())?;
    let _controller = place.start()?;
    place.wait_reached(at(HOST, 443), Tcp)?;

    place.host().add_address("eth0", "198.51.100.77/24")?;
    place.wait_reached(at("198.51.100.77", 443), Tcp)?;
    place.wait_reached(at(HOST, 443), Tcp)?;
    place.host().remove_address("eth0", "198.51.100.77/24")?;
    place.wait_closed(at("198.51.100.77", 443), Tcp)?;
    place.wait_reached(at(HOST6, 443), Tcp)?;
    Ok(())
}

#[test]
fn ep18_a_node_port_that_the_annotation_omits_is_looked_up() -> anyhow::Result<()> {
    let Some(place) = Place::build("lookup", "")? else { return Ok(()) };
    place.write("blog", &objects::service("blog", &[("portcullis.dev/host-ports", "443")]))?;
    let _controller = place.start()?;
    place.wait_reached(at(HOST, 443), Tcp)?;
    Ok(())
}

#[test]
fn a_pod_is_reached_at_its_own_address_and_port() -> anyhow::Result<()> {
    let Some(place) = Place::build("pod", "")? else { return Ok(()) };
    let pod = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: game\n  namespace: web\n  annotations:\n    \
               portcullis.dev/host-ports: \"25565:30443\"\nstatus:\n  podIPs: [{ ip: 10.77.0.12 }]\n  \
               podIP: 10.77.0.12\n  conditions:\n  - { type: Ready, status: \"True\" }\n";
    place.write("game", pod)?;
    let _controller = place.start()?;
    let outcome = place.wait_reached(at(HOST, 25565), Tcp)?;
    assert_eq!(outcome.server(), Some("n2"));
    place.remove("game")?;
    place.wait_closed(at(HOST, 25565), Tcp)
}

#[test]
fn two_services_that_want_one_port_the_older_wins_and_its_heir_follows() -> anyhow::Result<()> {
    let Some(place) = Place::build("conflict", "")? else { return Ok(()) };
    let dated = |name: &str, date: &str, port: &str| {
        objects::service(name, &[("portcullis.dev/host-ports", port)])
            .replace("metadata:\n", &format!("metadata:\n  creationTimestamp: {date}\n"))
    };
    // The younger one leads to a node port where nobody listens.
    place.write("young", &dated("a-young", "2026-02-01T00:00:00Z", "443:30999"))?;
    place.write("old", &dated("z-old", "2026-01-01T00:00:00Z", "443:30443"))?;
    let _controller = place.start()?;
    place.wait_reached(at(HOST, 443), Tcp)?;
    let finding = wait::until_ok("the loser is told", PATIENCE, || {
        let status = place.status()?;
        let findings = status["findings"].as_array().cloned().unwrap_or_default();
        Ok(findings.into_iter().find(|it| it["object"]["name"] == "a-young"))
    })?;
    assert!(finding["problem"].as_str().is_some_and(|it| it.contains("web/z-old")), "{finding}");

    place.remove("old")?;
    place.wait_closed(at(HOST, 443), Tcp)
}
