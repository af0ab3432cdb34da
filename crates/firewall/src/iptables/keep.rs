//! What stays for owners that are broken: what the host still forwards for them.

use std::collections::BTreeSet;

use api::object::ObjectRef;
use planner::desired::Exposure;

use super::layout::{ACCEPT, FILTER, FORWARD, HAIRPIN, MASQUERADE, NAT, POSTROUTING, lookup};
use super::plan::chains_of;
use super::render::{PortKey, port_rules};
use super::tables::{Families, Family};
use super::words;
use crate::label::owner_comment;
use crate::nftables::layout::EXPOSURES;

/// A rule of a lookup chain.
pub(crate) struct LookupRule {
    pub(crate) key: PortKey,
    pub(crate) comment: String,
    pub(crate) chain: String,
}

/// Reads a rule of a lookup chain; `None` when it is not one that we write.
pub(crate) fn lookup_rule(rule: &str) -> Option<LookupRule> {
    let words = words::split(rule)?;
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        [
            "-p",
            protocol,
            "-m",
            module,
            "--dport",
            port,
            "-m",
            "comment",
            "--comment",
            comment,
            "-g",
            chain,
        ] if protocol == module => {
            let key = (protocol.parse().ok()?, port.parse().ok()?);
            Some(LookupRule { key, comment: (*comment).to_owned(), chain: (*chain).to_owned() })
        }
        _ => None,
    }
}

/// Returns `desired` with what `observed` forwards for the owners in `keep`, to the targets that
/// it has. What is desired wins over what is kept.
pub(crate) fn with_kept(
    desired: &Families,
    observed: &Families,
    keep: &BTreeSet<ObjectRef>,
) -> Families {
    let owners: BTreeSet<String> = keep.iter().map(owner_comment).collect();
    // What somebody else put into our chains is not kept.
    let observed = observed.writable();
    let family = |new: &Family, old: &Family| kept(new, old, &owners);
    Families {
        ipv4: family(&desired.ipv4, &observed.ipv4),
        ipv6: family(&desired.ipv6, &observed.ipv6),
    }
}

fn kept(desired: &Family, observed: &Family, owners: &BTreeSet<String>) -> Family {
    let mut family = desired.clone();
    let mut any = false;
    for exposure in EXPOSURES {
        for rule in observed.rules(NAT, lookup(exposure)) {
            let Some(found) = lookup_rule(rule) else { continue };
            if owners.contains(&found.comment) && !is_claimed(desired, found.key, exposure) {
                keep_rule(&mut family, observed, exposure, rule, &found);
                any = true;
            }
        }
    }
    if any {
        let rules = EXPOSURES.iter().flat_map(|it| family.rules(NAT, lookup(*it)));
        let keys = rules.filter_map(|it| Some(lookup_rule(it)?.key)).collect();
        follow(&mut family, observed, &keys);
    }
    family
}

/// Lets the lists of host ports and targets follow what is kept.
pub(crate) fn follow(family: &mut Family, observed: &Family, keys: &BTreeSet<PortKey>) {
    for (table, chain, what) in [(NAT, MASQUERADE, "MASQUERADE"), (FILTER, ACCEPT, "ACCEPT")] {
        if let Some(rules) = family.tables.get_mut(table).and_then(|it| it.chains.get_mut(chain)) {
            *rules = port_rules(keys, what);
        }
    }
    for (table, chain) in [(NAT, POSTROUTING), (NAT, HAIRPIN), (FILTER, FORWARD)] {
        let old = observed.rules(table, chain);
        if let Some(new) = family.tables.get_mut(table).and_then(|it| it.chains.get_mut(chain)) {
            let missing: Vec<_> = old.iter().filter(|it| !new.contains(it)).cloned().collect();
            new.extend(missing);
        }
    }
}

fn is_claimed(desired: &Family, key: PortKey, exposure: Exposure) -> bool {
    let meets = |other: &Exposure| {
        *other == exposure || *other == Exposure::Everywhere || exposure == Exposure::Everywhere
    };
    let rules = EXPOSURES.iter().filter(|it| meets(it));
    let mut rules = rules.flat_map(|it| desired.rules(NAT, lookup(*it)));
    rules.any(|it| lookup_rule(it).is_some_and(|it| it.key == key))
}

fn keep_rule(
    family: &mut Family,
    observed: &Family,
    exposure: Exposure,
    rule: &str,
    found: &LookupRule,
) {
    let part = family.tables.entry(NAT).or_default();
    let rules = part.chains.entry(lookup(exposure).into()).or_default();
    rules.push(rule.to_owned());
    rules.sort_by_key(|it| lookup_rule(it).map(|it| it.key));
    for (name, rules) in chains_of(observed, &found.chain) {
        part.chains.insert(name.clone(), rules.clone());
    }
}
