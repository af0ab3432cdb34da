//! Killed at any moment, the host has the old or the new state, and the next start goes on from there.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rand::Rng as _;
use testkit::Protocol::Tcp;
use testkit::border::{HOST, at};
use testkit::probe::Probe;
use testkit::wait;

use crate::objects;
use crate::place::{PATIENCE, Place};

/// Host ports of one generation of the Services.
const PORTS: u16 = 50;

/// How often the program is killed. Every round is a start, a change and a kill.
const ROUNDS: u32 = 40;

#[test]
fn ep05_killed_at_any_point_the_host_has_the_old_or_the_new_state() -> anyhow::Result<()> {
    let Some(place) = Place::build("kill", "")? else { return Ok(()) };
    let generation = |first: u16| -> String {
        (0..PORTS)
            .map(|it| {
                let port = format!("{}:30443", first + it);
                objects::service(&format!("s{it}"), &[("portcullis.dev/host-ports", &port)])
                    + "---\n"
            })
            .collect()
    };
    let ports = |first: u16| -> BTreeSet<u16> { (first..first + PORTS).collect() };
    let (mut current, mut next) = (1000, 2000);
    place.write("services", &generation(current))?;
    let controller = place.start()?;
    place.wait_reached(at(HOST, current), Tcp)?;
    controller.kill();

    let mut random = rand::rng();
    let mut seen = BTreeSet::new();
    for round in 0..ROUNDS {
        place.write("services", &generation(next))?;
        let controller = place.start()?;
        let life = Duration::from_millis(random.random_range(0..150));
        let end = Instant::now() + life;
        while Instant::now() < end {
            std::thread::yield_now();
        }
        controller.kill();

        let state = forwarded(&place)?;
        let is_new = state == ports(next);
        assert!(
            is_new || state == ports(current),
            "round {round}, killed after {life:?}: {state:?}"
        );
        seen.insert(is_new);
        if is_new {
            (current, next) = (next, current);
        }
    }
    assert!(seen.contains(&true), "the program never lived long enough to do anything");

    place.write("services", &generation(current))?;
    let _controller = place.start()?;
    place.wait_reached(at(HOST, current), Tcp)?;
    Ok(())
}

#[test]
fn x05_forwarding_outlives_the_controller_and_a_restart_costs_no_connection() -> anyhow::Result<()>
{
    let Some(place) = Place::build("restart", "")? else { return Ok(()) };
    place.write("blog", &objects::blog())?;
    let controller = place.start()?;
    place.wait_reached(at(HOST, 443), Tcp)?;
    let prober =
        place.border.outside.prober(Probe::new(at(HOST, 443), Tcp), Duration::from_millis(2))?;

    controller.kill();
    for _ in 0..3 {
        let controller = place.start()?;
        wait::until_ok("the controller has looked at the host", PATIENCE, || {
            controller.check_alive()?;
            let status = place.status().ok();
            Ok(status.filter(|it| it["hosts"]["edge"]["revision"].as_u64() > Some(0)))
        })?;
        controller.kill();
    }

    let attempts = prober.stop()?;
    let lost = attempts.iter().filter(|it| it.outcome.answer().is_none()).count();
    assert!(attempts.len() > 20, "only {} connections were tried", attempts.len());
    assert_eq!(lost, 0, "of {} connections", attempts.len());
    Ok(())
}

/// The host ports in the kernel's maps.
fn forwarded(place: &Place) -> anyhow::Result<BTreeSet<u16>> {
    let listing = place.host().run("nft", &["-j", "list", "table", "inet", "portcullis"])?;
    let listing: serde_json::Value = serde_json::from_str(&listing)?;
    let mut ports = BTreeSet::new();
    collect_ports(&listing, &mut ports);
    Ok(ports)
}

/// Every `["tcp", PORT]` key of a map.
fn collect_ports(value: &serde_json::Value, ports: &mut BTreeSet<u16>) {
    if let Some(concat) = value.get("concat").and_then(|it| it.as_array())
        && let [protocol, port] = &concat[..]
        && protocol == "tcp"
    {
        ports.extend(port.as_u64().and_then(|it| u16::try_from(it).ok()));
    }
    match value {
        serde_json::Value::Array(values) => values.iter().for_each(|it| collect_ports(it, ports)),
        serde_json::Value::Object(fields) => {
            fields.values().for_each(|it| collect_ports(it, ports))
        }
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_) => {}
    }
}
