//! How long it takes, far from the limits that the benchmarks hold: a slip of an order of
//! magnitude is seen here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use api::object::{ObjectKind, ObjectRef};
use api::port::{Port, Protocol};
use firewall::{Backend, Observed};
use planner::desired::{Exposure, Forward, ForwardKey, Forwarding, NodeSetName, Targets};
use testkit::Lab;

use crate::kernel::{assert_listed, observe, run};

#[test]
fn one_change_among_ten_thousand_forwards_is_planned_in_milliseconds() {
    for backend in [Backend::Nftables, Backend::Iptables] {
        let observed = backend.render(&many(10_000)).as_observed();
        let more = many(10_001);
        let mut best = Duration::MAX;
        for _ in 0..10 {
            let begin = Instant::now();
            let ruleset = backend.render(&more);
            let rendered = begin.elapsed();
            let plan = backend.plan(&ruleset, &observed, &BTreeSet::new());
            let commands = plan.commands();
            best = best.min(begin.elapsed());
            assert_eq!(plan.steps().count(), 1, "{plan}");
            let length: usize = commands.iter().map(|it| it.stdin.len()).sum();
            assert!(length < 1000, "only what differs is spelled out");
            assert!(rendered <= begin.elapsed());
        }
        report(&format!("{backend:?}: render, plan and spell 1 change of 10 000"), best);
        assert!(best < Duration::from_secs(1), "{best:?}");
    }
}

#[test]
fn thousands_of_forwards_load_in_one_transaction() {
    let Some(lab) = testkit::require(Lab::new("speed")) else { return };
    let host = lab.machine("host").expect("a machine");
    let backend = Backend::Nftables;
    let mut observed = Observed::default();
    for count in [5_000, 60_000, 10_000, 10_001, 10_000] {
        let desired = backend.render(&many(count));
        let plan = backend.plan(&desired, &observed, &BTreeSet::new());
        let commands = plan.commands();
        let [command] = commands.as_slice() else { panic!("one transaction, not {commands:?}") };
        let begin = Instant::now();
        let output = run(&host, command);
        let elapsed = begin.elapsed();
        if lab.is_in_user_namespace() && output.stderr.contains("Message too long") {
            // The size of one transaction is limited there.
            return;
        }
        assert!(output.succeeded(), "{output:?}");
        plan.apply_to(&mut observed);
        report(
            &format!("nft -f of {} bytes, leading to {count} forwards", command.stdin.len()),
            elapsed,
        );
    }
    let begin = Instant::now();
    assert_eq!(observe(&host, backend), observed);
    report("listing and reading 10 000 forwards", begin.elapsed());
    assert_listed(&host, backend, &backend.render(&many(10_000)));
    let backend = Backend::Iptables;
    let mut observed = Observed::default();
    for count in [5_000, 5_001] {
        let desired = backend.render(&many(count));
        let plan = backend.plan(&desired, &observed, &BTreeSet::new());
        let begin = Instant::now();
        for command in plan.commands() {
            let output = run(&host, &command);
            assert!(output.succeeded(), "{output:?}");
        }
        report(&format!("iptables-restore leading to {count} forwards"), begin.elapsed());
        plan.apply_to(&mut observed);
    }
    assert_listed(&host, backend, &backend.render(&many(5_001)));
}

/// So many forwards of ten ports each, to the same two nodes.
fn many(count: u32) -> Forwarding {
    let mut forwarding = Forwarding::default();
    forwarding.entry.internal.insert("eth0".parse().expect("a name"));
    let nodes = ["10.0.0.1", "10.0.0.2"].map(|it| it.parse().expect("an address"));
    forwarding.node_sets.insert(NodeSetName::All, nodes.into());
    let forward = |index: u32| {
        let protocol = if index < 40_000 { Protocol::Tcp } else { Protocol::Udp };
        let port = u16::try_from(index % 40_000 + 1).ok().and_then(Port::new).expect("a port");
        let owner = ObjectRef::namespaced(
            ObjectKind::Service,
            &format!("team-{}", index / 100),
            &format!("service-{}", index / 10),
        );
        let targets = Targets::Nodes { set: NodeSetName::All, port };
        let key = ForwardKey { protocol, port, exposure: Exposure::Everywhere };
        (key, Forward { owner, targets, sources: None, affinity: false })
    };
    forwarding.forwards = (0..count).map(forward).collect::<BTreeMap<_, _>>();
    forwarding
}

/// Shown with `--nocapture`.
fn report(what: &str, time: Duration) {
    use std::io::Write as _;
    let _nobody_listens = writeln!(std::io::stdout(), "{what}: {time:?}");
}
