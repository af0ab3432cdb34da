//! The text of a ruleset of ours, read back: for following packets through it, and for refusing
//! documents that hold anything else.
//!
//! This is no parser of nftables. It knows the lines that we write and nothing more; what it does
//! not know, it names.

use std::net::{IpAddr, SocketAddr};

use api::port::{Port, Protocol};

use super::layout::{CONTAINERS, FROM_EXTERNAL, FROM_INTERNAL, HOOKS, POSTROUTING, PREFIXES};
use super::table::{hook_line, type_line};
use crate::span::Span;

/// A rule.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Rule {
    pub(crate) matches: Vec<Match>,
    pub(crate) action: Action,
}

/// A condition of a rule. `v6` is the family that it can be true for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Match {
    Family { v6: bool },
    Protocols(Vec<Protocol>),
    LocalDestination,
    Output(String),
    Destination { v6: bool, set: String },
    SourceIn { v6: bool, set: String },
    Source { v6: bool, spans: Vec<Span> },
    Translated,
    OriginalPort { set: String },
}

/// What a rule does.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Action {
    Goto(String),
    ByInterface { map: String },
    ByPort { map: String },
    Translate { v6: bool, choice: Choice, to: Vec<Target>, ports: Option<String> },
    Masquerade,
}

/// How one of several targets is chosen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Choice {
    Only,
    InTurn,
    BySource,
}

/// A target; a node has its port in a map.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Target {
    Node(IpAddr),
    Pod(SocketAddr),
}

/// Reads a rule; `None` when it is not one that we write.
pub(crate) fn rule(text: &str) -> Option<Rule> {
    let mut words = Words(text.split(' ').collect(), 0);
    let mut matches = Vec::new();
    loop {
        if let Some(action) = action(&mut words) {
            return words.at_end().then_some(Rule { matches, action });
        }
        matches.push(condition(&mut words)?);
    }
}

/// Whether a rule may stand in a chain. Sources are rewritten in one place only.
pub(crate) fn may_stand(chain: &str, text: &str) -> bool {
    let rewrites = |rule: &Rule| rule.action == Action::Masquerade;
    rule(text).is_some_and(|it| !rewrites(&it) || chain == POSTROUTING.chain)
}

fn condition(words: &mut Words<'_>) -> Option<Match> {
    if words.take(&["meta", "nfproto"]) {
        let v6 = match words.next()? {
            "ipv4" => false,
            "ipv6" => true,
            _ => return None,
        };
        return Some(Match::Family { v6 });
    }
    // A following `.` makes it part of a key.
    if words.peek(&["meta", "l4proto"]) && words.0.get(words.1 + 2) != Some(&".") {
        words.1 += 2;
        if words.take(&["{", "tcp,", "udp,", "sctp", "}"]) {
            return Some(Match::Protocols(Protocol::ALL.to_vec()));
        }
        return Some(Match::Protocols(vec![protocol(words.next()?)?]));
    }
    if words.take(&["fib", "daddr", "type", "local"]) {
        return Some(Match::LocalDestination);
    }
    if words.take(&["oifname"]) {
        let name = words.next()?.strip_prefix('"')?.strip_suffix('"')?;
        return is_interface(name).then(|| Match::Output(name.to_owned()));
    }
    if words.take(&["ct", "status", "dnat"]) {
        return Some(Match::Translated);
    }
    if words.take(&["meta", "l4proto", ".", "ct", "original", "proto-dst"]) {
        return Some(Match::OriginalPort { set: reference(words.next()?)? });
    }
    let v6 = match words.next()? {
        "ip" => false,
        "ip6" => true,
        _ => return None,
    };
    match words.next()? {
        "daddr" => Some(Match::Destination { v6, set: reference(words.next()?)? }),
        "saddr" => {
            if let Some(set) = words.0.get(words.1).and_then(|it| reference(it)) {
                words.1 += 1;
                return Some(Match::SourceIn { v6, set });
            }
            let spans = words.list()?.into_iter().map(Span::parse).collect::<Option<Vec<_>>>()?;
            let fits = spans.iter().all(|it| it.is_ipv6() == v6);
            fits.then_some(Match::Source { v6, spans })
        }
        _ => None,
    }
}

fn action(words: &mut Words<'_>) -> Option<Action> {
    if words.take(&["goto"]) {
        return words.next().filter(|it| is_chain(it)).map(|it| Action::Goto(it.to_owned()));
    }
    if words.take(&["iifname", "vmap"]) {
        return Some(Action::ByInterface { map: reference(words.next()?)? });
    }
    if words.take(&["meta", "l4proto", ".", "th", "dport", "vmap"]) {
        return Some(Action::ByPort { map: reference(words.next()?)? });
    }
    if words.take(&["masquerade"]) {
        return Some(Action::Masquerade);
    }
    let v6 = match (words.take(&["dnat", "ip", "to"]), words.take(&["dnat", "ip6", "to"])) {
        (true, _) => false,
        (_, true) => true,
        _ => return None,
    };
    let (choice, to) = targets(words)?;
    let fits = to.iter().all(|it| match it {
        Target::Node(address) => address.is_ipv6() == v6,
        Target::Pod(address) => address.is_ipv6() == v6,
    });
    let nodes = to.iter().all(|it| matches!(it, Target::Node(_)));
    let ports = match words.take(&[":", "meta", "l4proto", ".", "th", "dport", "map"]) {
        true => Some(reference(words.next()?)?),
        false => None,
    };
    (fits && nodes == ports.is_some()).then_some(Action::Translate { v6, choice, to, ports })
}

fn targets(words: &mut Words<'_>) -> Option<(Choice, Vec<Target>)> {
    let choice = if words.take(&["numgen", "inc", "mod"]) {
        Choice::InTurn
    } else if words.take(&["jhash"]) {
        let _family = words.next().filter(|it| matches!(*it, "ip" | "ip6"))?;
        words.take(&["saddr", "mod"]).then_some(Choice::BySource)?
    } else {
        let one = words.next()?;
        let node = one.parse().map(Target::Node).ok();
        let target = node.or_else(|| one.parse().map(Target::Pod).ok())?;
        return Some((Choice::Only, vec![target]));
    };
    let count: usize = words.next()?.parse().ok()?;
    if choice == Choice::BySource {
        let seed = words.take(&["seed"]).then(|| words.next()).flatten()?.strip_prefix("0x")?;
        u32::from_str_radix(seed, 16).ok()?;
    }
    words.take(&["map"]).then_some(())?;
    let mut to = Vec::new();
    words.take(&["{"]).then_some(())?;
    loop {
        if words.next()?.parse::<usize>().ok()? != to.len() || words.next()? != ":" {
            return None;
        }
        let (mut word, mut last) = without_comma(words.next()?);
        let address: IpAddr = word.parse().ok()?;
        if words.take(&["."]) {
            (word, last) = without_comma(words.next()?);
            to.push(Target::Pod(SocketAddr::new(address, word.parse().ok()?)));
        } else {
            to.push(Target::Node(address));
        }
        if last {
            words.take(&["}"]).then_some(())?;
            return (to.len() == count).then_some((choice, to));
        }
    }
}

/// An element of a set or map, as we write it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Element {
    Interface { name: String, chain: Option<String> },
    Address(IpAddr),
    Port { key: (Protocol, Port), chain: Option<String>, port: Option<Port> },
}

/// Reads one element; `None` when it is not one that we write.
pub(crate) fn element(text: &str) -> Option<Element> {
    let (key, value) = match text.split_once(" : ") {
        Some((key, value)) => (key, Some(value)),
        None => (text, None),
    };
    let chain = match value.and_then(|it| it.strip_prefix("goto ")) {
        Some(chain) => Some(chain.to_owned()).filter(|it| is_chain(it)).map(Some)?,
        None => None,
    };
    if let Some(name) = key.strip_prefix('"').and_then(|it| it.strip_suffix('"')) {
        let whole = is_interface(name) && value.is_some() == chain.is_some();
        return whole.then(|| Element::Interface { name: name.to_owned(), chain });
    }
    if let Ok(address) = key.parse() {
        return value.is_none().then_some(Element::Address(address));
    }
    let key = match key.split_once(" comment \"") {
        Some((key, comment)) => {
            let comment = comment.strip_suffix('"')?;
            is_comment(comment).then_some(())?;
            key
        }
        None => key,
    };
    let (name, port) = key.split_once(" . ")?;
    let key = (protocol(name)?, port.parse().ok()?);
    let port = match (value, &chain) {
        (Some(value), None) => Some(value.parse().ok()?),
        _ => None,
    };
    Some(Element::Port { key, chain, port })
}

/// The name of a set or map of ours that holds such elements.
pub(crate) fn is_container(name: &str) -> bool {
    CONTAINERS.iter().any(|it| it.name == name)
}

/// Whether a line is the type of the container with that name.
pub(crate) fn is_type_of(name: &str, line: &str) -> bool {
    CONTAINERS.iter().any(|it| it.name == name && type_line(it) == line)
}

/// The base chain whose hook this line declares.
pub(crate) fn hooked(line: &str) -> Option<&'static str> {
    HOOKS.iter().find(|it| hook_line(it) == line).map(|it| it.chain)
}

/// Whether `name` can be a chain of ours, with nothing in it that nft reads as syntax. The kernel
/// takes any name, also one that is a word of nft's language.
pub(crate) fn is_chain(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    let known = name == FROM_EXTERNAL
        || name == FROM_INTERNAL
        || HOOKS.iter().any(|it| it.chain == name)
        || PREFIXES.iter().any(|it| name.starts_with(it));
    known && name.chars().all(inner)
}

/// Whether `name` can be an interface that a map of ours names.
pub(crate) fn is_interface(name: &str) -> bool {
    name == "lo" || name.parse::<api::interface::InterfaceName>().is_ok()
}

/// Whether an element of ours can have this comment.
pub(crate) fn is_comment(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || " -./_".contains(c))
}

fn protocol(name: &str) -> Option<Protocol> {
    Protocol::ALL.into_iter().find(|it| it.name() == name)
}

fn reference(word: &str) -> Option<String> {
    let name = word.strip_prefix('@')?;
    is_container(name).then(|| name.to_owned())
}

fn without_comma(word: &str) -> (&str, bool) {
    match word.strip_suffix(',') {
        Some(word) => (word, false),
        None => (word, true),
    }
}

struct Words<'a>(Vec<&'a str>, usize);

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let word = self.0.get(self.1).copied()?;
        self.1 += 1;
        Some(word)
    }

    fn peek(&self, words: &[&str]) -> bool {
        self.0.get(self.1..).is_some_and(|it| it.starts_with(words))
    }

    fn take(&mut self, words: &[&str]) -> bool {
        let found = self.peek(words);
        if found {
            self.1 += words.len();
        }
        found
    }

    /// One word, or `{ a, b, c }`.
    fn list(&mut self) -> Option<Vec<&'a str>> {
        if !self.take(&["{"]) {
            return Some(vec![self.next()?]);
        }
        let mut list = Vec::new();
        loop {
            let (word, last) = without_comma(self.next()?);
            list.push(word);
            if last {
                return self.take(&["}"]).then_some(list);
            }
        }
    }

    fn at_end(&self) -> bool {
        self.1 == self.0.len()
    }
}
