//! The changes that turn an observed table into the desired one, and the transaction that makes
//! them.
//!
//! Only what differs is spelled out. Existing things are expected to exist and new things to be
//! new (`delete`, `create`): when the kernel has changed since it was read, it refuses the whole
//! transaction, and the caller reads again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use planner::desired::Exposure;

use super::describe::describe;
use super::layout::{
    DESTINATIONS, EXPOSURES, FAMILY, FORWARDED, INTERFACES, TABLE, TARGETS, ports, verdicts,
};
use super::scope::Scope;
use super::table::{
    Chain, Element, Name, PortKey, Table, hook, hook_line, interface, node_port, port_key, verdict,
};

/// What has to be done to one table.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct TablePlan {
    pub(crate) change: Change,
    /// One line a step, for people.
    pub(crate) steps: Vec<String>,
}

/// The kinds of changes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) enum Change {
    /// None.
    #[default]
    Nothing,
    /// The table goes.
    Remove,
    /// The table is written anew, in the same transaction in which the old one goes.
    Replace(Box<Table>),
    /// Some of its parts change.
    Parts(Box<Parts>),
}

/// The parts that change. A changed value is a removal and an addition.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Parts {
    /// `set or map` -> elements to delete and to create, as text.
    removed: Vec<(&'static str, Vec<String>)>,
    created_chains: BTreeMap<Name, Chain>,
    changed_chains: BTreeMap<Name, Vec<String>>,
    deleted_chains: BTreeSet<Name>,
    added: Vec<(&'static str, Vec<String>)>,
    /// The same for the model.
    set_elements: Vec<(Exposure, PortKey, Option<Element>)>,
    interfaces: Option<BTreeMap<String, Name>>,
    destinations: Option<BTreeSet<IpAddr>>,
    targets: Option<BTreeSet<IpAddr>>,
    forwarded: Option<BTreeSet<PortKey>>,
}

/// Returns what turns `observed` into `desired`; empty exactly when they are equal.
///
/// Outside of `scope` the two must be known to be equal.
pub(crate) fn plan(desired: Option<&Table>, observed: Option<&Table>, scope: &Scope) -> TablePlan {
    match (desired, observed) {
        (None, None) => TablePlan::default(),
        (None, Some(old)) => {
            let step = format!("- table {FAMILY} {TABLE} ({} forwards)", old.count());
            TablePlan { change: Change::Remove, steps: vec![step] }
        }
        (Some(new), None) => replace(new, &Table::default(), "it does not exist"),
        (Some(new), Some(old)) if needs_replacement(new, old, scope) => {
            replace(new, old, &reasons(new, old))
        }
        (Some(new), Some(old)) => {
            let parts = difference(new, old, scope);
            if parts.is_empty() {
                return TablePlan::default();
            }
            let steps = describe(new, old, scope);
            TablePlan { change: Change::Parts(Box::new(parts)), steps }
        }
    }
}

impl Change {
    /// The transaction; `None` when there is nothing to do.
    pub(crate) fn document(&self) -> Option<String> {
        match self {
            Self::Nothing => None,
            Self::Remove => Some(removal()),
            Self::Replace(table) => Some(format!("{}{table}", removal())),
            Self::Parts(parts) => Some(parts.document()),
        }
    }

    /// Does to `observed` what the kernel does when it takes the transaction.
    pub(crate) fn apply_to(&self, observed: &mut Option<Table>) {
        match self {
            Self::Nothing => {}
            Self::Remove => *observed = None,
            Self::Replace(table) => *observed = Some(Table::clone(table)),
            Self::Parts(parts) => parts.apply_to(observed.get_or_insert_default()),
        }
    }
}

/// The transaction that removes our table, whether it exists or not.
///
/// `destroy table` would say the same, but needs nft 1.0.8 and Linux 6.3.
pub(crate) fn removal() -> String {
    format!("add table {FAMILY} {TABLE}\ndelete table {FAMILY} {TABLE}\n")
}

fn replace(new: &Table, old: &Table, why: &str) -> TablePlan {
    let mut steps = vec![format!("* write the whole table {FAMILY} {TABLE}: {why}")];
    steps.extend(describe(new, old, &Scope::Everywhere));
    TablePlan { change: Change::Replace(Box::new(new.clone())), steps }
}

/// Whether parts of the observed table cannot be changed one by one.
fn needs_replacement(new: &Table, old: &Table, scope: &Scope) -> bool {
    let rehooked = |was: Option<&Chain>, is: Option<&Chain>| {
        was.zip(is).is_some_and(|(was, is)| was.hook != is.hook)
    };
    let mut chains = scope.chains(new, old).into_iter();
    !old.foreign.is_empty() || chains.any(|(_, was, is)| rehooked(was, is))
}

fn reasons(_: &Table, old: &Table) -> String {
    if old.foreign.is_empty() {
        return "a chain has the wrong hook".to_owned();
    }
    let foreign: Vec<_> = old.foreign.iter().map(String::as_str).collect();
    format!("it holds or lacks what only a new table mends ({})", foreign.join("; "))
}

fn difference(new: &Table, old: &Table, scope: &Scope) -> Parts {
    let mut parts = Parts::default();
    for (name, was, is) in scope.chains(new, old) {
        match (was, is) {
            (None, Some(is)) => drop(parts.created_chains.insert(Arc::clone(name), is.clone())),
            (Some(was), Some(is)) if was.rules != is.rules => {
                parts.changed_chains.insert(Arc::clone(name), is.rules.clone());
            }
            (Some(_), None) => drop(parts.deleted_chains.insert(Arc::clone(name))),
            (Some(_), Some(_)) | (None, None) => {}
        }
    }
    for exposure in EXPOSURES {
        parts.compare_forwards(exposure, scope.forwards(new.of(exposure), old.of(exposure)));
    }
    parts.compare_sets(new, old);
    parts
}

impl Parts {
    fn is_empty(&self) -> bool {
        let chains = self.created_chains.len() + self.changed_chains.len();
        chains + self.deleted_chains.len() + self.removed.len() + self.added.len() == 0
    }

    fn compare_forwards(
        &mut self,
        exposure: Exposure,
        differing: Vec<(PortKey, Option<&Element>, Option<&Element>)>,
    ) {
        let mut removed = [Vec::new(), Vec::new()];
        let mut added = [Vec::new(), Vec::new()];
        for (key, was, is) in differing {
            let nothing = Element::default();
            let (before, after) = (was.unwrap_or(&nothing), is.unwrap_or(&nothing));
            if before.verdict() != after.verdict() {
                removed[0].extend(before.verdict().map(|_| port_key(key)));
                added[0].extend(verdict(key, after));
            }
            if before.port != after.port {
                removed[1].extend(before.port.map(|_| port_key(key)));
                added[1].extend(node_port(key, after));
            }
            self.set_elements.push((exposure, key, is.cloned()));
        }
        for (map, elements) in [verdicts(exposure), ports(exposure)].into_iter().zip(removed) {
            self.remove(map, elements);
        }
        for (map, elements) in [verdicts(exposure), ports(exposure)].into_iter().zip(added) {
            self.add(map, elements);
        }
    }

    fn compare_sets(&mut self, new: &Table, old: &Table) {
        if new.interfaces != old.interfaces {
            let gone =
                old.interfaces.iter().filter(|(key, it)| new.interfaces.get(*key) != Some(it));
            self.remove(INTERFACES, gone.map(|(key, _)| format!("\"{key}\"")).collect());
            let come =
                new.interfaces.iter().filter(|(key, it)| old.interfaces.get(*key) != Some(it));
            self.add(INTERFACES, come.map(|(key, chain)| interface(key, chain)).collect());
            self.interfaces = Some(new.interfaces.clone());
        }
        if new.destinations != old.destinations {
            self.compare_addresses(DESTINATIONS, &new.destinations, &old.destinations);
            self.destinations = Some(new.destinations.clone());
        }
        if new.targets != old.targets {
            self.compare_addresses(TARGETS, &new.targets, &old.targets);
            self.targets = Some(new.targets.clone());
        }
        if new.forwarded != old.forwarded {
            let keys = |a: &BTreeSet<PortKey>, b| a.difference(b).map(|it| port_key(*it)).collect();
            self.remove(FORWARDED, keys(&old.forwarded, &new.forwarded));
            self.add(FORWARDED, keys(&new.forwarded, &old.forwarded));
            self.forwarded = Some(new.forwarded.clone());
        }
    }

    fn compare_addresses(
        &mut self,
        sets: [&'static str; 2],
        new: &BTreeSet<IpAddr>,
        old: &BTreeSet<IpAddr>,
    ) {
        for (v6, set) in [false, true].into_iter().zip(sets) {
            let only = |a: &BTreeSet<IpAddr>, b| {
                let family = a.difference(b).filter(|it| it.is_ipv6() == v6);
                family.map(ToString::to_string).collect()
            };
            self.remove(set, only(old, new));
            self.add(set, only(new, old));
        }
    }

    fn remove(&mut self, container: &'static str, elements: Vec<String>) {
        if !elements.is_empty() {
            self.removed.push((container, elements));
        }
    }

    fn add(&mut self, container: &'static str, elements: Vec<String>) {
        if !elements.is_empty() {
            self.added.push((container, elements));
        }
    }

    /// Elements go before the chains that they name, and come after them.
    fn document(&self) -> String {
        let mut text = String::new();
        for (container, elements) in &self.removed {
            write_elements(&mut text, "delete", container, elements);
        }
        let at = format!("{FAMILY} {TABLE}");
        for (name, chain) in &self.created_chains {
            match chain.hook.and_then(hook) {
                Some(hook) => {
                    line(&mut text, &format!("create chain {at} {name} {{ {} }}", hook_line(hook)))
                }
                None => line(&mut text, &format!("create chain {at} {name}")),
            }
        }
        for name in self.changed_chains.keys().chain(&self.deleted_chains) {
            line(&mut text, &format!("flush chain {at} {name}"));
        }
        let created = self.created_chains.iter().map(|(name, it)| (name, &it.rules));
        for (name, rules) in created.chain(&self.changed_chains) {
            for rule in rules {
                line(&mut text, &format!("add rule {at} {name} {rule}"));
            }
        }
        for name in &self.deleted_chains {
            line(&mut text, &format!("delete chain {at} {name}"));
        }
        for (container, elements) in &self.added {
            write_elements(&mut text, "create", container, elements);
        }
        text
    }

    fn apply_to(&self, table: &mut Table) {
        for name in &self.deleted_chains {
            table.chains.remove(name);
        }
        for (name, chain) in &self.created_chains {
            table.chains.insert(Arc::clone(name), chain.clone());
        }
        for (name, rules) in &self.changed_chains {
            if let Some(chain) = table.chains.get_mut(name) {
                chain.rules.clone_from(rules);
            }
        }
        for (exposure, key, element) in &self.set_elements {
            let elements = table.forwards.entry(*exposure).or_default();
            match element {
                Some(element) => elements.insert(*key, element.clone()),
                None => elements.remove(key),
            };
            if elements.is_empty() {
                table.forwards.remove(exposure);
            }
        }
        let Self { interfaces, destinations, targets, forwarded, .. } = self;
        table.interfaces = interfaces.clone().unwrap_or(std::mem::take(&mut table.interfaces));
        table.destinations =
            destinations.clone().unwrap_or(std::mem::take(&mut table.destinations));
        table.targets = targets.clone().unwrap_or(std::mem::take(&mut table.targets));
        table.forwarded = forwarded.clone().unwrap_or(std::mem::take(&mut table.forwarded));
    }
}

fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

fn write_elements(text: &mut String, verb: &str, container: &str, elements: &[String]) {
    // Writing to a String cannot fail.
    let _ = write!(text, "{verb} element {FAMILY} {TABLE} {container} {{ ");
    for (index, element) in elements.iter().enumerate() {
        text.push_str(if index == 0 { "" } else { ", " });
        text.push_str(element);
    }
    text.push_str(" }\n");
}
