//! Services that ask to be published, by class or by annotation.

use std::collections::{BTreeMap, BTreeSet};

use api::annotation::gateway_ports::GatewayPort;
use api::annotation::key;
use api::object::{ObjectKind, ObjectRef};
use api::port::{Port, Protocol};
use api::source_range::SourceRanges;
use tunnel_proto::message::Limits;

use super::backend::{client_address, on_the_wire, to_service, wanted_at};
use super::claim::{Claim, Item, keyed, ranges};
use super::listeners::chosen;
use super::out_of_reach;
use super::publication::{Alternative, Backend, ClientAddress};
use super::view::{Key, PublishView, ServiceForm, object};
use crate::finding::{Finding, Severity};
use crate::port_list::PortList;

/// A Service that asks to be published.
#[derive(Debug)]
pub(super) struct ServiceState<'a> {
    pub(super) form: &'a ServiceForm,
    /// What it claims; `None` when it cannot be understood and never could.
    pub(super) claim: Option<Claim<'a>>,
    /// Whether there is a claim, and whether any EdgeGateway is there for it.
    pub(super) understood: bool,
    pub(super) has_edges: bool,
    /// Why it claims nothing, or less than it asks for.
    pub(super) findings: Vec<Finding>,
}

/// Every Service that asks to be published. What they lead to is added to `backends`.
pub(super) fn of_services<'a>(
    view: &'a PublishView,
    backends: &mut BTreeMap<String, Backend>,
) -> BTreeMap<ObjectRef, ServiceState<'a>> {
    let asking = view.services().iter().filter(|(_, it)| it.asks() || it.mentions);
    let states = asking.map(|(key, form)| {
        let owner = object(ObjectKind::Service, key);
        let mut findings = form.annotated.findings.clone();
        let understood = form.annotated.wish.is_some();
        let claim =
            understood.then(|| claim(view, key, form, owner.clone(), backends, &mut findings));
        let has_edges = claim.as_ref().is_some_and(|it| !it.edges.is_empty());
        (owner, ServiceState { form, claim, understood, has_edges, findings })
    });
    states.collect()
}

fn claim<'a>(
    view: &'a PublishView,
    key: &Key,
    form: &'a ServiceForm,
    owner: ObjectRef,
    backends: &mut BTreeMap<String, Backend>,
    findings: &mut Vec<Finding>,
) -> Claim<'a> {
    let wish = form.annotated.wish.as_deref();
    let edges = chosen(view, &owner, wish.and_then(|it| it.gateways.as_ref()), findings);
    let sources = sources(form, &owner, findings);
    let ports = match &sources {
        Ok(_) => ports(form, &owner, findings),
        // Nobody is allowed, so nothing is opened.
        Err(()) => Vec::new(),
    };
    let allow_from = ranges(sources.ok().flatten().as_ref());
    let limit = |read: fn(&api::annotation::PublishWish) -> Option<std::num::NonZeroU32>| {
        wish.and_then(read).map_or(0, std::num::NonZeroU32::get)
    };
    let limits =
        Limits { new_per_second: limit(|it| it.max_new_per_second), open: limit(|it| it.max_open) };
    let field = match wish.is_some_and(|it| it.ports.is_some()) {
        true => key::GATEWAY_PORTS,
        false => "spec.ports",
    };
    let on_host = wish.is_some_and(|it| it.on_host);
    findings.extend(out_of_reach::findings(view, key, &owner, on_host));
    let mut proxied_udp = PortList::default();
    let items = ports.into_iter().map(|(public, protocol, port)| {
        let wanted = wanted_at(wish, public);
        let client_address = client_address(wanted, protocol);
        if wanted.is_some() && client_address == ClientAddress::Hidden {
            proxied_udp.push(protocol, public);
        }
        let name = format!("{protocol}:{}/{}:{port}", key.0, key.1);
        let name = keyed(name, client_address, on_host);
        let backend = || {
            let alternative = to_service(view, key, form, port, protocol, on_host);
            let alternatives = vec![Alternative { client_address, ..alternative }];
            Backend { protocol: on_the_wire(protocol), alternatives, tls: None }
        };
        backends.entry(name.clone()).or_insert_with(backend);
        let hostnames = wish.and_then(|it| it.hostnames.as_ref());
        let hostnames = hostnames.filter(|_| protocol == Protocol::Tcp);
        let names = hostnames.map(|it| it.iter().cloned().collect::<Vec<_>>());
        let every = || [api::server_name::ServerName::Any].into();
        let routes = names.clone().unwrap_or_else(every);
        Item {
            owner: owner.clone(),
            listener: None,
            field,
            label: owner.to_string(),
            protocol,
            port: public,
            names,
            routes: routes.into_iter().map(|it| (it, name.clone())).collect(),
            allow_from: allow_from.clone(),
            limits,
        }
    });
    let items = items.collect();
    if !proxied_udp.is_empty() {
        findings.push(Finding {
            severity: Severity::Warning,
            reason: "ProxyProtocolWithoutUdp",
            object: owner.clone(),
            field: key::PROXY_PROTOCOL.to_owned(),
            value: proxied_udp.to_string(),
            problem: "version 1 of the PROXY protocol knows TCP alone; these ports get no header"
                .to_owned(),
            remedy: "write v2 for them".to_owned(),
        });
    }
    Claim {
        created: form.meta.created,
        edges,
        asked: form.load_balancer_ip.as_deref().into_iter().collect(),
        current: &form.current,
        alone: false,
        items,
        owner,
    }
}

/// The public ports with the ports of the Service that they lead to; no public port of a protocol
/// twice.
fn ports(
    form: &ServiceForm,
    owner: &ObjectRef,
    findings: &mut Vec<Finding>,
) -> Vec<(Port, Protocol, Port)> {
    let (mut missing, mut sctp) = (PortList::default(), PortList::default());
    let mut seen = BTreeSet::new();
    let mut ports = Vec::new();
    match form.annotated.wish.as_ref().and_then(|it| it.ports.as_ref()) {
        Some(wanted) => {
            for GatewayPort { port: public, protocol, target } in wanted.iter() {
                let mut same = form.ports.iter().filter(|it| it.protocol == protocol);
                let found = match target {
                    Some(target) => form.port(protocol, target),
                    None => form
                        .port(protocol, public)
                        .or_else(|| same.next().filter(|_| same.next().is_none())),
                };
                match found {
                    Some(it) => ports.push((public, protocol, it.port)),
                    None => missing.push(protocol, public),
                }
            }
        }
        None => {
            for it in &form.ports {
                match it.protocol {
                    Protocol::Sctp => sctp.push(it.protocol, it.port),
                    Protocol::Tcp | Protocol::Udp if seen.insert((it.protocol, it.port)) => {
                        ports.push((it.port, it.protocol, it.port));
                    }
                    Protocol::Tcp | Protocol::Udp => {}
                }
            }
        }
    }
    let mut finding = |reason, field: &str, ports: PortList, problem: &str, remedy: &str| {
        if !ports.is_empty() {
            findings.push(Finding {
                severity: Severity::Error,
                reason,
                object: owner.clone(),
                field: field.to_owned(),
                value: ports.to_string(),
                problem: problem.to_owned(),
                remedy: remedy.to_owned(),
            });
        }
    };
    finding(
        "MissingServicePort",
        key::GATEWAY_PORTS,
        missing,
        "no port of this Service says where it leads; not published",
        "write PUBLIC:SERVICE with a port of the Service, such as 443:8443",
    );
    finding(
        "UnsupportedProtocol",
        "spec.ports",
        sctp,
        "tunnels do not carry SCTP; not published",
        "name the other ports in portcullis.dev/gateway-ports",
    );
    ports
}

/// Who may connect; `Err` when nobody may.
fn sources(
    form: &ServiceForm,
    owner: &ObjectRef,
    findings: &mut Vec<Finding>,
) -> Result<Option<SourceRanges>, ()> {
    let annotated = form.annotated.wish.as_ref().and_then(|it| it.sources.as_ref());
    match (annotated, &form.ranges) {
        (Some(a), Some(b)) => a.intersection(b).map(Some).ok_or_else(|| {
            findings.push(Finding {
                severity: Severity::Error,
                reason: "NobodyAllowed",
                object: owner.clone(),
                field: "spec.loadBalancerSourceRanges".to_owned(),
                value: b.to_string(),
                problem: format!(
                    "shares no address with the annotation's list ({a}); nobody is allowed, so \
                     nothing is published"
                ),
                remedy: "keep one of the two lists, or make them overlap".to_owned(),
            });
        }),
        (Some(it), None) | (None, Some(it)) => Ok(Some(it.clone())),
        (None, None) => Ok(None),
    }
}
