//! What a change means, one line a step, for people.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use planner::desired::ForwardKey;

use super::layout::{EXPOSURES, PREFIXES};
use super::scope::Scope;
use super::table::{Chain, Element, Name, Table};

/// Describes how `new` differs from `old`, outside of `scope` not at all.
pub(crate) fn describe(new: &Table, old: &Table, scope: &Scope) -> Vec<String> {
    let mut steps = Vec::new();
    let mut covered = BTreeSet::new();
    for exposure in EXPOSURES {
        for ((protocol, port), was, is) in scope.forwards(new.of(exposure), old.of(exposure)) {
            let key = ForwardKey { protocol, port, exposure };
            covered.extend(was.iter().chain(&is).filter_map(|it| it.chain.clone()));
            steps.push(forward(key, was, is));
        }
    }
    steps.extend(chains(new, old, scope, &covered));
    let interfaces = |it: &Table| -> BTreeSet<String> {
        it.interfaces.iter().map(|(key, chain)| format!("{key} {chain}")).collect()
    };
    let texts = |it: &BTreeSet<IpAddr>| it.iter().map(ToString::to_string).collect();
    set(&mut steps, "interface", &interfaces(new), &interfaces(old));
    set(&mut steps, "destination", &texts(&new.destinations), &texts(&old.destinations));
    if !steps.is_empty() {
        return steps;
    }
    // What is left are sets that only follow what was described above, or drift in one of them.
    if new.targets != old.targets || new.forwarded != old.forwarded {
        steps.push("~ sets of targets and host ports".to_owned());
    }
    steps
}

fn forward(key: ForwardKey, was: Option<&Element>, is: Option<&Element>) -> String {
    let owner = |it: &Element| it.comment.as_deref().unwrap_or("nobody").to_owned();
    match (was, is) {
        (None, Some(is)) => format!("+ {key} -> {} ({})", way(is), owner(is)),
        (Some(was), None) => format!("- {key} -> {} ({})", way(was), owner(was)),
        (Some(was), Some(is)) if owner(was) != owner(is) => {
            format!("~ {key} -> {} ({}), was {} ({})", way(is), owner(is), way(was), owner(was))
        }
        (Some(was), Some(is)) => {
            format!("~ {key} -> {} ({}), was {}", way(is), owner(is), way(was))
        }
        (None, None) => format!("~ {key}"),
    }
}

/// `nodes-all-3:30443`, or the chain alone for pods.
fn way(element: &Element) -> String {
    let chain = element.chain.as_deref().unwrap_or("nowhere");
    match element.port {
        Some(port) => format!("{chain}:{port}"),
        None => chain.to_owned(),
    }
}

/// Changed chains; those of one node set change together and are told once.
fn chains(new: &Table, old: &Table, scope: &Scope, covered: &BTreeSet<Name>) -> BTreeSet<String> {
    let mut steps = BTreeSet::new();
    for (name, was, is) in scope.chains(new, old) {
        match (was, is) {
            (Some(was), Some(is)) if was.rules != is.rules => {
                steps.insert(format!("~ {}{}", title(name, new), content(is)));
            }
            (None, Some(_)) if !covered.contains(name) && !is_ours(name) => {
                steps.insert(format!("+ chain {name}"));
            }
            (Some(was), None) if !covered.contains(name) => {
                let rules = was.rules.len();
                steps.insert(format!("- chain {name}, unused ({rules} rules)"));
            }
            (Some(_) | None, Some(_) | None) => {}
        }
    }
    steps
}

fn is_ours(name: &str) -> bool {
    PREFIXES.iter().any(|it| name.starts_with(it))
}

/// `nodes-all`, `pods-tcp-80 (Pod web/blog)`.
fn title(name: &str, table: &Table) -> String {
    if name.starts_with("nodes-") {
        let set = name.trim_end_matches("-internal").trim_end_matches("-external");
        return set.rsplit_once('-').map_or(set, |(set, _)| set).to_owned();
    }
    let leads_here = |it: &&Element| it.chain.as_deref() == Some(name);
    let element = table.forwards.values().flat_map(BTreeMap::values).find(leads_here);
    match element.and_then(|it| it.comment.as_deref()) {
        Some(owner) => format!("{name} ({owner})"),
        None => format!("chain {name}"),
    }
}

/// The targets of a chain, or nothing when it has none.
fn content(chain: &Chain) -> String {
    let targets: Vec<_> = chain.rules.iter().flat_map(|it| targets(it)).collect();
    if targets.is_empty() { String::new() } else { format!(": {}", targets.join(", ")) }
}

fn targets(rule: &str) -> Vec<String> {
    let Some((_, to)) = rule.split_once(" to ") else { return Vec::new() };
    if let Some((_, map)) = to.split_once(" map { ") {
        let map = map.split_once(" }").map_or(map, |(map, _)| map);
        let target = |it: &str| it.split_once(" : ").map(|(_, it)| it.replace(" . ", ":"));
        return map.split(", ").filter_map(target).collect();
    }
    vec![to.split_once(" : ").map_or(to, |(address, _)| address).to_owned()]
}

fn set(steps: &mut Vec<String>, what: &str, new: &BTreeSet<String>, old: &BTreeSet<String>) {
    steps.extend(old.difference(new).map(|it| format!("- {what} {it}")));
    steps.extend(new.difference(old).map(|it| format!("+ {what} {it}")));
}
