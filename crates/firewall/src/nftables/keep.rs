//! What stays for owners that are broken: what the host still forwards for them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use api::object::ObjectRef;
use planner::desired::Exposure;

use super::layout::{EXPOSURES, POSTROUTING};
use super::render::node_chain_rules;
use super::table::{Chain, Name, PortKey, Table};
use crate::label::owner_comment;

/// Returns `desired` with what `observed` forwards for the owners in `keep`.
///
/// What is desired wins over what is kept. Kept chains of a node set follow the set as it is now,
/// so that keeping does not mean sending to nodes that are gone.
pub(crate) fn with_kept(
    desired: &Table,
    observed: &Table,
    keep: &BTreeSet<ObjectRef>,
    node_sets: &BTreeMap<String, BTreeSet<IpAddr>>,
) -> Table {
    let owners: BTreeSet<String> = keep.iter().map(owner_comment).collect();
    let mut table = desired.clone();
    // What somebody else put into our table is not kept.
    let observed = &observed.writable();
    for exposure in EXPOSURES {
        for (key, element) in observed.of(exposure) {
            let owned = element.comment.as_deref().is_some_and(|it| owners.contains(it));
            let Some(chain) = element.chain.as_ref().filter(|_| owned) else { continue };
            if is_claimed(desired, *key, exposure) {
                continue;
            }
            if !keep_chain(&mut table, observed, chain, node_sets, true) {
                continue;
            }
            table.forwards.entry(exposure).or_default().insert(*key, element.clone());
            if table.chains.contains_key(POSTROUTING.chain) {
                table.forwarded.insert(*key);
                table.targets.extend(&observed.targets);
            }
        }
    }
    table
}

/// Whether a desired forward would meet the same connections.
fn is_claimed(desired: &Table, key: PortKey, exposure: Exposure) -> bool {
    let meets = |other: &Exposure| {
        *other == exposure || *other == Exposure::Everywhere || exposure == Exposure::Everywhere
    };
    EXPOSURES.iter().filter(|it| meets(it)).any(|it| desired.of(*it).contains_key(&key))
}

/// Keeps a chain and those that it leads to; false when one of them is not there, or leads on.
fn keep_chain(
    table: &mut Table,
    observed: &Table,
    name: &Name,
    node_sets: &BTreeMap<String, BTreeSet<IpAddr>>,
    may_lead_on: bool,
) -> bool {
    if table.chains.contains_key(name) {
        return true;
    }
    let Some(old) = observed.chains.get(name).filter(|it| it.hook.is_none()) else {
        return false;
    };
    let leads_to = old.rules.iter().filter_map(|it| it.rsplit_once("goto ").map(|(_, to)| to));
    for next in leads_to.map(Name::from).collect::<BTreeSet<_>>() {
        // Chains of ours lead one step further at most, and never back. A listing can say anything.
        if !may_lead_on || !keep_chain(table, observed, &next, node_sets, false) {
            return false;
        }
    }
    let rules = node_set_of(name)
        .and_then(|it| node_sets.get(it))
        .and_then(|nodes| node_chain_rules(name, nodes))
        .unwrap_or_else(|| old.rules.clone());
    table.chains.insert(Arc::clone(name), Chain { hook: None, rules });
    true
}

/// The start of a node chain's name that names its set.
fn node_set_of(chain: &str) -> Option<&str> {
    let chain =
        chain.strip_suffix("-internal").or(chain.strip_suffix("-external")).unwrap_or(chain);
    chain.starts_with("nodes-").then(|| chain.rsplit_once('-').map(|(set, _)| set)).flatten()
}
