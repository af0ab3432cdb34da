//! What a host could print for `iptables-save`.
#![cfg_attr(fuzzing, no_main)]

use std::collections::BTreeSet;

use api::object::{ObjectKind, ObjectRef};
use command::{Command, Output};
use firewall::guard::{self, Refusal};
use firewall::{Backend, Observed};
use planner::desired::Forwarding;

/// A listing is refused in one line, or what it holds of ours can be planned away in steps of one
/// line each, by commands that the host itself would permit, and back.
pub(crate) fn law(input: &[u8]) {
    let Ok(stdout) = std::str::from_utf8(input) else { return };
    let backend = Backend::Iptables;
    let output = Output { status: Some(0), stdout: stdout.to_owned(), stderr: String::new() };
    let observed = match backend.observe(&[output.clone(), output]) {
        Ok(observed) => observed,
        Err(error) => {
            assert!(!error.to_string().contains(char::is_control), "more than a line: {error}");
            return;
        }
    };
    let owners = BTreeSet::from([
        ObjectRef::namespaced(ObjectKind::Service, "web", "blog"),
        ObjectRef::namespaced(ObjectKind::Pod, "net", "dns-0"),
    ]);
    for keep in [BTreeSet::new(), owners] {
        planned(backend, &observed, &keep);
    }
    for command in backend.cleanup(&observed).commands() {
        permitted(&command);
    }
}

/// A jump into our chains that matches packets in a way that the guard does not know, or from a
/// chain whose name cannot be written, is told, and somebody has to remove it by hand.
fn permitted(command: &Command) {
    let jump = |line: &str| {
        let chain = line.strip_prefix("-D ").and_then(|it| it.split(' ').next());
        let inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        chain.is_some_and(|it| !it.starts_with("PORTCULLIS-") || !it.chars().all(inner))
    };
    match guard::check(command) {
        Ok(()) => {}
        Err(Refusal::Line { line, .. }) if jump(&line) => {}
        Err(refusal) => panic!("{refusal} in {}", command.stdin),
    }
}

fn planned(backend: Backend, before: &Observed, keep: &BTreeSet<ObjectRef>) {
    let desired = backend.render(&Forwarding::default());
    let plan = backend.plan(&desired, before, keep);
    for step in plan.steps() {
        assert!(!step.contains(char::is_control), "more than a line: {step:?}");
    }
    for command in plan.commands().iter().chain(&plan.rollback(before)) {
        permitted(command);
    }
    let mut after = before.clone();
    plan.apply_to(&mut after);
    if keep.is_empty() {
        assert_eq!(after, desired.as_observed());
    }
    let second = backend.plan(&desired, &after, keep);
    assert!(second.is_empty(), "a second run must find nothing to do: {second}");
}

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| law(input));
