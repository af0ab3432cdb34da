//! Rules that Epok left on a host: found by its mark, removed in one transaction.
//!
//! Epok wrote single rules into the built-in chains of the IPv4 table `nat` and marked each with
//! `epok_rule_id` in its comment. A host is taken over without a gap by putting our rules in force
//! first; these, which stand before ours, keep winning until they are removed.

use std::collections::BTreeMap;

use command::{Command, Program};

use crate::guard::is_plain;
use crate::iptables::listing::added;
use crate::iptables::words;
use crate::label::excerpt;

/// What Epok put into every comment that it wrote whole.
const MARK: &str = "epok_rule_id";

/// The longest comment that iptables keeps. Longer ones lost their mark with their end.
const COMMENT: usize = 255;

/// The longest line that is repeated whole when it is not understood, in characters.
const LINE: usize = 1024;

/// What was found in a listing.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Left {
    /// Rules that are certainly Epok's, in the order of the listing.
    pub rules: Vec<Rule>,
    /// Lines that may be Epok's but are not understood; they are reported and left alone.
    pub unclear: Vec<String>,
}

/// A rule of Epok's.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rule {
    /// The built-in chain.
    pub chain: String,
    /// The rule as it is listed, without its chain.
    pub text: String,
    /// What its comment says about its origin: `service: web/blog; node: node-a`.
    pub origin: String,
    /// Protocol and host port, `tcp/443`; empty when the rule names none.
    pub port: String,
    /// Where it leads: `10.0.0.1:30443`.
    pub target: String,
}

/// Returns the command whose output [`find`] reads.
#[must_use]
pub fn listing() -> Command {
    Command::new(Program::IptablesSave).args(["-t", "nat"])
}

/// Finds what Epok left in a listing of the table `nat`.
#[must_use]
pub fn find(listing: &str) -> Left {
    let mut left = Left::default();
    let mut table = "";
    for line in listing.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        }
        if line.starts_with('#') || !(line.contains(MARK) || is_cut(line)) {
            continue;
        }
        match read(line) {
            Some(rule) if table == "nat" && !line.contains(char::is_control) => {
                left.rules.push(rule);
            }
            _ => left.unclear.push(excerpt(line, LINE)),
        }
    }
    left
}

/// Whether a rule bears Epok's mark in its comment, and translates addresses as Epok's did.
#[must_use]
pub(crate) fn is_marked(rule: &str) -> bool {
    let Some(words) = words::split(rule) else { return false };
    let after = |option: &str| {
        let mut found = words.iter().zip(words.iter().skip(1)).filter(|(it, _)| *it == option);
        found.next().map(|(_, value)| value.as_str())
    };
    let comments = words.iter().filter(|it| *it == "--comment").count();
    let marked = after("--comment").is_some_and(|it| it.contains(&format!("{MARK}: ")));
    comments == 1 && marked && after("-j") == Some("DNAT")
}

impl Left {
    /// Returns the one transaction that removes the rules; `None` when there are none.
    #[must_use]
    pub fn removal(&self) -> Option<Command> {
        if self.rules.is_empty() {
            return None;
        }
        let lines = self.rules.iter().map(|it| format!("-D {} {}\n", it.chain, it.text));
        let document = format!("*nat\n{}COMMIT\n", lines.collect::<String>());
        let restore = Command::new(Program::IptablesRestore).args(["--noflush", "--wait"]);
        Some(restore.stdin(document))
    }

    /// How many rules each origin has.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for rule in &self.rules {
            *counts.entry(rule.origin.as_str()).or_default() += 1;
        }
        counts
    }
}

fn read(line: &str) -> Option<Rule> {
    let (chain, text) = added(line)?;
    let known = matches!(chain, "PREROUTING" | "OUTPUT");
    if !known || !is_marked(text) || !is_plain(text) {
        return None;
    }
    let words = words::split(text)?;
    let after = |option: &str| {
        let mut pairs = words.iter().zip(words.iter().skip(1));
        pairs.find(|(it, _)| *it == option).map(|(_, value)| value.as_str())
    };
    let comment = after("--comment")?;
    let origin = comment.split(MARK).next().unwrap_or_default();
    let port = match (after("-p"), after("--dport")) {
        (Some(protocol), Some(port)) => format!("{protocol}/{port}"),
        _ => String::new(),
    };
    Some(Rule {
        chain: chain.to_owned(),
        text: text.to_owned(),
        origin: origin.trim_end_matches([' ', ';']).to_owned(),
        port,
        target: after("--to-destination")?.to_owned(),
    })
}

/// Whether a rule looks like one of Epok's whose comment was cut before its mark.
fn is_cut(line: &str) -> bool {
    let Some((_, text)) = added(line) else { return false };
    let Some(words) = words::split(text) else { return false };
    words.iter().any(|it| {
        let epok = (it.starts_with("service: ") && it.contains("; node: "))
            || (it.starts_with("pod: ") && it.contains("; namespace: "));
        epok && it.len() >= COMMENT - 1
    })
}
