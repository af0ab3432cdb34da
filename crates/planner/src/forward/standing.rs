//! A plan that is kept up to date.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::host::HostSettings;
use api::port::{Port, Protocol};

use super::report::{self, PortTrouble};
use super::settle::{Ground, settle};
use super::{HostDesired, NoPlan};
use crate::check;
use crate::cluster_view::ClusterView;
use crate::cluster_view::wish::{Backends, Wish};
use crate::desired::{Destinations, Entry, Exposure, Forward, ForwardKey, NodeSetName, Options};
use crate::host_view::HostView;

/// The plan of one host, kept up to date with one cluster view.
///
/// [`update`](Self::update) gives exactly what [`forward_plan`](super::forward_plan) gives. What
/// it costs depends on what changed since the last update: a Service, a Pod or the place of
/// endpoints cost their own ports; a node, the Host or the host's own facts cost the whole plan.
#[derive(Debug)]
pub struct StandingPlan {
    host: String,
    seen: Option<Seen>,
    desired: HostDesired,
    troubles: BTreeMap<(Protocol, Port), Vec<PortTrouble>>,
}

/// What the plan was made from.
#[derive(Debug)]
struct Seen {
    version: u64,
    facts: HostView,
}

/// Which forwards an update may have changed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Changed {
    /// Nothing was planned again.
    Nothing,
    /// The forwards of these host ports, perhaps sets of nodes of single Services, and findings.
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
            troubles: BTreeMap::new(),
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
        let since = self.seen.as_ref().filter(|it| {
            it.facts == *facts
                && view.nodes_changed() <= it.version
                && view.host_changed(&self.host) <= it.version
        });
        let changed = match since.map(|it| it.version) {
            Some(version) if version == view.version() => return Ok(Changed::Nothing),
            Some(version) => self.plan_since(version, view, &settings),
            None => {
                self.plan_all(view, &settings, facts);
                Changed::Everything
            }
        };
        self.desired.findings =
            report::findings(&self.host, view, facts, &settings, &self.desired, &self.troubles);
        self.desired.unreadable = view.unreadable().cloned().collect();
        match &mut self.seen {
            Some(seen) if seen.facts == *facts => seen.version = view.version(),
            seen => *seen = Some(Seen { version: view.version(), facts: facts.clone() }),
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

    /// Plans everything again.
    fn plan_all(&mut self, view: &ClusterView, settings: &HostSettings, facts: &HostView) {
        let forwarding = &mut self.desired.forwarding;
        forwarding.entry = entry(settings, facts);
        forwarding.options = options(settings);
        forwarding.node_sets = node_sets(&self.host, view);
        self.troubles.clear();
        let node_sets = &forwarding.node_sets;
        let ground = Ground {
            host: &self.host,
            external: forwarding.entry.external.is_some(),
            has_targets: &|set| node_sets.contains_key(set),
        };
        let mut forwards: Vec<(ForwardKey, Forward)> = Vec::new();
        if is_open(&forwarding.entry) {
            for (protocol, port, slot) in view.ports().iter() {
                let add = |key, forward| forwards.push((key, forward));
                let trouble = |wish: &Arc<Wish>, trouble| {
                    let it = PortTrouble { wish: Arc::clone(wish), trouble };
                    self.troubles.entry((protocol, port)).or_default().push(it);
                };
                settle(&ground, protocol, port, &slot.claims, add, trouble);
            }
        }
        // The index is in the order of the keys, so that this takes one pass.
        forwarding.forwards = forwards.into_iter().collect();
    }

    /// Plans the ports that changed after `version`.
    fn plan_since(&mut self, version: u64, view: &ClusterView, settings: &HostSettings) -> Changed {
        let forwarding = &mut self.desired.forwarding;
        let mut ports = BTreeSet::new();
        if !is_open(&forwarding.entry) {
            forwarding.node_sets = node_sets(&self.host, view);
            return Changed::Ports(ports);
        }
        let changed = || view.ports().iter().filter(|(_, _, slot)| slot.changed > version);
        for (protocol, port, slot) in changed() {
            ports.insert((protocol, port));
            for claim in &slot.claims {
                refresh(&mut forwarding.node_sets, &self.host, view, &claim.wish);
            }
        }
        if !ports.is_empty() {
            forwarding.node_sets.retain(|name, _| is_wanted(name, &self.host, view));
        }
        let node_sets = &forwarding.node_sets;
        let ground = Ground {
            host: &self.host,
            external: settings.external_interface.is_some(),
            has_targets: &|set| node_sets.contains_key(set),
        };
        for (protocol, port, slot) in changed() {
            self.troubles.remove(&(protocol, port));
            for exposure in [Exposure::Everywhere, Exposure::Internal, Exposure::External] {
                forwarding.forwards.remove(&ForwardKey { protocol, port, exposure });
            }
            let add = |key, forward| {
                forwarding.forwards.insert(key, forward);
            };
            let trouble = |wish: &Arc<Wish>, trouble| {
                let it = PortTrouble { wish: Arc::clone(wish), trouble };
                self.troubles.entry((protocol, port)).or_default().push(it);
            };
            settle(&ground, protocol, port, &slot.claims, add, trouble);
        }
        Changed::Ports(ports)
    }
}

/// Where traffic enters the host, and to which addresses.
pub(crate) fn entry(settings: &HostSettings, facts: &HostView) -> Entry {
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

/// Whether anything may be forwarded. Without a single destination address nothing is: a filter
/// without addresses would be a filter that lets everything through.
pub(crate) fn is_open(entry: &Entry) -> bool {
    match &entry.destinations {
        Destinations::Local => true,
        Destinations::Addresses(addresses) => !addresses.is_empty(),
    }
}

fn options(settings: &HostSettings) -> Options {
    Options {
        accept_forwarded: settings.accept_forwarded,
        masquerade: settings.masquerade,
        hairpin: settings.hairpin,
    }
}

type NodeSets = BTreeMap<NodeSetName, BTreeSet<std::net::IpAddr>>;

/// All active nodes, and those of every Service for this host that chooses among them.
fn node_sets(host: &str, view: &ClusterView) -> NodeSets {
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
fn refresh(sets: &mut NodeSets, host: &str, view: &ClusterView, wish: &Wish) {
    let Backends::Nodes(name @ NodeSetName::WithEndpoints { namespace, service }) = &wish.backends
    else {
        return;
    };
    let wanted = wish.is_for(host) && !wish.ports.is_empty();
    let nodes =
        if wanted { view.nodes_with_endpoints(namespace, service) } else { BTreeSet::new() };
    if nodes.is_empty() {
        sets.remove(name);
    } else {
        sets.insert(name.clone(), nodes);
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
