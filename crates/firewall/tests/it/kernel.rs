//! The real kernel's opinion: everything loads twice, lists back identically, and every change is
//! taken as planned.

use std::cell::RefCell;
use std::collections::BTreeSet;

use command::{Command, Output};
use firewall::{Backend, Observed, Ruleset};
use planner::desired::Forwarding;
use proptest::test_runner::{Config, TestRunner};
use testkit::{Lab, Machine};

use crate::laws::{BACKENDS, forwarding};

#[test]
fn any_ruleset_lists_back_as_rendered_and_any_change_is_taken() {
    let Some(lab) = testkit::require(Lab::new("firewall-laws")) else { return };
    let host = lab.machine("host").expect("a machine");
    for backend in BACKENDS {
        let mut runner = TestRunner::new(Config { cases: 40, ..Config::default() });
        let previous = RefCell::new(Forwarding::default());
        let outcome = runner.run(&forwarding(), |new| {
            let old = previous.replace(new.clone());
            change(&host, backend, &old, &new);
            Ok(())
        });
        outcome.unwrap_or_else(|error| panic!("{backend:?}: {error}"));
    }
}

/// From wherever the host is to `old` by a plan, then to `new`, each read back.
fn change(host: &Machine, backend: Backend, old: &Forwarding, new: &Forwarding) {
    for forwarding in [old, new] {
        let desired = backend.render(forwarding);
        let before = observe(host, backend);
        let plan = backend.plan(&desired, &before, &BTreeSet::new());
        for command in plan.commands() {
            let output = run(host, &command);
            assert!(output.succeeded(), "{output:?}\n{}\nplan:\n{plan}", command.stdin);
        }
        assert_listed(host, backend, &desired);
    }
}

/// Runs what a controller would run on the host.
pub(crate) fn run(host: &Machine, command: &Command) -> Output {
    let args: Vec<_> = command.args.iter().map(String::as_str).collect();
    let output = host.output(command.program.name(), &args, &command.stdin).expect("it starts");
    Output { status: output.status.code(), stdout: output.stdout, stderr: output.stderr }
}

/// Reads what the host has of ours.
pub(crate) fn observe(host: &Machine, backend: Backend) -> Observed {
    let everything = planner::desired::Options { accept_forwarded: true, ..Default::default() };
    let outputs: Vec<_> = backend.listing(everything).iter().map(|it| run(host, it)).collect();
    backend.observe(&outputs).unwrap_or_else(|error| panic!("{error}: {outputs:?}"))
}

/// Asserts that the host has exactly what was rendered.
#[track_caller]
pub(crate) fn assert_listed(host: &Machine, backend: Backend, desired: &Ruleset) {
    let observed = observe(host, backend);
    let left = backend.plan(desired, &observed, &BTreeSet::new());
    assert_eq!(observed, desired.as_observed(), "drift seen:\n{left}");
}
