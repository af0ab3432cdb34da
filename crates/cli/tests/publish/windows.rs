//! What doctor says of machines whose kernel keeps one connection slow over a long path.

use anyhow::Context as _;
use serde_json::Value;
use testkit::Machine;
use testkit::tunnels::AGENT_PAGES;
use testkit::wait;

use crate::place::{ONE, PATIENCE, Place, program};

#[test]
fn small_windows_are_found_on_the_agents_machine_and_on_the_gateways() -> anyhow::Result<()> {
    let Some(place) = Place::empty("windows", ONE)? else { return Ok(()) };
    // What an untouched Linux has, on both sides.
    for machine in [place.gateway(1), place.agent(1)] {
        set(machine, ["4096 131072 6291456", "4096 16384 4194304"])?;
    }
    place.create_gateway(1, "", &[])?;
    place.start_gateway(1)?;
    place.start_agent(1)?;
    place.wait_connected(1, 1)?;
    let found = wait::until("the gateway's machine is told of", PATIENCE, || {
        let checks = doctor(place.agent(1)).ok()?;
        find(&checks, "gateway g1", "machine", "tcp_rmem").is_some().then_some(checks)
    })
    .with_context(|| place.logs())?;
    for (area, name) in [("this machine", "TCP windows"), ("gateway g1", "machine")] {
        let check = find(&found, area, name, "503 Mbit/s").context("no such check")?;
        assert_eq!(check["verdict"], "warning", "{check}");
        assert!(check.to_string().contains("4096 131072 33554432"), "{check}");
    }

    set(place.agent(1), ["4096 131072 33554432", "4096 16384 33554432"])?;
    let checks = doctor(place.agent(1))?;
    let check = find(&checks, "this machine", "TCP windows", "2684 Mbit/s in");
    assert_eq!(check.context("no such check")?["verdict"], "ok");
    Ok(())
}

fn set(machine: &Machine, [receive, send]: [&str; 2]) -> anyhow::Result<()> {
    machine.sysctl("ipv4/tcp_rmem", receive)?;
    machine.sysctl("ipv4/tcp_wmem", send)
}

/// What `portcullis doctor --agent` finds on a machine.
fn doctor(machine: &Machine) -> anyhow::Result<Vec<Value>> {
    let program = program().display().to_string();
    // Other checks may fail there; they are not what is looked at.
    let output = machine.output(&program, &["doctor", "--agent", AGENT_PAGES, "-o", "json"], "")?;
    let report: Value = serde_json::from_str(&output.stdout)?;
    Ok(report["checks"].as_array().context("no checks")?.clone())
}

/// The check of this area and name in which this was found.
fn find<'a>(checks: &'a [Value], area: &str, name: &str, found: &str) -> Option<&'a Value> {
    let says = |it: &&Value| it["found"].as_str().is_some_and(|it| it.contains(found));
    checks.iter().filter(|it| it["area"] == area && it["name"] == name).find(says)
}
