//! What to tell users about the plan of one host.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::annotation::key;
use api::host::HostSettings;
use api::object::{ObjectKind, ObjectRef};
use api::port::{Port, Protocol};

use super::HostDesired;
use super::settle::Trouble;
use super::standing::is_open;
use crate::cluster_view::ClusterView;
use crate::cluster_view::wish::Wish;
use crate::desired::{Destinations, Exposure, Forward, ForwardKey, Forwarding, IpFamily};
use crate::finding::{Finding, Severity};
use crate::host_view::HostView;
use crate::port_list::PortList;

/// A trouble with one port, and whose it is.
#[derive(Debug)]
pub(super) struct PortTrouble {
    pub(super) wish: Arc<Wish>,
    pub(super) trouble: Trouble,
}

/// The range from which Kubernetes takes node ports unless told otherwise
/// (`--service-node-port-range`).
const NODE_PORTS: [u16; 2] = [30_000, 32_767];

/// What is wrong beside single objects, as far as it concerns this host.
pub(super) fn of_this_plan(
    host: &str,
    view: &ClusterView,
    facts: &HostView,
    settings: &HostSettings,
    desired: &HostDesired,
    troubles: &BTreeMap<(Protocol, Port), Vec<PortTrouble>>,
) -> Vec<Finding> {
    let mut findings = view.host_findings(host).to_vec();
    findings.extend(view.node_findings().cloned());
    findings.extend(of_host(host, view, facts, settings, &desired.forwarding));
    findings.extend(of_ports(host, troubles));
    findings.extend(in_the_way(host, view, facts, &desired.forwarding));
    findings
}

/// What is wrong with Services and Pods themselves. An object that is for other hosts alone is
/// their concern; one that is for no host that exists is everybody's.
pub(super) fn of_objects(host: &str, view: &ClusterView) -> Vec<Finding> {
    let mut found = Vec::new();
    for (findings, wish) in view.noted() {
        let hosts = wish.and_then(|it| it.hosts.as_ref().map(|hosts| (it, hosts)));
        if let Some((wish, hosts)) = hosts {
            let (known, unknown): (Vec<_>, Vec<_>) =
                hosts.iter().partition(|it| view.has_host(it.as_str()));
            if !known.is_empty() && !wish.is_for(host) {
                continue;
            }
            found.extend(unknown.into_iter().map(|it| unknown_host(wish, it.as_str(), view)));
        }
        found.extend(findings.iter().cloned());
    }
    found
}

fn unknown_host(wish: &Wish, name: &str, view: &ClusterView) -> Finding {
    let known: Vec<_> = view.host_names().collect();
    Finding {
        severity: Severity::Error,
        reason: "UnknownHost",
        object: wish.owner.clone(),
        field: key::HOST.to_owned(),
        value: name.to_owned(),
        problem: "there is no Host of this name".to_owned(),
        remedy: format!("name one of: {}; or leave the annotation out for all", known.join(", ")),
    }
}

/// What is wrong between a Host and the host that it describes.
fn of_host(
    host: &str,
    view: &ClusterView,
    facts: &HostView,
    settings: &HostSettings,
    forwarding: &Forwarding,
) -> Vec<Finding> {
    let finding =
        |severity, reason, field: &str, value: String, problem: &str, remedy: &str| Finding {
            severity,
            reason,
            object: ObjectRef::cluster(ObjectKind::Host, host),
            field: field.to_owned(),
            value,
            problem: problem.to_owned(),
            remedy: remedy.to_owned(),
        };
    let mut found = Vec::new();
    for missing in settings.interfaces.iter().filter(|it| !facts.addresses.contains_key(it)) {
        found.push(finding(
            Severity::Warning,
            "InterfaceMissing",
            "spec.interfaces",
            missing.to_string(),
            "the host has no interface of this name now; nothing comes in through it",
            "correct the name as `ip link` shows it on the host",
        ));
    }
    if let Some(external) = &settings.external_interface
        && facts.addresses_of(external).next().is_none()
    {
        let problem = if is_open(&forwarding.entry) {
            "it has no address, so only spec.extraInternalAddresses are forwarded"
        } else {
            "it has no address, so nothing is forwarded until it has one"
        };
        found.push(finding(
            Severity::Error,
            "NoExternalAddress",
            "spec.externalInterface",
            external.to_string(),
            problem,
            "give the interface a global address",
        ));
    }
    let wants_nodes = |it: &&Arc<Wish>| !it.is_pod() && it.is_for(host) && !it.ports.is_empty();
    if view.any_ready() || !view.wishes().any(|it| wants_nodes(&it)) {
        return found;
    }
    let (severity, reason, problem, remedy) = match forwarding.node_sets.is_empty() {
        true => (
            Severity::Error,
            "NoReadyNodes",
            "no node of the cluster is ready, has an InternalIP and is not excluded; no Service \
             is forwarded",
            "look at `kubectl get nodes -o wide`",
        ),
        false => (
            Severity::Warning,
            "NodesOutOfSight",
            "no node that may take traffic is ready, and of these the control plane hears nothing \
             (condition Ready is Unknown); they keep taking traffic, because they may well work",
            "look at `kubectl get nodes`, and at the nodes' way to the API server",
        ),
    };
    let nodes = view.active_nodes().count().to_string();
    found.push(finding(severity, reason, "status.nodes", nodes, problem, remedy));
    found
}

/// Troubles with ports, those of one object and one kind together.
fn of_ports(host: &str, troubles: &BTreeMap<(Protocol, Port), Vec<PortTrouble>>) -> Vec<Finding> {
    type Same<'a> = (&'a ObjectRef, &'static str, &'a Trouble);
    let mut together: BTreeMap<Same<'_>, PortList> = BTreeMap::new();
    for (&(protocol, port), troubles) in troubles {
        for PortTrouble { wish, trouble } in troubles {
            let ports = together.entry((&wish.owner, wish.field, trouble)).or_default();
            ports.push(protocol, port);
        }
    }
    let finding = |((owner, field, trouble), ports): (Same<'_>, PortList)| {
        let (severity, reason, problem, remedy) = explain(host, trouble);
        let (object, field, value) = (owner.clone(), field.to_owned(), ports.to_string());
        Finding { severity, reason, object, field, value, problem, remedy: remedy.to_owned() }
    };
    together.into_iter().map(finding).collect()
}

fn explain(host: &str, trouble: &Trouble) -> (Severity, &'static str, String, &'static str) {
    match trouble {
        Trouble::Taken(winner) => (
            Severity::Error,
            "HostPortConflict",
            format!(
                "taken on host {host} by {winner}, which comes first (the older object, then by \
                 kind, namespace and name); not forwarded for this object"
            ),
            "choose another host port, or another host with portcullis.dev/host",
        ),
        Trouble::NoExternalInterface => (
            Severity::Error,
            "NoExternalInterface",
            format!("is for the external interface alone, and host {host} has none; not forwarded"),
            "set spec.externalInterface of the Host, or remove the annotation `external`",
        ),
        Trouble::WayIn => (
            Severity::Error,
            "HostPortIsWayIn",
            format!(
                "is the port by which host {host} is reached over SSH; forwarding it would lock \
                 the controller out, so it is not forwarded"
            ),
            "choose another host port, or let the host's SSH server listen on another one",
        ),
        Trouble::NoNodeOfFamily(family) => (
            Severity::Error,
            "NoNodeAddress",
            format!(
                "no node that takes traffic has an {family} InternalIP, and this Service is \
                 {family} alone (spec.ipFamilies); not forwarded on host {host}"
            ),
            "set spec.ipFamilyPolicy to PreferDualStack, or give the nodes such addresses",
        ),
        Trouble::NoReadyEndpoints(family) => (
            Severity::Error,
            "NoReadyEndpoints",
            format!(
                "no node that takes traffic{} has a ready endpoint of this Service, and its \
                 externalTrafficPolicy is Local; not forwarded on host {host}",
                family.map(|it| format!(" at an {it} address")).unwrap_or_default()
            ),
            "look at its Pods and at `kubectl get endpointslices`",
        ),
        Trouble::OtherNamespace(leader) => (
            Severity::Warning,
            "HostPortShared",
            format!("is shared on host {host} with {leader}, which is in another namespace"),
            "choose another host port if the two do not belong together",
        ),
    }
}

/// Forwards that get in the way of what the host itself does.
fn in_the_way(
    host: &str,
    view: &ClusterView,
    facts: &HostView,
    forwarding: &Forwarding,
) -> Vec<Finding> {
    let mut listeners: BTreeMap<&ObjectRef, PortList> = BTreeMap::new();
    for it in &facts.listeners {
        let hit = match (&forwarding.entry.destinations, it.address) {
            (_, None) => true,
            (Destinations::Local, Some(address)) => !address.is_loopback(),
            (Destinations::Addresses(addresses), Some(address)) => {
                address.is_unspecified() || addresses.contains(&address)
            }
        };
        // What is forwarded in the other family alone leaves the listener what it has.
        let meets = |forward: &&Forward| {
            let family = it.address.map(IpFamily::of);
            hit && family.is_none_or(|family| forwarding.reaches(forward, family))
        };
        for exposure in [Exposure::Everywhere, Exposure::Internal, Exposure::External] {
            let key = ForwardKey { protocol: it.protocol, port: it.port, exposure };
            if let Some(forward) = forwarding.forwards.get(&key).filter(meets) {
                listeners.entry(&forward.owner).or_default().push(it.protocol, it.port);
            }
        }
    }
    let mut node_ports: BTreeMap<&ObjectRef, PortList> = BTreeMap::new();
    let mut own = facts.addresses.values().flatten();
    if own.any(|it| view.is_node_address(it.addr())) {
        let [first, last] = NODE_PORTS.map(|it| Port::new(it).unwrap_or(Port::MAX));
        for protocol in Protocol::ALL {
            let from = ForwardKey { protocol, port: first, exposure: Exposure::Everywhere };
            let to = ForwardKey { protocol, port: last, exposure: Exposure::External };
            for (key, forward) in forwarding.forwards.range(from..=to) {
                node_ports.entry(&forward.owner).or_default().push(protocol, key.port);
            }
        }
    }
    let finding = |reason, owner: &ObjectRef, ports: PortList, problem, remedy: &str| Finding {
        severity: Severity::Warning,
        reason,
        object: owner.clone(),
        field: view.wish(owner).map_or(key::HOST_PORTS, |it| it.field).to_owned(),
        value: ports.to_string(),
        problem,
        remedy: remedy.to_owned(),
    };
    let listeners = listeners.into_iter().map(|(owner, ports)| {
        let problem = format!(
            "host {host} itself listens on it; connections from outside now lead to the cluster"
        );
        finding(
            "HostPortInUse",
            owner,
            ports,
            problem,
            "choose another host port, or stop the host's own program",
        )
    });
    let node_ports = node_ports.into_iter().map(|(owner, ports)| {
        let problem = format!(
            "is in the range of node ports, and host {host} is itself a node; a Service that gets \
             it as its node port cannot be reached through this node"
        );
        finding(
            "HostPortInNodePortRange",
            owner,
            ports,
            problem,
            "choose a host port outside 30000-32767",
        )
    });
    listeners.chain(node_ports).collect()
}
