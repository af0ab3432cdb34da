//! What to write into the status of Services.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use api::host::HostSettings;
use api::object::{ObjectKind, ObjectRef};

use crate::cluster_view::ClusterView;
use crate::cluster_view::wish::{Backends, Wish};
use crate::desired::{Destinations, Forward, IpFamily, NodeSetName};
use crate::finding::Severity;
use crate::forward::{Ground, HostDesired, enter, is_open, settle, way_in};
use crate::host_view::HostView;
use crate::port_list::PortList;

/// The addresses for `status.loadBalancer.ingress` of every Service with our class.
///
/// They are addresses of hosts that really forward at least one of its ports, of the families
/// that its nodes have, IPv4 first. A Service that no host forwards has an empty list; one that
/// cannot be understood and that has no last good state is left out: what its status says stays.
/// A deprecated or temporary address of a host is not announced unless the Host lists it.
///
/// `hosts` are the hosts whose facts are known, by name. Of every other Host, which another
/// controller drives, `status.addresses` counts while its condition `Applied` is true.
#[must_use]
pub fn service_addresses<'a>(
    view: &ClusterView,
    hosts: impl IntoIterator<Item = (&'a String, &'a HostView)>,
) -> BTreeMap<ObjectRef, Vec<IpAddr>> {
    let understood = view.load_balancers().filter_map(|(owner, wish)| Some((owner, wish?)));
    let wishes: Vec<_> = understood.collect();
    let mut addresses: BTreeMap<_, _> =
        wishes.iter().map(|(owner, _)| ((*owner).clone(), BTreeSet::new())).collect();
    let known: BTreeMap<&str, &HostView> =
        hosts.into_iter().map(|(name, facts)| (name.as_str(), facts)).collect();
    let nodes = Nodes::of_view(view);
    for host in view.host_names() {
        let Some(settings) = view.host(host) else { continue };
        let (facts, own) = match known.get(host) {
            Some(facts) => (Cow::Borrowed(*facts), announced(settings, facts)),
            None => (Cow::default(), view.host_addresses(host).cloned().unwrap_or_default()),
        };
        let mut entry = enter(settings, &facts);
        if let Destinations::Addresses(destinations) = &mut entry.destinations {
            destinations.extend(&own);
        }
        if own.is_empty() || !is_open(&entry) {
            continue;
        }
        let ground = Ground {
            host,
            external: entry.external.is_some(),
            way_in: way_in(settings, &facts, &entry),
            has_targets: &|set| !nodes.of(set).is_empty(),
        };
        for (owner, wish) in wishes.iter().filter(|(_, it)| it.is_for(host)) {
            if let Some(addresses) = addresses.get_mut(owner)
                && wins_a_port(&nodes, &ground, wish)
            {
                let targets = nodes.behind(wish);
                let reached = |it: &&IpAddr| targets.iter().any(|to| to.is_ipv4() == it.is_ipv4());
                addresses.extend(own.iter().filter(reached));
            }
        }
    }
    let sorted = addresses.into_iter().map(|(owner, it)| (owner, it.into_iter().collect()));
    sorted.collect()
}

/// The addresses under which clients should dial a host: what `status.addresses` of its Host
/// should say. Deprecated and temporary ones are not among them unless the Host lists them.
#[must_use]
pub fn announced(settings: &HostSettings, facts: &HostView) -> BTreeSet<IpAddr> {
    let entries = settings
        .interfaces
        .iter()
        .filter(|it| settings.external_interface.as_ref().is_none_or(|external| external == *it));
    let own = entries.flat_map(|it| facts.addresses_of(it));
    let lasting = own.filter(|it| !facts.passing.contains(it));
    lasting.chain(settings.extra_internal_addresses.iter().copied()).collect()
}

/// The addresses of nodes that take traffic.
struct Nodes<'a> {
    view: &'a ClusterView,
    all: BTreeSet<IpAddr>,
    v4: BTreeSet<IpAddr>,
    v6: BTreeSet<IpAddr>,
}

impl<'a> Nodes<'a> {
    fn of_view(view: &'a ClusterView) -> Self {
        let all = view.all_nodes();
        let (v4, v6) = all.iter().partition(|it| IpFamily::Ipv4.has(**it));
        Self { view, all, v4, v6 }
    }

    fn of(&self, set: &NodeSetName) -> Cow<'_, BTreeSet<IpAddr>> {
        match set {
            NodeSetName::All => Cow::Borrowed(&self.all),
            NodeSetName::OfFamily(IpFamily::Ipv4) => Cow::Borrowed(&self.v4),
            NodeSetName::OfFamily(IpFamily::Ipv6) => Cow::Borrowed(&self.v6),
            NodeSetName::WithEndpoints { namespace, service } => {
                Cow::Owned(self.view.nodes_with_endpoints(namespace, service))
            }
        }
    }

    fn behind(&self, wish: &Wish) -> Cow<'_, BTreeSet<IpAddr>> {
        match &wish.backends {
            Backends::Nodes(set) => self.of(set),
            Backends::Pod(addresses) => Cow::Owned(addresses.iter().copied().collect()),
        }
    }
}

fn wins_a_port(nodes: &Nodes<'_>, ground: &Ground<'_>, wish: &Wish) -> bool {
    wish.ports.iter().any(|it| {
        let mut won = false;
        let claims = nodes.view.ports().claims(it.protocol, it.host);
        let forward = |_, forward: Forward| won |= forward.owner == wish.owner;
        settle(ground, it.protocol, it.host, claims, forward, |_, _| {});
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
/// an empty list; one that cannot be understood and that has no last good state is told so for
/// every host.
#[must_use]
pub fn outcomes<'a>(
    view: &ClusterView,
    plans: impl IntoIterator<Item = (&'a String, &'a HostDesired)>,
) -> BTreeMap<ObjectRef, Vec<Outcome>> {
    let wishes = view.wishes().map(|it| (&it.owner, Some(it)));
    let unreadable = view.unreadable().map(|it| (it, None));
    let services = wishes.chain(unreadable).filter(|(it, _)| it.kind == ObjectKind::Service);
    let services: Vec<_> = services.collect();
    let mut outcomes: BTreeMap<ObjectRef, Vec<Outcome>> =
        services.iter().map(|(it, _)| ((*it).clone(), Vec::new())).collect();
    for (host, plan) in plans {
        let mut forwarded = forwarded_ports(plan);
        let mut wrong: BTreeMap<&ObjectRef, Vec<(&'static str, String)>> = BTreeMap::new();
        for it in plan.findings.iter().filter(|it| it.severity == Severity::Error) {
            let sentence = format!("{}: {}: {}", it.field, it.value, it.problem);
            wrong.entry(&it.object).or_default().push((it.reason, sentence));
        }
        let of_host = wrong.remove(&ObjectRef::cluster(ObjectKind::Host, host));
        for (owner, wish) in services.iter().filter(|(_, it)| it.is_none_or(|it| it.is_for(host))) {
            let ports = forwarded.remove(owner).unwrap_or_default();
            let asked = wish.map_or(0, |it| it.ports.len());
            let mut why_not = wrong.remove(owner).unwrap_or_default();
            if ports.len() < asked && why_not.is_empty() {
                // Nothing is wrong with the Service; then it is the host that cannot.
                why_not.extend(of_host.clone().unwrap_or_default());
            }
            if let Some(outcomes) = outcomes.get_mut(owner) {
                let (host, forwarded, ports) = (host.clone(), ports.len(), ports.to_string());
                outcomes.push(Outcome { host, forwarded, asked, ports, why_not });
            }
        }
    }
    outcomes
}

/// The host ports that a plan forwards for each object.
fn forwarded_ports(plan: &HostDesired) -> BTreeMap<&ObjectRef, PortList> {
    let mut forwarded: BTreeMap<&ObjectRef, PortList> = BTreeMap::new();
    // Neighbouring ports mostly are one object's, and one comparison is cheaper than a search.
    let mut last: Option<(&ObjectRef, &mut PortList)> = None;
    for (key, forward) in &plan.forwarding.forwards {
        match &mut last {
            Some((owner, ports)) if *owner == &forward.owner => ports.push(key.protocol, key.port),
            Some(_) | None => {
                let ports = forwarded.entry(&forward.owner).or_default();
                ports.push(key.protocol, key.port);
                last = Some((&forward.owner, ports));
            }
        }
    }
    forwarded
}
