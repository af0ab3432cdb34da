//! The statuses of the kinds of the Gateway API.

use std::net::IpAddr;

use api::gateway_api::{
    CONTROLLER_NAME, GROUP, GatewayClassStatus, GatewayStatus, GatewayStatusAddress,
    ListenerSetStatus, ListenerStatus, RouteGroupKind, RouteParentStatus, SupportedFeature,
};

use super::live::Live;
use super::{StatusPatch, condition};
use crate::publish::attach::BY_HOST;
use crate::publish::attachment::{
    Attachments, ClassAttachment, GatewayAttachment, ListenerAttachment, RouteAttachment,
    SetAttachment,
};
use crate::publish::verdict::Verdict;
use crate::publish::view::Support;

/// The release of the Gateway API whose definitions are understood.
const RELEASE: &str = "v1.6.";

pub(super) fn class(class: &ClassAttachment, attachments: &Attachments) -> StatusPatch {
    let generation = class.generation;
    let mut conditions = vec![condition("Accepted", generation, &class.accepted)];
    if let Some(bundle) = &attachments.bundle {
        let verdict = match bundle.starts_with(RELEASE) {
            true => Verdict::yes("SupportedVersion"),
            false => Verdict::no(
                "UnsupportedVersion",
                format!("the Gateway API's definitions are of {bundle}; {RELEASE}x is supported"),
            ),
        };
        conditions.push(condition("SupportedVersion", generation, &verdict));
    }
    let supported_features = features(attachments.support);
    let status = GatewayClassStatus { conditions, supported_features };
    StatusPatch::GatewayClass { name: class.name.clone(), status }
}

/// The features whose conformance tests pass, in ascending order. The tests of several features
/// that have nothing to do with HTTP use listeners of protocol HTTP and HTTPS.
fn features(support: Support) -> Vec<SupportedFeature> {
    let mut names = vec!["Gateway", "ReferenceGrant", "TCPRoute", "TLSRoute", "UDPRoute"];
    if support.http && support.terminate {
        names.extend(["GatewayAddressEmpty", "GatewayStaticAddresses", "ListenerSet"]);
    }
    if support.terminate {
        names.extend(["TLSRouteModeMixed", "TLSRouteModeTerminate"]);
    }
    names.sort_unstable();
    names.into_iter().map(|it| SupportedFeature { name: it.to_owned() }).collect()
}

pub(super) fn gateway(gateway: &GatewayAttachment, live: &Live<'_>) -> StatusPatch {
    let generation = gateway.generation;
    let listeners: Vec<_> = gateway
        .listeners
        .iter()
        .map(|it| (it, listener_programmed(it, &gateway.accepted, gateway.has_edges, live)))
        .collect();
    let programmed = gateway_programmed(gateway, &listeners);
    let places = gateway.listeners.iter().flat_map(|it| &it.got.places);
    let status = GatewayStatus {
        addresses: live.addresses(places).into_iter().map(address).collect(),
        conditions: vec![
            condition("Accepted", generation, &gateway.accepted),
            condition("Programmed", generation, &programmed),
        ],
        listeners: listeners
            .iter()
            .map(|(it, programmed)| listener(it, generation, programmed))
            .collect(),
        attached_listener_sets: Some(gateway.attached_sets),
    };
    StatusPatch::Gateway { object: gateway.object.clone(), status }
}

fn gateway_programmed(
    gateway: &GatewayAttachment,
    listeners: &[(&ListenerAttachment, Verdict)],
) -> Verdict {
    if !gateway.accepted.is_true {
        return Verdict::no("Invalid", gateway.accepted.message.clone());
    }
    if !gateway.unusable.is_empty() {
        let addresses = gateway.unusable.join(", ");
        let message = format!("none of its gateways offers {addresses}; name an address of one");
        return Verdict::no("AddressNotUsable", message);
    }
    if !gateway.has_edges {
        return Verdict::no(
            "NoResources",
            "there is no EdgeGateway for it; create one with portcullis gateway create",
        );
    }
    let sound = listeners.iter().filter(|(it, _)| it.accepted.is_true && !it.lacks_certificate);
    let failed = sound.clone().filter(|(_, it)| !it.is_true);
    let sentences: Vec<_> =
        failed.clone().map(|(it, why)| format!("listener {}: {}", it.name, why.message)).collect();
    let message = sentences.join("; ");
    if listeners.iter().any(|(_, it)| it.is_true) {
        return Verdict::yes("Programmed").with(message);
    }
    match failed.clone().find(|(_, it)| it.reason != "Pending") {
        Some((_, why)) => Verdict::no(why.reason, message),
        None if sound.count() == 0 => {
            Verdict::no("Invalid", "none of its listeners can be opened: certificates are missing")
        }
        None => Verdict::no("Pending", message),
    }
}

fn listener_programmed(
    listener: &ListenerAttachment,
    owner: &Verdict,
    has_edges: bool,
    live: &Live<'_>,
) -> Verdict {
    if let Some(reason) = listener.conflict {
        return Verdict::no(reason, listener.accepted.message.clone());
    }
    if !listener.accepted.is_true {
        return Verdict::no("Invalid", listener.accepted.message.clone());
    }
    if listener.lacks_certificate {
        return Verdict::no("Invalid", listener.resolved.message.clone());
    }
    if !owner.is_true {
        return Verdict::no("Invalid", owner.message.clone());
    }
    let verdict = live.published(&listener.got, has_edges, "Programmed").0;
    match verdict.is_true && listener.needs_host {
        true => verdict.with(format!("connections are refused: {BY_HOST}")),
        false => verdict,
    }
}

pub(super) fn listener_set(set: &SetAttachment, live: &Live<'_>) -> StatusPatch {
    let generation = set.generation;
    let listeners: Vec<_> = set
        .listeners
        .iter()
        .map(|it| (it, listener_programmed(it, &set.accepted, true, live)))
        .collect();
    let programmed = match listeners.iter().find(|(_, it)| it.is_true) {
        _ if !set.accepted.is_true => {
            Verdict::no(set.accepted.reason, set.accepted.message.clone())
        }
        Some(_) => Verdict::yes("Programmed"),
        None => listeners
            .iter()
            .find(|(it, _)| it.accepted.is_true && !it.lacks_certificate)
            .map_or_else(|| Verdict::no("Pending", ""), |(_, it)| it.clone()),
    };
    let status = ListenerSetStatus {
        conditions: vec![
            condition("Accepted", generation, &set.accepted),
            condition("Programmed", generation, &programmed),
        ],
        listeners: listeners
            .iter()
            .map(|(it, programmed)| listener(it, generation, programmed))
            .collect(),
    };
    StatusPatch::ListenerSet { object: set.object.clone(), status }
}

fn listener(
    listener: &ListenerAttachment,
    generation: Option<i64>,
    programmed: &Verdict,
) -> ListenerStatus {
    let conflicted = match listener.conflict {
        // The sense of this condition is turned round: true is bad.
        Some(reason) => Verdict::yes(reason).with(listener.accepted.message.clone()),
        None => Verdict::no("NoConflicts", ""),
    };
    let kinds = listener.kinds.iter();
    ListenerStatus {
        name: listener.name.clone(),
        supported_kinds: kinds
            .map(|it| RouteGroupKind { group: Some(GROUP.to_owned()), kind: it.name().to_owned() })
            .collect(),
        attached_routes: listener.attached,
        conditions: vec![
            condition("Accepted", generation, &listener.accepted),
            condition("Programmed", generation, programmed),
            condition("ResolvedRefs", generation, &listener.resolved),
            condition("Conflicted", generation, &conflicted),
        ],
    }
}

fn address(value: String) -> GatewayStatusAddress {
    let type_ = if value.parse::<IpAddr>().is_ok() { "IPAddress" } else { "Hostname" };
    GatewayStatusAddress { type_: Some(type_.to_owned()), value }
}

pub(super) fn route(route: &RouteAttachment) -> StatusPatch {
    let parent = |(reference, accepted): &(_, Verdict)| RouteParentStatus {
        parent_ref: Clone::clone(reference),
        controller_name: CONTROLLER_NAME.to_owned(),
        conditions: vec![
            condition("Accepted", route.generation, accepted),
            condition("ResolvedRefs", route.generation, &route.resolved),
        ],
    };
    let parents = route.parents.iter().map(parent).collect();
    StatusPatch::Route { object: route.object.clone(), parents }
}
