//! What a host could print for `nft -j list table`.
#![cfg_attr(fuzzing, no_main)]

use std::collections::BTreeSet;

use api::object::{ObjectKind, ObjectRef};
use command::Output;
use firewall::{Backend, Observed, guard};
use planner::desired::Forwarding;

/// A listing is refused in one line, or whatever it holds can be planned away in steps of one line
/// each, by commands that the host itself would permit, and back.
pub(crate) fn law(input: &[u8]) {
    let Ok(stdout) = std::str::from_utf8(input) else { return };
    let backend = Backend::Nftables;
    let output = Output { status: Some(0), stdout: stdout.to_owned(), stderr: String::new() };
    let observed = match backend.observe(&[output]) {
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
    let removal = backend.cleanup(&observed);
    assert!(removal.commands().iter().all(|it| guard::check(it) == Ok(())));
}

fn planned(backend: Backend, before: &Observed, keep: &BTreeSet<ObjectRef>) {
    let desired = backend.render(&Forwarding::default());
    let plan = backend.plan(&desired, before, keep);
    for step in plan.steps() {
        assert!(!step.contains(char::is_control), "more than a line: {step:?}");
    }
    for command in plan.commands().iter().chain(&plan.rollback(before)) {
        assert_eq!(guard::check(command), Ok(()), "{}", command.stdin);
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
