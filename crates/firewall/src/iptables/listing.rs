//! What `iptables-save` prints, back to our chains.
//!
//! Rules of others are skipped unread, except for those that lead into our chains. A rule of ours
//! is kept as the text that it is: one that we would not write differs from all that we write.

use std::sync::Arc;

use super::layout::{FILTER, NAT};
use super::reading::is_chain;
use super::tables::{Chains, Family, Name};

/// Reads a listing of all tables of one family.
///
/// # Errors
///
/// Fails with the offending line when the text is not what `iptables-save` prints. A listing
/// that was cut off is an error: what is missing from it would look like drift.
pub(crate) fn parse(text: &str) -> Result<Family, String> {
    let mut family = Family::default();
    // The table that is being read, with its part if we may have something in it.
    let mut table: Option<(String, Option<(&'static str, Chains)>)> = None;
    for line in text.lines() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('*') {
            if table.is_some() {
                return Err(line.to_owned());
            }
            let known = [NAT, FILTER].into_iter().find(|it| *it == name);
            table = Some((name.to_owned(), known.map(|it| (it, Chains::default()))));
            continue;
        }
        let Some((_, part)) = &mut table else { return Err(line.to_owned()) };
        if line == "COMMIT" {
            if let Some((name, mut part)) = part.take() {
                part.jumps.sort();
                if !part.is_empty() {
                    family.tables.insert(name, part);
                }
            }
            table = None;
            continue;
        }
        let known = line.starts_with(':') || line.starts_with('-') || line.starts_with('[');
        if !known {
            return Err(line.to_owned());
        }
        if let Some((_, part)) = part {
            read_line(part, line);
        }
    }
    match table {
        Some((name, _)) => Err(format!("table {name} has no end")),
        None => Ok(family),
    }
}

fn read_line(part: &mut Chains, line: &str) {
    if let Some(declared) = line.strip_prefix(':') {
        let name = declared.split(' ').next().unwrap_or_default();
        if is_chain(name) {
            part.chains.entry(Name::from(name)).or_default();
        }
        return;
    }
    let Some((chain, rule)) = added(line) else { return };
    if is_chain(chain) {
        part.chains.entry(Arc::from(chain)).or_default().push(rule.to_owned());
    } else if leads_to_ours(rule) {
        part.jumps.push(format!("{chain} {rule}"));
    }
}

/// The chain and the rule of `[0:0] -A CHAIN RULE`.
pub(crate) fn added(line: &str) -> Option<(&str, &str)> {
    let line = match line.strip_prefix('[') {
        Some(counted) => counted.split_once("] ")?.1,
        None => line,
    };
    let rest = line.strip_prefix("-A ")?;
    Some(rest.split_once(' ').unwrap_or((rest, "")))
}

/// Whether a rule's target is a chain of ours. The text of a comment is not a target.
pub(crate) fn leads_to_ours(rule: &str) -> bool {
    super::words::split(rule).is_some_and(|words| {
        let mut pairs = words.iter().zip(words.iter().skip(1));
        pairs.any(|(option, value)| matches!(option.as_str(), "-j" | "-g") && is_chain(value))
    })
}
