//! Findings about Services whose endpoints agents may not, or cannot, connect to, and about routes
//! that lead to such Services.

use api::annotation::key;
use api::object::ObjectRef;

use super::view::{Key, PublishView};
use crate::finding::{Finding, Severity};
use crate::port_list::PortList;

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
        if !view.refuses_own_host() {
            let by_name = by_name(view, service);
            let unknown = finding(
                Severity::Error,
                "UnsupportedValue",
                "spec.ports[].targetPort",
                by_name.to_string(),
            );
            return (!by_name.is_empty()).then(|| Finding {
                problem: "leads to a port by name, which only pods have; every visitor is refused"
                    .to_owned(),
                remedy: "write the number of the port on the agent's own machine".to_owned(),
                ..unknown
            });
        }
        return Some(Finding {
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

/// The ports of a Service whose `targetPort` is no number.
fn by_name(view: &PublishView, service: &Key) -> PortList {
    let mut ports = PortList::default();
    let form = view.services().get(service);
    for it in form.into_iter().flat_map(|it| &it.ports).filter(|it| it.target.is_none()) {
        ports.push(it.protocol, it.port);
    }
    ports
}

/// The same of a Service that a route leads to, told on the route: nobody may ever look at the
/// Service.
pub(super) fn behind_route(
    view: &PublishView,
    service: &Key,
    route: &ObjectRef,
    on_host: bool,
) -> Option<Finding> {
    let of_service = findings(view, service, route, on_host)?;
    let Finding { field, value, problem, remedy, .. } = &of_service;
    Some(Finding {
        problem: format!("has {field}: {value:?}: {problem}"),
        remedy: format!("for that Service: {remedy}"),
        field: "spec.rules[].backendRefs".to_owned(),
        value: format!("Service {}/{}", service.0, service.1),
        ..of_service
    })
}
