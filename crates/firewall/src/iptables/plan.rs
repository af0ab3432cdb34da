//! The changes that turn observed chains into the desired ones, and the transactions.
//!
//! `iptables-restore --noflush` changes what its document names and leaves the rest alone. A line
//! that declares a chain creates it, or empties it when it exists; so each document declares the
//! chains that it rewrites, and no others.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::Bound;

use command::{Command, Program};

use super::keep::lookup_rule;
use super::layout::{FILTER, JUMPS, NAT, UNORDERED, lookup};
use super::reading;
use super::render::PortKey;
use super::tables::{Chains, Families, Family, Name};
use crate::label::excerpt;
use crate::nftables::layout::EXPOSURES;

/// What has to be done in both families.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct FamiliesPlan {
    /// One document for each family, where there is something to do.
    pub(crate) documents: [Option<String>; 2],
    /// One line a step, for people.
    pub(crate) steps: Vec<String>,
    /// The state that the plan leads to.
    pub(crate) after: Families,
}

impl FamiliesPlan {
    /// Whether nothing has to change.
    pub(crate) fn is_empty(&self) -> bool {
        self.documents.iter().all(Option::is_none)
    }

    /// The commands: one for each family.
    pub(crate) fn commands(&self) -> Vec<Command> {
        let programs = [Program::IptablesRestore, Program::Ip6tablesRestore];
        let documents = programs.into_iter().zip(&self.documents);
        documents.filter_map(|(program, it)| Some(restore(program, it.clone()?))).collect()
    }
}

/// Returns what turns `observed` into `desired`; empty exactly when they are equal.
pub(crate) fn plan(desired: &Families, observed: &Families) -> FamiliesPlan {
    let mut plan = FamiliesPlan { after: desired.clone(), ..FamiliesPlan::default() };
    for ((v6, new), (_, old)) in desired.each().into_iter().zip(observed.each()) {
        if new != old {
            plan.documents[usize::from(v6)] = document(new, old);
            let steps = describe(new, old, v6);
            // They repeat what the host listed.
            plan.steps.extend(steps.iter().map(|it| excerpt(it, usize::MAX)));
        }
    }
    plan
}

/// Waits for other programs that hold the lock, rather than fail.
fn restore(program: Program, document: String) -> Command {
    Command::new(program).args(["--noflush", "--wait"]).stdin(document)
}

/// Returns the document that turns `old` into `new`; `None` when they are equal.
pub(crate) fn document(new: &Family, old: &Family) -> Option<String> {
    let none = Chains::default();
    let mut text = String::new();
    for table in [NAT, FILTER] {
        let new = new.tables.get(table).unwrap_or(&none);
        let old = old.tables.get(table).unwrap_or(&none);
        if new != old {
            write_table(&mut text, table, new, old);
        }
    }
    (!text.is_empty()).then_some(text)
}

fn write_table(text: &mut String, table: &str, new: &Chains, old: &Chains) {
    let mut lines = vec![format!("*{table}")];
    let mut rules = Vec::new();
    for (name, desired) in &new.chains {
        let observed = old.chains.get(name);
        if observed == Some(desired) {
            continue;
        }
        match observed.and_then(|it| few_changes(name, desired, it)) {
            Some(changes) => rules.extend(changes),
            None => {
                lines.push(format!(":{name} - [0:0]"));
                rules.extend(desired.iter().map(|it| format!("-A {name} {it}")));
            }
        }
    }
    let gone: Vec<_> = old.chains.keys().filter(|it| !new.chains.contains_key(*it)).collect();
    lines.extend(gone.iter().map(|it| format!(":{it} - [0:0]")));
    let (removed, added) = jumps(table, new, old);
    lines.extend(removed);
    lines.extend(rules);
    lines.extend(gone.iter().map(|it| format!("-X {it}")));
    lines.extend(added);
    lines.push("COMMIT".to_owned());
    for line in lines {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{line}");
    }
}

/// Single rules to delete and to insert, where that is less than to write the chain anew.
///
/// Rules are deleted by what they say, so that the kernel notices when they are not there.
fn few_changes(chain: &Name, new: &[String], old: &[String]) -> Option<Vec<String>> {
    if !UNORDERED.contains(&&**chain) {
        return None;
    }
    let same = |(a, b): &(&String, &String)| a == b;
    let head = new.iter().zip(old).take_while(same).count();
    let (new, old) = (&new[head..], &old[head..]);
    let tail = new.iter().rev().zip(old.iter().rev()).take_while(same).count();
    let (new, old) = (&new[..new.len() - tail], &old[..old.len() - tail]);
    // What we would not write cannot be named safely; the whole chain is written anew instead.
    let unknown = old.iter().any(|it| reading::rule(it).is_none());
    if unknown || new.len() + old.len() > head + tail {
        return None;
    }
    let deleted = old.iter().map(|it| format!("-D {chain} {it}"));
    let inserted = new.iter().enumerate();
    let inserted = inserted.map(|(index, it)| format!("-I {chain} {} {it}", head + index + 1));
    Some(deleted.chain(inserted).collect())
}

/// The jumps to delete and to add. One that is there twice is deleted until it is there once.
fn jumps(table: &str, new: &Chains, old: &Chains) -> (Vec<String>, Vec<String>) {
    let mut left = old.jumps.clone();
    let mut added = Vec::new();
    for jump in &new.jumps {
        match left.iter().position(|it| it == jump) {
            Some(index) => drop(left.remove(index)),
            None => {
                let known = JUMPS
                    .iter()
                    .find(|it| it.table == table && format!("{} {}", it.from, it.rule) == *jump);
                added.extend(known.map(|it| match it.first {
                    true => format!("-I {} 1 {}", it.from, it.rule),
                    false => format!("-A {} {}", it.from, it.rule),
                }));
            }
        }
    }
    (left.into_iter().map(|it| format!("-D {it}")).collect(), added)
}

/// What a change means, one line a step, for people.
fn describe(new: &Family, old: &Family, v6: bool) -> Vec<String> {
    let family = if v6 { "IPv6" } else { "IPv4" };
    let mut steps = Vec::new();
    let mut covered = BTreeSet::new();
    let changed = changed_forwards(new, old);
    for exposure in EXPOSURES {
        let chain = lookup(exposure);
        let rules =
            |it: &Family| -> BTreeSet<String> { it.rules(NAT, chain).iter().cloned().collect() };
        let both: BTreeSet<_> = rules(new).intersection(&rules(old)).cloned().collect();
        let differs = |rule: &str| {
            let leads_to = rule.rsplit(' ').next().unwrap_or_default();
            changed.contains(leads_to) || !both.contains(rule)
        };
        let (new, old) = (forwards(new, chain, differs), forwards(old, chain, differs));
        let keys: BTreeSet<_> = new.keys().chain(old.keys()).collect();
        for key in keys {
            let (was, is) = (old.get(key), new.get(key));
            covered.extend(was.iter().chain(&is).map(|it| it.chain.clone()));
            match (was, is) {
                (None, Some(is)) => steps.push(format!("+ {family} {key}{is}")),
                (Some(was), None) => steps.push(format!("- {family} {key}{was}")),
                (Some(was), Some(is)) if was != is => {
                    steps.push(format!("~ {family} {key}{is}, was{was}"));
                }
                _ => {}
            }
        }
    }
    let none = Chains::default();
    for table in [NAT, FILTER] {
        let new = new.tables.get(table).unwrap_or(&none);
        let old = old.tables.get(table).unwrap_or(&none);
        let names: BTreeSet<_> = new.chains.keys().chain(old.chains.keys()).collect();
        for name in names {
            let (was, is) = (old.chains.get(name), new.chains.get(name));
            let told = covered.contains(forward_of(name))
                || (!steps.is_empty() && UNORDERED.contains(&&**name));
            if was == is || (told && was.is_some() && is.is_some()) {
                continue;
            }
            let sign = match (was, is) {
                (None, _) => '+',
                (_, None) => '-',
                _ => '~',
            };
            if !covered.contains(forward_of(name)) {
                steps.push(format!("{sign} {family} {table} chain {name}"));
            }
        }
        let (removed, added) = jumps(table, new, old);
        steps.extend(removed.iter().map(|it| format!("- {family} {table} jump {}", &it[3..])));
        steps.extend(added.iter().map(|it| format!("+ {family} {table} jump {}", &it[3..])));
    }
    steps
}

/// A forward as its chains show it.
#[derive(Eq, PartialEq)]
struct Shown {
    chain: Name,
    owner: String,
    ways: Vec<String>,
}

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, " -> {} ({})", self.ways.join(", "), self.owner)
    }
}

/// The forwards of which a chain differs.
fn changed_forwards<'a>(new: &'a Family, old: &'a Family) -> BTreeSet<&'a str> {
    let none = BTreeMap::new();
    let chains = |it: &'a Family| it.tables.get(NAT).map(|it| &it.chains);
    let (new, old) = (chains(new), chains(old));
    let names = new.into_iter().chain(old).flat_map(BTreeMap::keys);
    let differs =
        |name: &&'a Name| new.unwrap_or(&none).get(*name) != old.unwrap_or(&none).get(*name);
    names.filter(differs).map(|it| forward_of(it)).collect()
}

/// The forwards of a lookup chain whose rules `differ`, by host port.
fn forwards(
    family: &Family,
    chain: &str,
    differ: impl Fn(&str) -> bool,
) -> BTreeMap<String, Shown> {
    let suffix = match chain.rsplit('-').next() {
        Some("INTERNAL") => " internal",
        Some("EXTERNAL") => " external",
        _ => "",
    };
    let mut forwards = BTreeMap::new();
    for rule in family.rules(NAT, chain) {
        let Some(found) = Some(rule).filter(|it| differ(it)).and_then(|it| lookup_rule(it)) else {
            continue;
        };
        let mut ways = Vec::new();
        for (_, rules) in chains_of(family, &found.chain) {
            ways.extend(rules.iter().filter_map(|it| way(it)));
        }
        let chain = Name::from(found.chain.as_str());
        let (protocol, port) = found.key;
        let shown = Shown { chain, owner: found.comment, ways };
        forwards.insert(format!("{port}/{protocol}{suffix}"), shown);
    }
    forwards
}

/// The host ports that a family forwards, each with its lookup chain.
pub(crate) fn keys(family: &Family) -> BTreeSet<(&'static str, PortKey)> {
    let lookups = EXPOSURES.iter().map(|it| lookup(*it));
    let rules = lookups.flat_map(|it| family.rules(NAT, it).iter().map(move |rule| (it, rule)));
    rules.filter_map(|(it, rule)| Some((it, lookup_rule(rule)?.key))).collect()
}

/// A target, or a range that may use it.
fn way(rule: &str) -> Option<String> {
    if let Some((_, target)) = rule.split_once("--to-destination ") {
        return Some(target.to_owned());
    }
    let (source, _) = rule.strip_prefix("-s ")?.split_once(' ')?;
    Some(format!("from {source}"))
}

/// The chains of one forward, given the first of them.
pub(crate) fn chains_of<'a>(
    family: &'a Family,
    first: &'a str,
) -> impl Iterator<Item = (&'a Name, &'a Vec<String>)> {
    let chains = family.tables.get(NAT).map(|it| &it.chains).into_iter();
    let from = (Bound::Included(first), Bound::Unbounded);
    let chains = chains.flat_map(move |it| it.range::<str, _>(from));
    let chains = chains.take_while(move |(name, _)| name.starts_with(first));
    chains.filter(move |(name, _)| forward_of(name) == first)
}

/// The first chain of the forward that a chain belongs to: itself, less `-TO` or the number of a
/// group.
fn forward_of(name: &str) -> &str {
    let number = |it: &str| match it.as_bytes() {
        [tens, ones] => tens.is_ascii_alphanumeric() && ones.is_ascii_digit(),
        _ => false,
    };
    match name.rsplit_once('-') {
        Some((first, "TO")) => first,
        // `PORTCULLIS-TCP-22` is a forward, `PORTCULLIS-TCP-22-07` a group of it.
        Some((first, last)) if number(last) && first.matches('-').count() >= 2 => first,
        _ => name,
    }
}
