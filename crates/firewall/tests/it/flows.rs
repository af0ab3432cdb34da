//! EP-14: UDP flows do not outlive the rules that made them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use expect_test::{Expect, expect};
use firewall::{Backend, Observed, conntrack, guard};
use testkit::probe::{Probe, SILENCE};
use testkit::{Lab, Machine, Protocol};

use crate::cases;
use crate::kernel::{observe, run};
use crate::laws::BACKENDS;

const TWO: &str = "internal eth0\n nodes all 10.0.0.1 10.0.0.2 fd00::1\n";

#[test]
fn a_removed_target_is_forgotten() {
    check(
        &format!("{TWO} 53/udp nodes all:30053 for Service net/dns"),
        "internal eth0\n nodes all 10.0.0.1 fd00::1\n 53/udp nodes all:30053 for Service net/dns",
        expect![[r#"
            conntrack -D -f ipv4 -p udp --orig-port-dst 53 --reply-src 10.0.0.2 --reply-port-src 30053
        "#]],
    );
}

#[test]
fn a_removed_target_of_many_ports_is_forgotten_at_once() {
    let ports = |nodes: &str| {
        let ports = (1..=9).map(|it| format!("{it}/udp nodes all:3000{it} for Service net/many\n"));
        format!("internal eth0\n nodes all {nodes}\n{}", ports.collect::<String>())
    };
    check(
        &ports("10.0.0.1 10.0.0.2"),
        &ports("10.0.0.1"),
        expect![[r#"
            conntrack -D -f ipv4 -p udp --reply-src 10.0.0.2
        "#]],
    );
}

#[test]
fn a_new_port_forgets_what_the_host_itself_was_sent() {
    check(
        TWO,
        &format!("{TWO} 53/udp nodes all:30053 for Service net/dns"),
        expect![[r#"
            conntrack -D -f ipv4 -p udp --orig-port-dst 53 --orig-dst 203.0.113.1
            conntrack -D -f ipv6 -p udp --orig-port-dst 53 --orig-dst fd00:203::1
        "#]],
    );
}

#[test]
fn what_stays_and_what_is_not_udp_is_left_alone() {
    let with = |port: &str| format!("{TWO} {port}\n 53/udp nodes all:30053 for Service net/dns");
    check(
        &with("443/tcp nodes all:1 for Service a/b"),
        &with("444/tcp nodes all:1 for Service a/b"),
        expect![""],
    );
    // Moved to another exposure, it still leads to the same targets.
    check(
        "external eth0\n destinations 203.0.113.1\n nodes all 10.0.0.1\n 53/udp internal nodes all:1 for Service a/b",
        "external eth0\n destinations 203.0.113.1\n nodes all 10.0.0.1\n 53/udp nodes all:1 for Service a/b",
        expect![""],
    );
}

#[test]
fn a_client_that_never_stops_sending_moves_on() -> anyhow::Result<()> {
    let Some(lab) = testkit::require(Lab::new("flows")) else { return Ok(()) };
    for backend in BACKENDS {
        let (host, client) = (lab.machine("host")?, lab.machine("client")?);
        let (old, new) = (lab.machine("old")?, lab.machine("new")?);
        lab.link(&host, "eth0", &["203.0.113.1/24"], &client, "eth0", &["203.0.113.9/24"])?;
        for (node, interface, host_address, address) in [
            (&old, "v1", "10.0.1.254/24", "10.0.1.1/24"),
            (&new, "v2", "10.0.2.254/24", "10.0.2.1/24"),
        ] {
            lab.link(&host, interface, &[host_address], node, "eth0", &[address])?;
            node.route("default", host_address.trim_end_matches("/24"))?;
        }
        host.forwarding(true)?;
        let _servers = [
            old.serve("old", "[::]:30053".parse()?, Protocol::Udp)?,
            new.serve("new", "[::]:30053".parse()?, Protocol::Udp)?,
            host.serve("host", "[::]:53".parse()?, Protocol::Udp)?,
        ];
        // Flows are tracked only from the first rule on that translates addresses.
        apply(&host, backend, &format!("{TWO} 9/udp nodes all:9 for Service net/other"))?;
        let probe = Probe::new("203.0.113.1:53".parse()?, Protocol::Udp);
        let (flow, _) = client.flow(probe)?;
        let flow = flow.expect("the host itself answers");

        for (node, name) in [("10.0.1.1", "old"), ("10.0.2.1", "new")] {
            let before = observe(&host, backend);
            let text = format!(
                "internal eth0\n nodes all {node}\n 53/udp nodes all:30053 for Service net/dns"
            );
            apply(&host, backend, &text)?;
            let bound = flow.ask(SILENCE)?;
            assert_ne!(bound.server(), Some(name), "without us, the flow stays where it was");
            for command in conntrack::stale(&before, &observe(&host, backend), &addresses()) {
                let output = run(&host, &command);
                assert!(output.succeeded() || output.status == Some(1), "{output:?}");
            }
            assert_eq!(flow.ask(SILENCE)?.server(), Some(name), "{backend:?}");
        }
    }
    Ok(())
}

fn apply(host: &Machine, backend: Backend, text: &str) -> anyhow::Result<()> {
    let desired = backend.render(&cases::read(text)?);
    let plan = backend.plan(&desired, &observe(host, backend), &BTreeSet::new());
    for command in plan.commands() {
        assert!(run(host, &command).succeeded());
    }
    Ok(())
}

#[track_caller]
fn check(before: &str, after: &str, expected: Expect) {
    for backend in [Backend::Nftables, Backend::Iptables] {
        let state = |text: &str| -> Observed {
            backend.render(&cases::read(text).expect("it reads")).as_observed()
        };
        let commands = conntrack::stale(&state(before), &state(after), &addresses());
        assert!(commands.iter().all(|it| guard::check(it).is_ok()));
        expected.assert_eq(&commands.iter().map(|it| format!("{it}\n")).collect::<String>());
        let none = conntrack::stale(&state(after), &state(after), &addresses());
        assert_eq!(none, []);
    }
}

fn addresses() -> BTreeSet<IpAddr> {
    ["203.0.113.1", "fd00:203::1"].map(|it| it.parse().expect("an address")).into()
}
