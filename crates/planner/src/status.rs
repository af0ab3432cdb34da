//! What to write into the status of Services.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use api::object::{ObjectKind, ObjectRef};

use crate::cluster_view::ClusterView;
use crate::cluster_view::wish::{Backends, Wish};
use crate::desired::{Entry, NodeSetName};
use crate::finding::Severity;
use crate::forward::{Ground, HostDesired, NO_READY_NODES, enter, is_open, settle};
use crate::host_view::HostView;
use crate::port_list::PortList;

/// The addresses for `status.loadBalancer.ingress` of every Service with our class.
///
/// They are addresses of hosts that really forward at least one of its ports, of the families
/// that its nodes have, IPv4 first. A Service that no host forwards has an empty list; one that
/// cannot be understood and that has no last good state is left out: what its status says stays.
/// A deprecated or temporary address of a host is not announced unless the Host lists it.
///
/// `hosts` are the hosts whose facts are known; others are taken to forward nothing.
#[must_use]
pub fn service_addresses(
    view: &ClusterView,
    hosts: &BTreeMap<String, HostView>,
) -> BTreeMap<ObjectRef, Vec<IpAddr>> {
    let understood = view.load_balancers().filter_map(|(owner, wish)| Some((owner, wish?)));
    understood
        .map(|(owner, wish)| {
            let mut addresses = BTreeSet::new();
            for (name, facts) in hosts {
                addresses.extend(addresses_on(view, name, facts, wish));
            }
            (owner.clone(), addresses.into_iter().collect())
        })
        .collect()
}

/// The addresses under which one host forwards at least one port of one wish.
fn addresses_on(view: &ClusterView, host: &str, facts: &HostView, wish: &Wish) -> Vec<IpAddr> {
    let Some(settings) = view.host(host).filter(|_| wish.is_for(host)) else { return Vec::new() };
    let entry = enter(settings, facts);
    if !is_open(&entry) || !wins_a_port(view, host, &entry, wish) {
        return Vec::new();
    }
    let targets = match &wish.backends {
        Backends::Nodes(set) => nodes(view, set),
        Backends::Pod(addresses) => addresses.iter().copied().collect(),
    };
    let reached = |it: &IpAddr| targets.iter().any(|target| target.is_ipv4() == it.is_ipv4());
    let own = settings
        .interfaces
        .iter()
        .filter(|it| settings.external_interface.as_ref().is_none_or(|external| external == *it));
    let own = own.flat_map(|it| facts.addresses_of(it)).filter(|it| !facts.passing.contains(it));
    own.chain(settings.extra_internal_addresses.iter().copied()).filter(reached).collect()
}

fn nodes(view: &ClusterView, set: &NodeSetName) -> BTreeSet<IpAddr> {
    match set {
        NodeSetName::All => view.all_nodes(),
        NodeSetName::WithEndpoints { namespace, service } => {
            view.nodes_with_endpoints(namespace, service)
        }
    }
}

fn wins_a_port(view: &ClusterView, host: &str, entry: &Entry, wish: &Wish) -> bool {
    let ground = Ground {
        host,
        external: entry.external.is_some(),
        has_targets: &|set| !nodes(view, set).is_empty(),
    };
    wish.ports.iter().any(|it| {
        let mut won = false;
        let claims = view.ports().claims(it.protocol, it.host);
        let forward = |_, forward: crate::desired::Forward| won |= forward.owner == wish.owner;
        settle(&ground, it.protocol, it.host, claims, forward, |_, _| {});
        won
    })
}

/// What became of a Service on one host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Outcome {
    /// The name of the host.
    pub host: String,
    /// How many host ports it forwards for the Service.
    pub forwarded: usize,
    /// How many host ports the Service asks of it.
    pub asked: usize,
    /// Which ones it forwards, as people read them; empty when none.
    pub ports: String,
    /// Why others are not forwarded: reasons and sentences.
    pub why_not: Vec<(&'static str, String)>,
}

impl Outcome {
    /// Whether everything that was asked is forwarded.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.forwarded == self.asked && self.why_not.is_empty()
    }
}

impl fmt::Display for Outcome {
    /// `edge-a: forwards 443/tcp; 53/udp: taken on host edge-a by ...`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, forwarded, asked: _, ports, why_not } = self;
        match forwarded {
            0 => write!(f, "{host}: forwards nothing")?,
            _ => write!(f, "{host}: forwards {ports}")?,
        }
        for (_, sentence) in why_not {
            write!(f, "; {sentence}")?;
        }
        Ok(())
    }
}

/// What became of every Service that asks something of hosts, host by host, for its conditions.
///
/// `plans` are the plans of the hosts, by name. A Service that no planned host is meant for has
/// an empty list.
#[must_use]
pub fn outcomes(
    view: &ClusterView,
    plans: &BTreeMap<String, HostDesired>,
) -> BTreeMap<ObjectRef, Vec<Outcome>> {
    let services: Vec<_> =
        view.wishes().filter(|it| it.owner.kind == ObjectKind::Service).collect();
    let mut outcomes: BTreeMap<ObjectRef, Vec<Outcome>> =
        services.iter().map(|it| (it.owner.clone(), Vec::new())).collect();
    for (host, plan) in plans {
        let mut forwarded: BTreeMap<&ObjectRef, PortList> = BTreeMap::new();
        for (key, forward) in &plan.forwarding.forwards {
            forwarded.entry(&forward.owner).or_default().push(key.protocol, key.port);
        }
        let mut why_not: BTreeMap<&ObjectRef, Vec<(&'static str, String)>> = BTreeMap::new();
        let mut no_nodes = None;
        for it in plan.findings.iter().filter(|it| it.severity == Severity::Error) {
            if it.reason == NO_READY_NODES {
                no_nodes = Some((it.reason, it.problem.clone()));
            }
            let sentence = format!("{}: {}: {}", it.field, it.value, it.problem);
            why_not.entry(&it.object).or_default().push((it.reason, sentence));
        }
        for wish in services.iter().filter(|it| it.is_for(host)) {
            let ports = forwarded.remove(&wish.owner).unwrap_or_default();
            let mut why_not = why_not.remove(&wish.owner).unwrap_or_default();
            if ports.is_empty() && !wish.ports.is_empty() {
                why_not.extend(no_nodes.clone());
            }
            if let Some(outcomes) = outcomes.get_mut(&wish.owner) {
                outcomes.push(Outcome {
                    host: host.clone(),
                    forwarded: ports.len(),
                    asked: wish.ports.len(),
                    ports: ports.to_string(),
                    why_not,
                });
            }
        }
    }
    outcomes
}
