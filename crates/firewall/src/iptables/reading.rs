//! The rules of our chains, read back: for following packets through them, and for refusing
//! documents that hold anything else.

use std::net::SocketAddr;

use api::interface::InterfaceName;
use api::port::Protocol;
use ipnet::IpNet;

use super::layout::{ACCEPT, FILTER, FORWARD, MASQUERADE, NAT, PREFIX};
use super::words;

/// A rule.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Rule {
    pub(crate) input: Option<String>,
    pub(crate) output: Option<String>,
    pub(crate) source: Option<IpNet>,
    pub(crate) destination: Option<IpNet>,
    pub(crate) protocol: Option<Protocol>,
    pub(crate) port: Option<u16>,
    pub(crate) local: bool,
    /// `--every n --packet 0`.
    pub(crate) every: Option<u32>,
    pub(crate) cluster: Option<Cluster>,
    pub(crate) translated: bool,
    pub(crate) established: bool,
    pub(crate) original_ports: Option<(u16, u16)>,
    pub(crate) target: Option<Target>,
}

/// A member of a hash over the source address.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Cluster {
    pub(crate) mask: u32,
    pub(crate) total: u32,
    pub(crate) seed: u32,
}

/// What a rule does.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Target {
    Jump(String),
    Goto(String),
    Translate(SocketAddr),
    Masquerade,
    Accept,
}

/// Reads a rule; `None` when it is not one that we write.
pub(crate) fn rule(text: &str) -> Option<Rule> {
    if text.contains(char::is_control) {
        return None;
    }
    let words = words::split(text)?;
    let mut words = words.iter().map(String::as_str);
    let mut rule = Rule::default();
    while let Some(option) = words.next() {
        match option {
            "-i" => rule.input = Some(interface(words.next()?)?),
            "-o" => rule.output = Some(interface(words.next()?)?),
            "-s" => rule.source = Some(words.next()?.parse().ok()?),
            "-d" => rule.destination = Some(words.next()?.parse().ok()?),
            "-p" => rule.protocol = Some(protocol(words.next()?)?),
            "--dport" => rule.port = Some(words.next()?.parse().ok()?),
            "-m" => module(words.next()?)?,
            "--comment" => drop(words.next()?),
            "--dst-type" => rule.local = words.next()? == "LOCAL",
            "--mode" => (words.next()? == "nth").then_some(())?,
            "--every" => rule.every = Some(words.next()?.parse().ok().filter(|it| *it > 0)?),
            "--packet" => (words.next()? == "0").then_some(())?,
            "--cluster-local-nodemask" => {
                rule.cluster.get_or_insert_default().mask = hexadecimal(words.next()?)?;
            }
            "--cluster-total-nodes" => {
                rule.cluster.get_or_insert_default().total =
                    words.next()?.parse().ok().filter(|it| *it > 0)?;
            }
            "--cluster-hash-seed" => {
                rule.cluster.get_or_insert_default().seed = hexadecimal(words.next()?)?;
            }
            "--ctstate" => match words.next()? {
                "DNAT" => rule.translated = true,
                "RELATED,ESTABLISHED" => rule.established = true,
                _ => return None,
            },
            "--ctorigdstport" => rule.original_ports = Some(ports(words.next()?)?),
            "-j" | "-g" if rule.target.is_none() => {
                rule.target = Some(target(option, words.next()?, &mut words)?);
            }
            _ => return None,
        }
    }
    rule.target.is_some().then_some(rule)
}

/// Whether `name` can be a chain of ours.
pub(crate) fn is_chain(name: &str) -> bool {
    // Chains that somebody named like ours are removed as well, so they must have a name here.
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    name.len() <= 28
        && name.strip_prefix(PREFIX).is_some_and(|it| !it.is_empty() && it.chars().all(inner))
}

/// Whether a rule may stand in a chain. Accepting and masquerading have their own chains, so that
/// no rule of ours opens a host for anything but what it forwards.
pub(crate) fn may_stand(table: &str, chain: &str, text: &str) -> bool {
    let Some(rule) = rule(text) else { return false };
    match rule.target {
        Some(Target::Accept) => {
            let ours = match chain {
                FORWARD => rule.established,
                ACCEPT => rule.original_ports.is_some(),
                _ => false,
            };
            table == FILTER && ours
        }
        Some(Target::Masquerade) => {
            table == NAT && chain == MASQUERADE && rule.original_ports.is_some()
        }
        Some(Target::Translate(_)) => table == NAT,
        Some(Target::Jump(_) | Target::Goto(_)) => true,
        None => false,
    }
}

fn target<'a>(
    option: &str,
    name: &str,
    words: &mut impl Iterator<Item = &'a str>,
) -> Option<Target> {
    match (option, name) {
        ("-j", "DNAT") => {
            (words.next()? == "--to-destination").then_some(())?;
            Some(Target::Translate(words.next()?.parse().ok()?))
        }
        ("-j", "MASQUERADE") => Some(Target::Masquerade),
        ("-j", "ACCEPT") => Some(Target::Accept),
        ("-j", chain) if is_chain(chain) => Some(Target::Jump(chain.to_owned())),
        ("-g", chain) if is_chain(chain) => Some(Target::Goto(chain.to_owned())),
        _ => None,
    }
}

fn module(name: &str) -> Option<()> {
    let known = ["tcp", "udp", "sctp", "comment", "addrtype", "statistic", "cluster", "conntrack"];
    known.contains(&name).then_some(())
}

fn interface(name: &str) -> Option<String> {
    name.parse::<InterfaceName>().ok().map(|it| it.to_string())
}

fn protocol(name: &str) -> Option<Protocol> {
    Protocol::ALL.into_iter().find(|it| it.name() == name)
}

fn hexadecimal(word: &str) -> Option<u32> {
    u32::from_str_radix(word.strip_prefix("0x")?, 16).ok()
}

fn ports(word: &str) -> Option<(u16, u16)> {
    let (from, to) = word.split_once(':').unwrap_or((word, word));
    Some((from.parse().ok()?, to.parse().ok()?))
}
