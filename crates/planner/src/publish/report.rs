//! What to tell users about what they did not get.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::annotation::key;
use api::object::ObjectRef;
use api::server_name::ServerName;

use super::claim::Claim;
use super::place::{Placement, Why};
use crate::finding::{Finding, Severity};
use crate::port_list::PortList;

/// Why something was not got, in one word.
pub(super) fn reason(why: &Why) -> &'static str {
    match why {
        Why::Taken(..) | Why::OtherLists(..) => "PortConflict",
        Why::NotGranted => "NotGranted",
        Why::TooMany => "TooManyPorts",
        Why::Tunnel => "PortIsTunnel",
    }
}

/// Why something was not got, and what to do.
pub(super) fn explain(edge: &str, why: &Why) -> (String, &'static str) {
    match why {
        Why::Taken(winner, address) => (
            format!(
                "taken {} by {winner}, which comes first (the older object, then by \
                 kind, namespace and name); not published there",
                at(edge, *address)
            ),
            "choose another port, another gateway with portcullis.dev/gateway, or other host names",
        ),
        Why::OtherLists(winner, address) => (
            format!(
                "shared {} with {winner}, which comes first and lets in others or sets other \
                 limits; a port has one allow list, so it is not published there",
                at(edge, *address)
            ),
            "make allow lists and limits the same, or choose another port or gateway",
        ),
        Why::NotGranted => (
            format!("no grant of gateway {edge} allows it to this namespace; not published there"),
            "ask whoever owns the EdgeGateway for an entry in spec.grants",
        ),
        Why::TooMany => (
            format!(
                "the namespace has all ports that gateway {edge} grants it; not published there"
            ),
            "give up other ports there, or ask whoever owns the EdgeGateway for more (maxPorts)",
        ),
        Why::Tunnel => (
            format!("is the port by which agents dial gateway {edge}; not published there"),
            "choose another port, or another port for the tunnel in spec.endpoints",
        ),
    }
}

fn at(edge: &str, address: Option<IpAddr>) -> String {
    match address {
        Some(address) => format!("at {address} of gateway {edge}"),
        None => format!("on gateway {edge}"),
    }
}

/// What claims did not get, that of one object and one kind together.
pub(super) fn losses(claims: &[Claim<'_>], placement: &Placement) -> Vec<Finding> {
    type Same<'a> = (&'a ObjectRef, &'a str, &'a Why, &'static str, Option<&'a ServerName>);
    let mut together: BTreeMap<Same<'_>, PortList> = BTreeMap::new();
    for (claim, losses) in claims.iter().zip(&placement.losses) {
        for loss in losses {
            let item = &claim.items[loss.item];
            let same = (&item.owner, loss.edge.as_str(), &loss.why, item.field, loss.name.as_ref());
            together.entry(same).or_default().push(item.protocol, item.port);
        }
    }
    let finding = |((owner, edge, why, field, name), ports): (Same<'_>, PortList)| {
        let (problem, remedy) = explain(edge, why);
        let (field, value) = match name {
            Some(name) if field != "spec.listeners" => {
                (key::HOSTNAMES, format!("{name} ({ports})"))
            }
            Some(name) => (field, format!("{ports} for {name}")),
            None => (field, ports.to_string()),
        };
        Finding {
            severity: Severity::Error,
            reason: reason(why),
            object: owner.clone(),
            field: field.to_owned(),
            value,
            problem,
            remedy: remedy.to_owned(),
        }
    };
    let mut findings: Vec<_> = together.into_iter().map(finding).collect();
    findings.extend(claims.iter().zip(&placement.unusable).flat_map(unusable));
    findings
}

/// Addresses that nobody offers.
fn unusable<'a>(
    (claim, addresses): (&'a Claim<'_>, &'a Vec<String>),
) -> impl Iterator<Item = Finding> + 'a {
    let of_service = claim.owner.kind == api::object::ObjectKind::Service;
    addresses.iter().map(move |address| Finding {
        severity: Severity::Error,
        reason: "AddressNotUsable",
        object: claim.owner.clone(),
        field: if of_service { "spec.loadBalancerIP" } else { "spec.addresses" }.to_owned(),
        value: address.clone(),
        problem: "none of its gateways offers this address".to_owned(),
        remedy: "name one of spec.addresses of an EdgeGateway, or none to take any".to_owned(),
    })
}
