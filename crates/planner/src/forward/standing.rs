//! A plan that is kept up to date.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::host::{Executor, HostSettings};
use api::port::{Port, Protocol};

use super::report::{self, PortTrouble};
use super::settle::{Ground, Trouble, settle};
use super::{HostDesired, NoPlan};
use crate::check;
use crate::cluster_view::ClusterView;
use crate::cluster_view::wish::{Backends, Wish};
use crate::desired::{
    Destinations, Entry, Exposure, Forward, ForwardKey, Forwarding, IpFamily, NodeSetName, Options,
};
use crate::finding::Finding;
use crate::host_view::HostView;

/// The plan of one host, kept up to date with one cluster view.
///
/// [`update`](Self::update) gives exactly what [`forward_plan`](super::forward_plan) gives. What
/// it costs depends on what changed since the last update: a Service, a Pod or the place of
/// endpoints cost their own ports; nodes cost the sets of nodes, and the host's own facts cost
/// little. Only where a set of nodes comes or goes, or the way into the host changes, and when
/// the Host itself changes, everything is planned again.
#[derive(Debug)]
pub struct StandingPlan {
    host: String,
    seen: Option<Seen>,
    desired: HostDesired,
    troubles: Troubles,
    /// Findings about single objects, and all others, in no order.
    of_objects: Vec<Finding>,
    of_plan: Vec<Finding>,
}

/// What the plan was made from.
#[derive(Debug)]
struct Seen {
    version: u64,
    facts: HostView,
    way_in: Option<Port>,
}

/// Which forwards an update may have changed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Changed {
    /// None: nothing was planned again, at most findings changed.
    Nothing,
    /// The forwards of these host ports, and findings.
    Ports(BTreeSet<(Protocol, Port)>),
    /// Anything.
    Everything,
}

impl StandingPlan {
    /// A plan for the host of this name, not made yet.
    #[must_use]
    pub fn new(host: &str) -> Self {
        Self {
            host: host.to_owned(),
            seen: None,
            desired: HostDesired::default(),
            troubles: Troubles::new(),
            of_objects: Vec::new(),
            of_plan: Vec::new(),
        }
    }

    /// What the last successful update decided; nothing at all before the first.
    #[must_use]
    pub fn desired(&self) -> &HostDesired {
        &self.desired
    }

    /// What the last successful update decided.
    #[must_use]
    pub fn into_desired(self) -> HostDesired {
        self.desired
    }

    /// Brings the plan up to date. Every call must bring the same, growing view.
    ///
    /// # Errors
    ///
    /// Fails like [`forward_plan`](super::forward_plan), and the plan stays as it was.
    pub fn update(&mut self, view: &ClusterView, facts: &HostView) -> Result<Changed, NoPlan> {
        let settings = self.settings(view)?;
        let way_in = way_in(&settings, facts, &enter(&settings, facts));
        let host_stands = |it: &Seen| view.host_changed(&self.host) <= it.version;
        let stands =
            |it: &Seen| host_stands(it) && it.facts == *facts && view.nodes_changed() <= it.version;
        let since = self.seen.as_ref();
        let ports = since.and_then(|it| view.ports().changed_since(it.version));
        let changed = match (since, ports) {
            (Some(it), Some(ports)) if stands(it) && ports.is_empty() => Changed::Nothing,
            (Some(it), Some(ports)) if stands(it) => match self.plan_ports(&ports, view, way_in) {
                SetsOfNodes::Stand => Changed::Ports(ports),
                SetsOfNodes::Changed => Changed::Everything,
            },
            (Some(it), Some(ports)) if host_stands(it) && it.way_in == way_in => {
                self.plan_sets(&ports, view, &settings, facts, way_in);
                Changed::Everything
            }
            (Some(_) | None, _) => {
                self.plan_all(view, &settings, facts, way_in);
                Changed::Everything
            }
        };
        self.report(view, facts, &settings);
        let version = view.version();
        match &mut self.seen {
            Some(seen) if seen.facts == *facts => (seen.version, seen.way_in) = (version, way_in),
            seen => *seen = Some(Seen { version, facts: facts.clone(), way_in }),
        }
        debug_assert_eq!(check::violations(&self.desired.forwarding), []);
        Ok(changed)
    }

    fn settings(&self, view: &ClusterView) -> Result<Arc<HostSettings>, NoPlan> {
        let name = || self.host.clone();
        if !view.is_complete() {
            return Err(NoPlan::Incomplete { missing: view.missing().collect() });
        }
        if !view.has_host(&self.host) {
            let known = view.host_names().map(str::to_owned).collect();
            return Err(NoPlan::UnknownHost { name: name(), known });
        }
        view.host(&self.host).cloned().ok_or_else(|| {
            let findings = view.host_findings(&self.host).to_vec();
            NoPlan::UnusableHost { name: name(), findings }
        })
    }

    /// Brings findings up to date. Those of single objects may be many and are read again only
    /// when such an object changed.
    fn report(&mut self, view: &ClusterView, facts: &HostView, settings: &HostSettings) {
        let (host, troubles) = (&self.host, &self.troubles);
        let of_plan = report::of_this_plan(host, view, facts, settings, &self.desired, troubles);
        let objects_stand = self.seen.as_ref().is_some_and(|it| view.noted_changed() <= it.version);
        if objects_stand && of_plan == self.of_plan {
            return;
        }
        if !objects_stand {
            self.of_objects = report::of_objects(host, view);
            self.desired.unreadable = view.unreadable().cloned().collect();
        }
        self.of_plan = of_plan;
        let findings = self.of_objects.iter().chain(&self.of_plan).collect::<BTreeSet<_>>();
        self.desired.findings = findings.into_iter().cloned().collect();
    }

    /// Plans everything again.
    fn plan_all(
        &mut self,
        view: &ClusterView,
        settings: &HostSettings,
        facts: &HostView,
        way_in: Option<Port>,
    ) {
        let Forwarding { entry, options, node_sets, forwards } = &mut self.desired.forwarding;
        *entry = enter(settings, facts);
        *options = Options {
            accept_forwarded: settings.accept_forwarded,
            masquerade: settings.masquerade,
            hairpin: settings.hairpin,
        };
        *node_sets = all_node_sets(&self.host, view);
        self.troubles.clear();
        // Growing it step by step would copy all of it several times.
        let mut settled: Vec<(ForwardKey, Forward)> = Vec::with_capacity(view.ports().len());
        if is_open(entry) {
            let ground = Ground {
                host: &self.host,
                external: entry.external.is_some(),
                way_in,
                has_targets: &has_targets(node_sets),
            };
            for (protocol, port, claims) in view.ports().iter() {
                let add = |key, forward| settled.push((key, forward));
                let trouble = note(&mut self.troubles, protocol, port);
                settle(&ground, protocol, port, claims, add, trouble);
            }
        }
        // The claims are in the order of the keys, so that this takes one pass.
        *forwards = settled.into_iter().collect();
    }

    /// Plans sets of nodes and destinations again, and of the forwards only these ports, unless
    /// the others depend on what changed. The way into the host must be what it was.
    fn plan_sets(
        &mut self,
        ports: &BTreeSet<(Protocol, Port)>,
        view: &ClusterView,
        settings: &HostSettings,
        facts: &HostView,
        way_in: Option<Port>,
    ) {
        let Forwarding { entry, options: _, node_sets, forwards: _ } = &mut self.desired.forwarding;
        let new_entry = enter(settings, facts);
        let new_sets = all_node_sets(&self.host, view);
        let families = |sets| IpFamily::ALL.map(|it| has_targets(sets)(&NodeSetName::OfFamily(it)));
        let stand = is_open(entry) == is_open(&new_entry)
            && node_sets.keys().eq(new_sets.keys())
            && families(node_sets) == families(&new_sets);
        if stand {
            (*entry, *node_sets) = (new_entry, new_sets);
            self.plan_ports(ports, view, way_in);
        } else {
            self.plan_all(view, settings, facts, way_in);
        }
    }

    /// Plans these ports again.
    fn plan_ports(
        &mut self,
        ports: &BTreeSet<(Protocol, Port)>,
        view: &ClusterView,
        way_in: Option<Port>,
    ) -> SetsOfNodes {
        let Forwarding { entry, options: _, node_sets, forwards } = &mut self.desired.forwarding;
        let claims = |&(protocol, port): &_| view.ports().claims(protocol, port);
        let mut sets = SetsOfNodes::Stand;
        for claim in ports.iter().flat_map(claims) {
            if refresh(node_sets, &self.host, view, &claim.wish) == SetsOfNodes::Changed {
                sets = SetsOfNodes::Changed;
            }
        }
        let before = node_sets.len();
        node_sets.retain(|name, _| is_wanted(name, &self.host, view));
        if node_sets.len() < before {
            sets = SetsOfNodes::Changed;
        }
        if !is_open(entry) {
            return sets;
        }
        let ground = Ground {
            host: &self.host,
            external: entry.external.is_some(),
            way_in,
            has_targets: &has_targets(node_sets),
        };
        for &(protocol, port) in ports {
            self.troubles.remove(&(protocol, port));
            for exposure in [Exposure::Everywhere, Exposure::Internal, Exposure::External] {
                forwards.remove(&ForwardKey { protocol, port, exposure });
            }
            let add = |key, forward| drop(forwards.insert(key, forward));
            let trouble = note(&mut self.troubles, protocol, port);
            settle(&ground, protocol, port, claims(&(protocol, port)), add, trouble);
        }
        sets
    }
}

/// What became of the sets of nodes while ports were planned.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum SetsOfNodes {
    Stand,
    Changed,
}

type Troubles = BTreeMap<(Protocol, Port), Vec<PortTrouble>>;

/// Notes the troubles of one port.
fn note(
    troubles: &mut Troubles,
    protocol: Protocol,
    port: Port,
) -> impl FnMut(&Arc<Wish>, Trouble) {
    move |wish, trouble| {
        let it = PortTrouble { wish: Arc::clone(wish), trouble };
        troubles.entry((protocol, port)).or_default().push(it);
    }
}

/// Where traffic enters the host, and to which addresses.
pub(crate) fn enter(settings: &HostSettings, facts: &HostView) -> Entry {
    let mut internal = settings.interfaces.clone();
    let Some(external) = &settings.external_interface else {
        return Entry { external: None, internal, destinations: Destinations::Local };
    };
    internal.remove(external);
    let mut addresses = settings.extra_internal_addresses.clone();
    addresses.extend(facts.addresses_of(external));
    let destinations = Destinations::Addresses(addresses);
    Entry { external: Some(external.clone()), internal, destinations }
}

/// The TCP port by which we reach a host over SSH, where forwarding it would lock us out.
///
/// Where the address that we dial is a name, or the host listens on other ports alone because
/// something before it translates, nothing is known and nothing is held back.
pub(crate) fn way_in(settings: &HostSettings, facts: &HostView, entry: &Entry) -> Option<Port> {
    let Executor::Ssh(ssh) = &settings.executor else { return None };
    let dialled = match &entry.destinations {
        Destinations::Local => true,
        Destinations::Addresses(addresses) => {
            ssh.address.as_str().parse().is_ok_and(|it| addresses.contains(&it))
        }
    };
    let mut listeners = facts.listeners.iter();
    let listens = facts.listeners.is_empty()
        || listeners.any(|it| it.protocol == Protocol::Tcp && it.port == ssh.port);
    (dialled && listens).then_some(ssh.port)
}

/// Whether anything may be forwarded. Without a single destination address nothing is: a filter
/// without addresses would be a filter that lets everything through.
pub(crate) fn is_open(entry: &Entry) -> bool {
    match &entry.destinations {
        Destinations::Local => true,
        Destinations::Addresses(addresses) => !addresses.is_empty(),
    }
}

type NodeSets = BTreeMap<NodeSetName, BTreeSet<std::net::IpAddr>>;

/// All active nodes, and those of every Service for this host that chooses among them.
fn all_node_sets(host: &str, view: &ClusterView) -> NodeSets {
    let mut sets = NodeSets::new();
    let all = view.all_nodes();
    if !all.is_empty() {
        sets.insert(NodeSetName::All, all);
    }
    for wish in view.wishes() {
        refresh(&mut sets, host, view, wish);
    }
    sets
}

/// Brings the set of nodes of one Service up to date, if it chooses among nodes.
fn refresh(sets: &mut NodeSets, host: &str, view: &ClusterView, wish: &Wish) -> SetsOfNodes {
    let Backends::Nodes(name @ NodeSetName::WithEndpoints { namespace, service }) = &wish.backends
    else {
        return SetsOfNodes::Stand;
    };
    let wanted = wish.is_for(host) && !wish.ports.is_empty();
    let nodes =
        if wanted { view.nodes_with_endpoints(namespace, service) } else { BTreeSet::new() };
    let nodes = Some(nodes).filter(|it| !it.is_empty());
    if sets.get(name) == nodes.as_ref() {
        return SetsOfNodes::Stand;
    }
    match nodes {
        Some(nodes) => sets.insert(name.clone(), nodes),
        None => sets.remove(name),
    };
    SetsOfNodes::Changed
}

/// Whether a set has any node; asked of every port.
fn has_targets(sets: &NodeSets) -> impl Fn(&NodeSetName) -> bool + '_ {
    let all = sets.get(&NodeSetName::All);
    let [v4, v6] = IpFamily::ALL.map(|it| all.into_iter().flatten().any(|to| it.has(*to)));
    move |set| match set {
        NodeSetName::OfFamily(IpFamily::Ipv4) => v4,
        NodeSetName::OfFamily(IpFamily::Ipv6) => v6,
        NodeSetName::All | NodeSetName::WithEndpoints { .. } => sets.contains_key(set),
    }
}

/// Whether a set of nodes still belongs to a Service that chooses among nodes.
fn is_wanted(name: &NodeSetName, host: &str, view: &ClusterView) -> bool {
    let NodeSetName::WithEndpoints { namespace, service } = name else { return true };
    let kind = api::object::ObjectKind::Service;
    let owner = api::object::ObjectRef::namespaced(kind, namespace, service);
    view.wish(&owner).is_some_and(|it| {
        it.backends == Backends::Nodes(name.clone()) && it.is_for(host) && !it.ports.is_empty()
    })
}
