//! Findings about Services whose endpoints agents may not, or cannot, connect to.

use api::annotation::key;
use api::object::ObjectRef;

use super::view::{Key, PublishView};
use crate::finding::{Finding, Severity};

/// Why nothing leads to the agent's own machine, for people.
pub(super) const REFUSED: &str =
    "agents may not lead visitors to their own machines; start them with --allow-host-target";

/// What is out of reach behind a Service that asks to be published; `on_host` when it asks for
/// programs on the agent's own machine.
pub(super) fn findings(
    view: &PublishView,
    service: &Key,
    owner: &ObjectRef,
    on_host: bool,
) -> Option<Finding> {
    let finding = |severity, reason, field: &str, value: String| Finding {
        severity,
        reason,
        object: owner.clone(),
        field: field.to_owned(),
        value,
        problem: String::new(),
        remedy: String::new(),
    };
    if on_host {
        let refused = finding(Severity::Error, "OwnHostNotAllowed", key::TARGET, "host".to_owned());
        return view.refuses_own_host().then(|| Finding {
            problem: "agents may not lead visitors to their own machines; every visitor is refused"
                .to_owned(),
            remedy: "start the agents with --allow-host-target, or leave the annotation out"
                .to_owned(),
            ..refused
        });
    }
    let addresses: Vec<_> = view.left_out(service).iter().map(ToString::to_string).collect();
    let unusable = finding(
        Severity::Warning,
        "UnusableEndpoint",
        "endpoints[].addresses",
        addresses.join(", "),
    );
    (!addresses.is_empty()).then(|| Finding {
        problem: "no other machine can reach such an address; these endpoints are left out"
            .to_owned(),
        remedy: "write portcullis.dev/target: host for a program on the agent's own machine, or \
                 an address that agents can reach"
            .to_owned(),
        ..unusable
    })
}
