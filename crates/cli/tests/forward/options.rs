//! Help for hosts whose own rules or routes stand in the way: off by default, and effective when on.

use testkit::Protocol::Tcp;
use testkit::border::{HOST, OUTSIDE, at};
use testkit::probe::{Probe, SILENCE};
use testkit::wait;

use crate::objects;
use crate::place::{PATIENCE, Place};

const BACKENDS: [&str; 2] = ["nftables", "iptables"];

#[test]
fn ep17_a_host_that_drops_by_default_is_helped_only_when_asked() -> anyhow::Result<()> {
    for backend in BACKENDS {
        let Some(place) = Place::build("drop", &format!("backend: {backend}"))? else {
            return Ok(());
        };
        place.host().run("iptables", &["-P", "FORWARD", "DROP"])?;
        place.write("blog", &objects::blog())?;
        let controller = place.start()?;
        wait::until_ok("rules are there", PATIENCE, || {
            let status = place.status().ok();
            Ok(status.filter(|it| it["hosts"]["edge"]["forwards"].as_u64() == Some(1)).map(drop))
        })?;
        assert!(
            place.try_outside(at(HOST, 443), Tcp)?.answer().is_none(),
            "{backend}: off by default"
        );
        drop(controller);

        place
            .write("host", &objects::host(&format!("backend: {backend}\nacceptForwarded: true")))?;
        let _controller = place.start()?;
        place.wait_reached(at(HOST, 443), Tcp)?;
    }
    Ok(())
}

#[test]
fn ep17_masquerade_gives_connections_the_hosts_address() -> anyhow::Result<()> {
    for backend in BACKENDS {
        let Some(place) = Place::build("masquerade", &format!("backend: {backend}"))? else {
            return Ok(());
        };
        place.write("blog", &objects::blog())?;
        let _controller = place.start()?;
        let answer = place.wait_reached(at(HOST, 443), Tcp)?;
        assert_eq!(
            answer.answer().map(|it| it.source_seen.ip().to_string()).as_deref(),
            Some(OUTSIDE)
        );

        place.write("host", &objects::host(&format!("backend: {backend}\nmasquerade: true")))?;
        wait::until_ok("the host's own address is seen", PATIENCE, || {
            let outcome = place.try_outside(at(HOST, 443), Tcp)?;
            let seen = outcome.answer().map(|it| it.source_seen.ip().to_string());
            Ok((seen.as_deref() == Some("10.77.0.1")).then_some(()))
        })?;
    }
    Ok(())
}

#[test]
fn ep17_a_node_reaches_its_own_host_port_with_hairpin() -> anyhow::Result<()> {
    for backend in BACKENDS {
        let spec = format!("backend: {backend}\nhairpin: true");
        let Some(place) = Place::build("hairpin", &spec.replace("interfaces", ""))? else {
            return Ok(());
        };
        let host = objects::host(&spec).replace("[eth0, wg0]", "[eth0, wg0, nodes0]");
        place.write("host", &host)?;
        place.write("blog", &objects::blog())?;
        let _controller = place.start()?;
        place.wait_reached(at(HOST, 443), Tcp)?;
        for node in &place.border.nodes {
            for _ in 0..4 {
                let outcome = node.probe(Probe::new(at(HOST, 443), Tcp).within(SILENCE))?;
                assert!(
                    outcome.answer().is_some(),
                    "{backend}: {} to itself: {outcome}",
                    node.name()
                );
            }
        }
    }
    Ok(())
}

#[test]
fn a_change_of_backend_leaves_nothing_of_the_old_one() -> anyhow::Result<()> {
    let Some(place) = Place::build("switch", "")? else { return Ok(()) };
    place.write("blog", &objects::blog())?;
    let _controller = place.start()?;
    place.wait_reached(at(HOST, 443), Tcp)?;

    place.write("host", &objects::host("backend: iptables"))?;
    wait::until_ok("the nftables table is gone", PATIENCE, || {
        let tables = place.host().run("nft", &["list", "tables"])?;
        Ok((!tables.contains("portcullis")).then_some(()))
    })?;
    place.wait_reached(at(HOST, 443), Tcp)?;

    place.write("host", &objects::host("backend: nftables"))?;
    wait::until_ok("the iptables chains are gone", PATIENCE, || {
        let rules = place.host().run("iptables-save", &[])?;
        Ok((!rules.contains("PORTCULLIS")).then_some(()))
    })?;
    place.wait_reached(at(HOST, 443), Tcp)?;
    Ok(())
}
