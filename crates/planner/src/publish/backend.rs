//! Who answers: Services, by route or on their own.

use api::annotation::{self, PublishWish};
use api::gateway_api::BackendRef;
use api::object::{ObjectKind, ObjectRef};
use api::port::{Port, Protocol};
use tunnel_proto::message;

use super::out_of_reach::{self, REFUSED};
use super::publication::{Alternative, ClientAddress, Target};
use super::verdict::Verdict;
use super::view::{Key, PublishView, RouteForm, ServiceForm};
use crate::finding::{Finding, Severity};

/// What became of the references of a route.
#[derive(Clone, Debug)]
pub(super) struct Resolved {
    pub(super) verdict: Verdict,
    pub(super) alternatives: Vec<Alternative>,
}

/// The transport of the connections that a route leads to backends.
pub(super) fn transport(kind: ObjectKind) -> Protocol {
    if kind == ObjectKind::UdpRoute { Protocol::Udp } else { Protocol::Tcp }
}

/// A transport as gateways have it; SCTP, which they have not, counts as TCP and is never asked for.
pub(super) fn on_the_wire(protocol: Protocol) -> message::Protocol {
    match protocol {
        Protocol::Udp => message::Protocol::Udp,
        Protocol::Tcp | Protocol::Sctp => message::Protocol::Tcp,
    }
}

/// Resolves the references of a route. An invalid one keeps its share of the flows.
/// What is out of reach behind it is added to `findings`.
pub(super) fn resolve(
    view: &PublishView,
    route: &ObjectRef,
    form: &RouteForm,
    findings: &mut Vec<Finding>,
) -> Resolved {
    let mut verdict = Verdict::yes("ResolvedRefs");
    let mut alternatives = Vec::new();
    for reference in &form.backends {
        let weight = reference.weight.map_or(1, |it| u32::try_from(it).unwrap_or(0));
        let alternative = match backend(view, route, reference) {
            Ok((service, port)) => {
                let on_host = leads_to_own_host(view, &service);
                if let Some(finding) = out_of_reach::behind_route(view, &service, route, on_host) {
                    if finding.severity == Severity::Error && verdict.is_true {
                        let message = format!("{} {}", finding.value, finding.problem);
                        verdict = Verdict::no(finding.reason, message);
                    }
                    findings.push(finding);
                }
                of_service(view, &service, port, transport(route.kind))
            }
            Err((reason, message)) => {
                if verdict.is_true {
                    verdict = Verdict::no(reason, message.clone());
                }
                invalid(message)
            }
        };
        alternatives.push(Alternative { weight, ..alternative });
    }
    if alternatives.is_empty() {
        verdict = Verdict::no("BackendNotFound", "no rule names a backend");
    }
    Resolved { verdict, alternatives }
}

fn invalid(why: String) -> Alternative {
    Alternative {
        weight: 1,
        target: Target::Invalid(why),
        client_address: ClientAddress::Hidden,
        prefer_local: false,
        affinity: false,
    }
}

/// The Service and port that a reference means; a reason and a message otherwise.
fn backend(
    view: &PublishView,
    route: &ObjectRef,
    reference: &BackendRef,
) -> Result<(Key, Port), (&'static str, String)> {
    let own = route.namespace.as_deref().unwrap_or_default();
    let namespace = reference.namespace.as_deref().unwrap_or(own);
    let (name, kind) = (&reference.name, reference.kind.as_deref().unwrap_or("Service"));
    let group = reference.group.as_deref().unwrap_or_default();
    if !group.is_empty() || kind != "Service" {
        let message = format!("{kind} {namespace}/{name} of group `{group}` is not a Service");
        return Err(("InvalidKind", message));
    }
    let service = (namespace.to_owned(), name.clone());
    if namespace != own && !view.is_granted((route.kind, own), kind, &service) {
        let message = format!(
            "no ReferenceGrant in namespace {namespace} allows a {} of namespace {own} to use \
             Service {name}",
            route.kind
        );
        return Err(("RefNotPermitted", message));
    }
    let Some(form) = view.services().get(&service) else {
        let message = format!("there is no Service {namespace}/{name}");
        return Err(("BackendNotFound", message));
    };
    if form.external {
        let message = format!(
            "Service {namespace}/{name} is of type ExternalName, which leads out of the cluster"
        );
        return Err(("UnsupportedValue", message));
    }
    let port = reference.port.and_then(|it| u16::try_from(it).ok()).and_then(Port::new);
    let protocol = transport(route.kind);
    let known = |it: &Port| form.port(protocol, *it).is_some();
    let Some(port) = port.filter(known) else {
        let other = form.ports.iter().any(|it| Some(it.port) == port);
        let reason = if other { "UnsupportedProtocol" } else { "BackendNotFound" };
        let port = reference.port.unwrap_or_default();
        let message = format!("Service {namespace}/{name} has no port {port}/{protocol}");
        return Err((reason, message));
    };
    Ok((service, port))
}

/// Whether a Service asks for programs on the agent's own machine.
fn leads_to_own_host(view: &PublishView, service: &Key) -> bool {
    let wish = view.services().get(service).and_then(|it| it.annotated.wish.as_deref());
    wish.is_some_and(|it| it.on_host)
}

/// One port of a Service as an alternative.
fn of_service(view: &PublishView, service: &Key, port: Port, protocol: Protocol) -> Alternative {
    let Some(form) = view.services().get(service) else {
        return invalid(format!("there is no Service {}/{}", service.0, service.1));
    };
    let wish = form.annotated.wish.as_deref();
    let on_host = leads_to_own_host(view, service);
    let own = wish.and_then(|it| it.client_address.at(port));
    Alternative {
        client_address: client_address(own, protocol),
        ..to_service(view, service, form, port, protocol, on_host)
    }
}

/// One port of a Service as an alternative, without anything about client addresses.
pub(super) fn to_service(
    view: &PublishView,
    service: &Key,
    form: &ServiceForm,
    port: Port,
    protocol: Protocol,
    on_host: bool,
) -> Alternative {
    let found = form.port(protocol, port);
    let target = match (found, on_host) {
        (None, _) => Target::Invalid(format!("the Service has no port {port}/{protocol}")),
        (Some(_), true) if view.refuses_own_host() => Target::Invalid(REFUSED.to_owned()),
        (Some(it), true) => match it.target {
            Some(target) => Target::OwnHost(([127, 0, 0, 1], target.get()).into()),
            None => Target::Invalid(format!("targetPort of port {port} is not a number")),
        },
        (Some(it), false) => {
            Target::Endpoints(view.endpoints(service, &it.name, protocol, form.prefers_ipv6))
        }
    };
    Alternative {
        weight: 1,
        target,
        client_address: ClientAddress::Hidden,
        prefer_local: form.prefer_local,
        affinity: form.affinity,
    }
}

/// How a backend learns who the visitor is. Version 1 of the PROXY protocol knows TCP alone.
pub(super) fn client_address(
    wanted: Option<annotation::ClientAddress>,
    protocol: Protocol,
) -> ClientAddress {
    match wanted {
        Some(annotation::ClientAddress::ProxyV1) if protocol == Protocol::Tcp => {
            ClientAddress::ProxyV1
        }
        Some(annotation::ClientAddress::ProxyV2) => ClientAddress::ProxyV2,
        Some(annotation::ClientAddress::Transparent) => ClientAddress::Transparent,
        Some(annotation::ClientAddress::ProxyV1) | None => ClientAddress::Hidden,
    }
}

/// What a wish says about client addresses at one public port.
pub(super) fn wanted_at(
    wish: Option<&PublishWish>,
    port: Port,
) -> Option<annotation::ClientAddress> {
    wish.and_then(|it| it.client_address.at(port))
}
