//! The content of our table: what is desired and what a listing shows, in one form.
//!
//! Rules are text in the exact spelling in which we write them, so comparing them is comparing
//! text; elements are typed, because there are many of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use api::port::{Port, Protocol};
use planner::desired::Exposure;

use super::layout::{
    CONTAINERS, Container, DESTINATIONS, EXPOSURES, FAMILY, FORWARDED, HOOKS, Hook, INTERFACES,
    TABLE, TARGETS, ports, verdicts,
};

use super::reading::{Action, may_stand, rule};

/// The name of a chain.
pub(crate) type Name = Arc<str>;

/// A transport protocol and a host port: the key of every forwarding map.
pub(crate) type PortKey = (Protocol, Port);

/// Our table, wholly.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Table {
    /// Every chain with its rules.
    pub(crate) chains: BTreeMap<Name, Chain>,
    /// Interface -> chain.
    pub(crate) interfaces: BTreeMap<String, Name>,
    /// The addresses that count as the host.
    pub(crate) destinations: BTreeSet<IpAddr>,
    /// The addresses that forwards lead to.
    pub(crate) targets: BTreeSet<IpAddr>,
    /// The host ports.
    pub(crate) forwarded: BTreeSet<PortKey>,
    /// What is forwarded, by exposure.
    pub(crate) forwards: BTreeMap<Exposure, BTreeMap<PortKey, Element>>,
    /// What a listing holds that we would never write, or lacks that we always write. Only a
    /// replacement of the whole table mends it. Empty in what is desired.
    pub(crate) foreign: BTreeSet<String>,
}

/// A chain.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Chain {
    /// Where a base chain hooks in, by the name of its entry in the layout.
    pub(crate) hook: Option<&'static str>,
    /// The rules, in order.
    pub(crate) rules: Vec<String>,
}

/// One host port: its element in the verdict map and its element in the port map.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Element {
    /// The chain that forwards it.
    pub(crate) chain: Option<Name>,
    /// Who asked for it.
    pub(crate) comment: Option<Name>,
    /// The node port; pods have their port in their chain.
    pub(crate) port: Option<Port>,
}

impl Element {
    /// Whether the verdict map has this host port.
    pub(crate) fn verdict(&self) -> Option<(&Name, Option<&Name>)> {
        self.chain.as_ref().map(|it| (it, self.comment.as_ref()))
    }
}

impl Table {
    /// What of it we can write: without what is not ours, and without what led there.
    pub(crate) fn writable(&self) -> Self {
        let mut table = Self { foreign: BTreeSet::new(), ..self.clone() };
        table.chains.retain(|name, it| it.hook.is_some() || hook(name).is_none());
        let names: BTreeSet<Name> = table.chains.keys().cloned().collect();
        for (name, chain) in &mut table.chains {
            chain.rules.retain(|it| {
                may_stand(name, it) && leads_to(it).is_none_or(|it| names.contains(it.as_str()))
            });
        }
        table.interfaces.retain(|_, chain| names.contains(chain));
        for element in table.forwards.values_mut().flat_map(BTreeMap::values_mut) {
            if !element.chain.as_ref().is_some_and(|it| names.contains(it)) {
                element.chain = None;
                element.comment = None;
            }
        }
        table
    }

    /// The elements of one exposure.
    pub(crate) fn of(&self, exposure: Exposure) -> &BTreeMap<PortKey, Element> {
        static NONE: BTreeMap<PortKey, Element> = BTreeMap::new();
        self.forwards.get(&exposure).unwrap_or(&NONE)
    }

    /// How many host ports are forwarded.
    pub(crate) fn count(&self) -> usize {
        self.forwards.values().map(BTreeMap::len).sum()
    }

    /// The elements of a set or map as text.
    fn elements(&self, container: &Container) -> Vec<String> {
        let name = container.name;
        if name == INTERFACES {
            return self.interfaces.iter().map(|(key, chain)| interface(key, chain)).collect();
        }
        if name == FORWARDED {
            return self.forwarded.iter().map(|it| port_key(*it)).collect();
        }
        if let Some(v6) = DESTINATIONS.iter().position(|it| *it == name) {
            return addresses(&self.destinations, v6 == 1);
        }
        if let Some(v6) = TARGETS.iter().position(|it| *it == name) {
            return addresses(&self.targets, v6 == 1);
        }
        for exposure in EXPOSURES {
            let elements = self.of(exposure).iter();
            if name == verdicts(exposure) {
                return elements.filter_map(|(key, it)| verdict(*key, it)).collect();
            }
            if name == ports(exposure) {
                return elements.filter_map(|(key, it)| node_port(*key, it)).collect();
            }
        }
        Vec::new()
    }
}

/// The table as `nft -f` reads it. Loading it needs an absent or empty table.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {FAMILY} {TABLE} {{")?;
        for (index, container) in CONTAINERS.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            writeln!(f, "\t{} {} {{", container.keyword, container.name)?;
            writeln!(f, "\t\t{}", type_line(container))?;
            let elements = self.elements(container);
            if !elements.is_empty() {
                writeln!(f, "\t\telements = {{")?;
                for element in elements {
                    writeln!(f, "\t\t\t{element},")?;
                }
                writeln!(f, "\t\t}}")?;
            }
            writeln!(f, "\t}}")?;
        }
        for (name, chain) in &self.chains {
            writeln!(f, "\n\tchain {name} {{")?;
            if let Some(hook) = chain.hook.and_then(hook) {
                writeln!(f, "\t\t{}", hook_line(hook))?;
            }
            for rule in &chain.rules {
                writeln!(f, "\t\t{rule}")?;
            }
            writeln!(f, "\t}}")?;
        }
        writeln!(f, "}}")
    }
}

/// The chain that a rule goes to.
fn leads_to(text: &str) -> Option<String> {
    match rule(text)?.action {
        Action::Goto(chain) => Some(chain),
        Action::ByInterface { .. }
        | Action::ByPort { .. }
        | Action::Translate { .. }
        | Action::Masquerade => None,
    }
}

/// The layout's entry for a base chain.
pub(crate) fn hook(chain: &str) -> Option<&'static Hook> {
    HOOKS.iter().find(|it| it.chain == chain)
}

/// `type nat hook prerouting priority dstnat + 5; policy accept;`.
pub(crate) fn hook_line(hook: &Hook) -> String {
    let Hook { kind, hook, priority_text, .. } = hook;
    format!("type {kind} hook {hook} priority {priority_text}; policy accept;")
}

/// `type inet_proto . inet_service : verdict`.
pub(crate) fn type_line(container: &Container) -> String {
    match container.value {
        Some(value) => format!("type {} : {value}", container.key),
        None => format!("type {}", container.key),
    }
}

/// `"eth0" : goto from-external`.
pub(crate) fn interface(name: &str, chain: &str) -> String {
    format!("\"{name}\" : goto {chain}")
}

/// `tcp . 443`.
pub(crate) fn port_key((protocol, port): PortKey) -> String {
    format!("{protocol} . {port}")
}

/// `tcp . 443 comment "Service web/blog" : goto nodes-all-1`.
pub(crate) fn verdict(key: PortKey, element: &Element) -> Option<String> {
    let (chain, comment) = element.verdict()?;
    let key = port_key(key);
    Some(match comment {
        Some(comment) => format!("{key} comment \"{comment}\" : goto {chain}"),
        None => format!("{key} : goto {chain}"),
    })
}

/// `tcp . 443 : 30443`.
pub(crate) fn node_port(key: PortKey, element: &Element) -> Option<String> {
    element.port.map(|port| format!("{} : {port}", port_key(key)))
}

fn addresses(set: &BTreeSet<IpAddr>, v6: bool) -> Vec<String> {
    set.iter().filter(|it| it.is_ipv6() == v6).map(ToString::to_string).collect()
}
