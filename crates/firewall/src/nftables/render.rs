//! Desired forwarding to the content of our table.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;

use api::object::ObjectRef;
use api::source_range::SourceRanges;
use planner::desired::{
    Destinations, Exposure, Forward, ForwardKey, Forwarding, IpFamily, NodeSetName, Options,
    Targets,
};

use super::layout::{
    DESTINATIONS, FROM_EXTERNAL, FROM_INTERNAL, Hook, OUTPUT, POSTROUTING, PREROUTING,
};
use super::rule::{self, Choice};
use super::scope::Touched;
use super::table::{Chain, Element, Name, PortKey, Table};
use crate::label::{chain_part, owner_comment, short_hash};

/// How the names of chains begin that ask where a connection comes from.
const ALLOW: &str = "allow-";

/// Returns the table that does what `forwarding` says.
pub(crate) fn render(forwarding: &Forwarding) -> Table {
    let mut rendering = Rendering { forwarding, table: Table::default(), names: BTreeMap::new() };
    rendering.entry();
    rendering.forwards(forwarding.forwards.iter().map(|(key, it)| (*key, it)));
    rendering.sources_of_forwarded();
    rendering.table
}

/// Whether a change of one host port's forwards changes nothing but its own elements and chains.
pub(crate) fn ports_are_apart(forwarding: &Forwarding) -> bool {
    let Options { accept_forwarded, masquerade, hairpin } = forwarding.options;
    !(accept_forwarded || masquerade || hairpin)
}

/// Brings a table that was rendered before up to date with the forwards of some host ports: then it
/// is what [`render`] gives, if these are the only ones that changed and
/// [`they are apart`](ports_are_apart). Adds to `touched` where the table may have changed.
pub(crate) fn render_ports(
    table: &mut Table,
    forwarding: &Forwarding,
    ports: &BTreeSet<PortKey>,
    touched: &mut Touched,
) {
    touched.ports.extend(ports);
    let mut left = BTreeSet::new();
    for elements in table.forwards.values_mut() {
        left.extend(ports.iter().filter_map(|it| elements.remove(it)?.chain));
    }
    let inner = |table: &Table, chains: &BTreeSet<Name>| {
        let leads_on = chains.iter().filter_map(|it| table.chains.get(it)).flat_map(leads_on_to);
        leads_on.map(Name::from).collect::<Vec<_>>()
    };
    let led_on = inner(table, &left);

    let table_before = std::mem::take(table);
    let mut rendering = Rendering { forwarding, table: table_before, names: BTreeMap::new() };
    for (protocol, port) in ports {
        rendering.forwards(forwarding.at(*protocol, *port));
    }
    *table = rendering.table;
    table.forwards.retain(|_, it| !it.is_empty());

    let mut came = BTreeSet::new();
    for elements in table.forwards.values() {
        let chains = ports.iter().filter_map(|it| elements.get(it)?.chain.as_ref());
        came.extend(chains.cloned());
    }
    touched.chains.extend(inner(table, &came));
    touched.chains.extend(came);
    // First those that elements lead to, then those that these lead on to.
    for name in left.into_iter().chain(led_on) {
        if !is_used(table, &name) {
            table.chains.remove(&name);
        }
        touched.chains.insert(name);
    }
}

/// Whether anything leads to a chain.
fn is_used(table: &Table, name: &Name) -> bool {
    let mut elements = table.forwards.values().flat_map(BTreeMap::values);
    let from_allow = (Bound::Included(ALLOW), Bound::Unbounded);
    let mut allowing =
        table.chains.range::<str, _>(from_allow).take_while(|it| it.0.starts_with(ALLOW));
    elements.any(|it| it.chain.as_ref() == Some(name))
        || allowing.any(|(_, it)| leads_on_to(it).any(|it| *it == **name))
}

/// The chains that a chain leads on to.
fn leads_on_to(chain: &Chain) -> impl Iterator<Item = &str> {
    chain.rules.iter().filter_map(|it| it.rsplit_once("goto ")).map(|(_, to)| to)
}

/// The start of the names of the chains of one node set.
pub(crate) fn node_set_prefix(set: &NodeSetName) -> String {
    match set {
        NodeSetName::All => "nodes-all".to_owned(),
        NodeSetName::OfFamily(IpFamily::Ipv4) => "nodes-ipv4".to_owned(),
        NodeSetName::OfFamily(IpFamily::Ipv6) => "nodes-ipv6".to_owned(),
        NodeSetName::WithEndpoints { namespace, service } => {
            format!("nodes-with-{}", chain_part(Some(namespace), service))
        }
    }
}

/// Returns the rules of a chain of a node set, given the chain's name and the set's addresses;
/// `None` when no chain of a node set has that name.
pub(crate) fn node_chain_rules(chain: &str, nodes: &BTreeSet<IpAddr>) -> Option<Vec<String>> {
    let (rest, exposure) = match chain {
        it if it.ends_with("-internal") => (it.trim_end_matches("-internal"), Exposure::Internal),
        it if it.ends_with("-external") => (it.trim_end_matches("-external"), Exposure::External),
        it => (it, Exposure::Everywhere),
    };
    let (_, counter) = rest.rsplit_once('-')?;
    let choice = match counter {
        "sticky" => Choice::BySource,
        number => number.parse::<u16>().ok().map(|_| Choice::InTurn)?,
    };
    Some(rule::to_nodes(nodes, choice, exposure))
}

struct Rendering<'a> {
    forwarding: &'a Forwarding,
    table: Table,
    /// Names of chains of node sets that exist already.
    names: BTreeMap<(&'a NodeSetName, Option<u16>, Exposure), Name>,
}

impl<'a> Rendering<'a> {
    /// Where traffic enters.
    fn entry(&mut self) {
        let forwarding = self.forwarding;
        let entry = &forwarding.entry;
        let lookups = |second| vec![rule::lookup(Exposure::Everywhere), rule::lookup(second)];
        self.chain(FROM_EXTERNAL, lookups(Exposure::External));
        self.chain(FROM_INTERNAL, lookups(Exposure::Internal));

        let external = entry.external.iter().map(|it| (it, FROM_EXTERNAL));
        let internal = entry.internal.iter().map(|it| (it, FROM_INTERNAL));
        for (interface, chain) in external.chain(internal) {
            self.table.interfaces.insert(interface.to_string(), chain.into());
        }

        let families = [false, true].map(|v6| (rule::ip(v6), DESTINATIONS[usize::from(v6)]));
        match &entry.destinations {
            Destinations::Local => self.hooked(PREROUTING, vec![rule::enter_local()]),
            Destinations::Addresses(addresses) => {
                let enter = families.map(|(ip, set)| rule::enter_addresses(ip, set));
                let own = families.map(|(ip, set)| rule::enter_own(ip, set, FROM_INTERNAL));
                self.hooked(PREROUTING, enter.into());
                self.hooked(OUTPUT, own.into());
                self.table.destinations.clone_from(addresses);
            }
        }
    }

    /// Where it goes.
    fn forwards(&mut self, forwards: impl Iterator<Item = (ForwardKey, &'a Forward)>) {
        let mut owner: Option<(&ObjectRef, Name)> = None;
        let mut elements: BTreeMap<Exposure, Vec<_>> = BTreeMap::new();
        for (key, forward) in forwards {
            let comment = match &owner {
                Some((last, comment)) if **last == forward.owner => Arc::clone(comment),
                _ => Name::from(owner_comment(&forward.owner)),
            };
            owner = Some((&forward.owner, Arc::clone(&comment)));

            let (chain, port) = self.target(key, forward);
            let chain = match &forward.sources {
                Some(sources) => self.allowed(sources, forward, &chain),
                None => chain,
            };
            let element = Element { chain: Some(chain), comment: Some(comment), port };
            elements.entry(key.exposure).or_default().push(((key.protocol, key.port), element));
        }
        // Collecting sorted pairs builds a tree at once; inserting one by one would not.
        for (exposure, elements) in elements {
            let all = self.table.forwards.entry(exposure).or_default();
            match all.is_empty() {
                true => *all = elements.into_iter().collect(),
                false => all.extend(elements),
            }
        }
    }

    /// The chain that sends a forward to its targets, and the node port.
    fn target(&mut self, key: ForwardKey, forward: &'a Forward) -> (Name, Option<api::port::Port>) {
        match &forward.targets {
            Targets::Nodes { set, port } => {
                let counter = (!forward.affinity).then(|| rule::counter(key.protocol, key.port));
                (self.nodes(set, counter, key.exposure), Some(*port))
            }
            Targets::Pods(pods) => {
                let name = pods_chain(key);
                let choice = if forward.affinity { Choice::BySource } else { Choice::InTurn };
                (self.chain(&name, rule::to_pods(pods, choice, key.protocol)), None)
            }
        }
    }

    /// The chain of a node set with the given counter, or by source address without one.
    fn nodes(&mut self, set: &'a NodeSetName, counter: Option<u16>, exposure: Exposure) -> Name {
        if let Some(name) = self.names.get(&(set, counter, exposure)) {
            return Arc::clone(name);
        }
        let number = counter.map_or_else(|| "sticky".to_owned(), |it| it.to_string());
        let name = format!("{}-{number}{}", node_set_prefix(set), suffix(exposure));
        let choice = if counter.is_some() { Choice::InTurn } else { Choice::BySource };
        let nodes = self.forwarding.nodes(set).collect();
        let name = self.chain(&name, rule::to_nodes(&nodes, choice, exposure));
        self.names.insert((set, counter, exposure), Arc::clone(&name));
        name
    }

    /// The chain that lets `sources` go on to `chain`.
    fn allowed(&mut self, sources: &SourceRanges, forward: &Forward, chain: &Name) -> Name {
        let owner = chain_part(forward.owner.namespace.as_deref(), &forward.owner.name);
        let hash = short_hash(&format!("{sources} {chain}"));
        let name = format!("{ALLOW}{hash}-{owner}");
        if let Some((name, _)) = self.table.chains.get_key_value(name.as_str()) {
            return Arc::clone(name);
        }
        let mut rules = Vec::new();
        if matches!(self.forwarding.entry.destinations, Destinations::Addresses(_)) {
            rules.push(rule::allow_own(chain));
        }
        rules.extend(rule::allow(sources, chain));
        self.chain(&name, rules)
    }

    /// What is done about the sources of forwarded connections.
    fn sources_of_forwarded(&mut self) {
        let forwarding = self.forwarding;
        let options = forwarding.options;
        let mut rules = Vec::new();
        if options.masquerade {
            rules.extend([false, true].map(rule::masquerade));
        } else if options.hairpin {
            // Masquerading everything includes this.
            rules.extend([false, true].map(rule::hairpin));
        }
        if rules.is_empty() {
            return;
        }
        self.hooked(POSTROUTING, rules);
        self.table.targets = targets(forwarding);
        self.table.forwarded =
            forwarding.forwards.keys().map(|it| (it.protocol, it.port)).collect();
    }

    fn chain(&mut self, name: &str, rules: Vec<String>) -> Name {
        let name = Name::from(name);
        self.table.chains.insert(Arc::clone(&name), Chain { hook: None, rules });
        name
    }

    fn hooked(&mut self, hook: Hook, rules: Vec<String>) {
        let chain = Chain { hook: Some(hook.chain), rules };
        self.table.chains.insert(hook.chain.into(), chain);
    }
}

/// Every address that a forward leads to.
pub(crate) fn targets(forwarding: &Forwarding) -> BTreeSet<IpAddr> {
    let mut sets = BTreeSet::new();
    let mut targets = BTreeSet::new();
    for forward in forwarding.forwards.values() {
        match &forward.targets {
            Targets::Nodes { set, .. } => {
                if sets.insert(set) {
                    targets.extend(forwarding.nodes(set));
                }
            }
            Targets::Pods(pods) => targets.extend(pods.iter().map(std::net::SocketAddr::ip)),
        }
    }
    targets
}

/// `pods-tcp-80`, `pods-tcp-80-internal`.
fn pods_chain(key: ForwardKey) -> String {
    format!("pods-{}-{}{}", key.protocol, key.port, suffix(key.exposure))
}

fn suffix(exposure: Exposure) -> &'static str {
    match exposure {
        Exposure::Everywhere => "",
        Exposure::Internal => "-internal",
        Exposure::External => "-external",
    }
}
