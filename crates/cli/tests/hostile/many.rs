//! Objects with hostile or conflicting content, names of the greatest length, and a great many.

use std::fmt::Write as _;

use testkit::Protocol::Tcp;
use testkit::border::{HOST, at};
use testkit::wait;

use crate::objects;
use crate::place::{PATIENCE, Place};
use crate::told;

#[test]
fn hostile_annotations_are_told_and_open_nothing() -> anyhow::Result<()> {
    for backend in ["nftables", "iptables"] {
        let Some(place) = Place::build("annotations", &format!("backend: {backend}"))? else {
            return Ok(());
        };
        place.write("blog", &objects::blog())?;
        let controller = place.start()?;
        place.wait_reached(at(HOST, 443), Tcp)?;
        let hostile = [
            ("shell", "portcullis.dev/host-ports", "22:$(reboot)", "host-ports"),
            ("nft", "portcullis.dev/host-ports", "22:30443 } ; flush ruleset ;", "host-ports"),
            ("lines", "portcullis.dev/host-ports", "22:30443\n-A INPUT -j ACCEPT", "host-ports"),
            ("range", "portcullis.dev/allow-from", "0.0.0.0/0; accept", "allow-from"),
            ("quote", "epok.getbetter.ro/allow-range", "\"10.0.0.0/8\"", "allow-range"),
            ("hosts", "portcullis.dev/host", "edge; reboot", "portcullis.dev/host"),
        ];
        for (name, key, value, field) in hostile {
            let ports = ("portcullis.dev/host-ports", "22:30443");
            let annotations = match key {
                "portcullis.dev/host-ports" => vec![(key, value)],
                _ => vec![ports, (key, value)],
            };
            let text = objects::service(name, &annotations);
            place.write(name, &text)?;
            told::finding(&place, name, &[field])?;
            place.remove(name)?;
        }
        place.wait_closed(at(HOST, 22), Tcp)?;
        place.wait_reached(at(HOST, 443), Tcp)?;
        assert!(!controller.log().contains('\u{202e}'));
        let rules = place.host().run("iptables-save", &[])?
            + &place.host().run("nft", &["list", "ruleset"])?;
        assert!(!rules.contains("reboot") && !rules.contains("-A INPUT"), "{rules}");
    }
    Ok(())
}

#[test]
fn names_of_the_greatest_length_are_forwarded() -> anyhow::Result<()> {
    for backend in ["nftables", "iptables"] {
        let Some(place) = Place::build("names", &format!("backend: {backend}"))? else {
            return Ok(());
        };
        let namespace = "n".repeat(63);
        for (last, port) in [("a", 443), ("b", 444)] {
            let name = "s".repeat(62) + last;
            let ports = format!("{port}:30443");
            let annotations = [
                ("portcullis.dev/host-ports", ports.as_str()),
                ("portcullis.dev/allow-from", "0.0.0.0/0"),
            ];
            let text = objects::service(&name, &annotations);
            place
                .write(last, &text.replace("namespace: web", &format!("namespace: {namespace}")))?;
        }
        let pod = "p".repeat(253);
        place.write("pod", &format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {pod}\n  namespace: {namespace}\n  annotations:\n    \
             portcullis.dev/host-ports: \"445:30443\"\nstatus:\n  podIPs: [{{ ip: 10.77.0.12 }}]\n  \
             podIP: 10.77.0.12\n  conditions:\n  - {{ type: Ready, status: \"True\" }}\n"
        ))?;
        let _controller = place.start()?;
        for port in [443, 444, 445] {
            place.wait_reached(at(HOST, port), Tcp)?;
        }
        told::well(&place)?;
    }
    Ok(())
}

#[test]
fn ten_thousand_services_are_forwarded_and_one_more_at_once() -> anyhow::Result<()> {
    let Some(place) = Place::build("many", "")? else { return Ok(()) };
    let mut text = String::new();
    for number in 0..10_000 {
        let ports = format!("{}:30443", 10_000 + number);
        let _ = writeln!(
            text,
            "{}---",
            objects::service(&format!("s{number}"), &[("portcullis.dev/host-ports", &ports)])
        );
    }
    place.write("many", &text)?;
    let controller = place.start()?;
    wait::until_ok("all are forwarded", PATIENCE * 6, || {
        controller.check_alive()?;
        let status = place.status().ok();
        Ok(status.filter(|it| it["hosts"]["edge"]["forwards"].as_u64() == Some(10_000)).map(drop))
    })?;
    place.wait_reached(at(HOST, 10_000), Tcp)?;
    place.wait_reached(at(HOST, 19_999), Tcp)?;
    place.write("blog", &objects::blog())?;
    place.wait_reached(at(HOST, 443), Tcp)?;
    let memory = told::resident(controller.pid())?;
    assert!(memory < 400, "{memory} MiB");
    Ok(())
}

#[test]
fn a_hundred_services_that_want_one_port_cost_one_forward() -> anyhow::Result<()> {
    let Some(place) = Place::build("one-port", "")? else { return Ok(()) };
    let service = |number: u32| {
        objects::service(&format!("s{number:03}"), &[("portcullis.dev/host-ports", "443:30443")])
    };
    place.write("many", &(0..100).map(service).collect::<Vec<_>>().join("---\n"))?;
    let _controller = place.start()?;
    place.wait_reached(at(HOST, 443), Tcp)?;
    wait::until_ok("every loser is told", PATIENCE, || {
        let status = place.status()?;
        let findings = status["findings"].as_array().map_or(0, Vec::len);
        Ok((findings == 99).then_some(()))
    })
}
