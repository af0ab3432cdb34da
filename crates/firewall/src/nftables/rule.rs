//! The spelling of every rule that we write.
//!
//! The spelling is the one that a listing, read back, is brought into as well, so that equal
//! rules are equal text. Where nft leaves out a match that another one implies, so do we.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use api::port::{Port, Protocol};
use api::source_range::SourceRanges;
use planner::desired::Exposure;

use super::layout::{AFFINITY_SEED, FORWARDED, INTERFACES, TARGETS, ports, verdicts};
use crate::span::{Span, merged};

/// Matches the protocols that have ports. nft wants it before any use of `th dport`.
pub(crate) const WITH_PORTS: &str = "meta l4proto { tcp, udp, sctp }";

/// How one of several targets is chosen.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Choice {
    /// In turn.
    InTurn,
    /// By source address.
    BySource,
}

/// Looks up the host port of a connection.
pub(crate) fn lookup(exposure: Exposure) -> String {
    format!("{WITH_PORTS} meta l4proto . th dport vmap @{}", verdicts(exposure))
}

/// Lets connections to the host's own addresses in, by interface.
pub(crate) fn enter_local() -> String {
    format!("fib daddr type local iifname vmap @{INTERFACES}")
}

/// Lets connections to the given set of addresses in, by interface.
pub(crate) fn enter_addresses(ip: &str, set: &str) -> String {
    format!("{ip} daddr @{set} iifname vmap @{INTERFACES}")
}

/// Lets connections of the host's own programs in.
pub(crate) fn enter_own(ip: &str, set: &str, chain: &str) -> String {
    format!("oifname \"lo\" {ip} daddr @{set} goto {chain}")
}

/// Lets connections of the host's own programs pass a check of sources.
pub(crate) fn allow_own(chain: &str) -> String {
    format!("oifname \"lo\" goto {chain}")
}

/// Lets connections from `sources` go on to `chain`: at most one rule a family.
pub(crate) fn allow(sources: &SourceRanges, chain: &str) -> Vec<String> {
    let rule = |v6: bool| {
        let spans = merged(sources.iter().map(Span::from).filter(|it| it.is_ipv6() == v6));
        source_set(&spans).map(|set| format!("{} saddr {set} goto {chain}", ip(v6)))
    };
    [false, true].into_iter().filter_map(rule).collect()
}

/// Spells a set of addresses as nft lists it: without braces when it is one.
pub(crate) fn source_set(spans: &[Span]) -> Option<String> {
    match spans {
        [] => None,
        [one] => Some(one.to_string()),
        many => Some(format!("{{ {} }}", list(many))),
    }
}

/// Sends to one node port on one of `nodes`: at most one rule a family.
pub(crate) fn to_nodes(
    nodes: &BTreeSet<IpAddr>,
    choice: Choice,
    exposure: Exposure,
) -> Vec<String> {
    let rule = |v6: bool| {
        let nodes: Vec<_> = nodes.iter().filter(|it| it.is_ipv6() == v6).collect();
        let to = chosen(&nodes, choice, v6)?;
        let port = format!("meta l4proto . th dport map @{}", ports(exposure));
        let first = first_match(v6, choice, nodes.len());
        Some(format!("{first}{WITH_PORTS} dnat {} to {to} : {port}", ip(v6)))
    };
    [false, true].into_iter().filter_map(rule).collect()
}

/// Sends to one of `pods`: at most one rule a family.
pub(crate) fn to_pods(
    pods: &BTreeSet<SocketAddr>,
    choice: Choice,
    protocol: Protocol,
) -> Vec<String> {
    let rule = |v6: bool| {
        let pods: Vec<_> = pods.iter().filter(|it| it.is_ipv6() == v6).collect();
        let to = match pods.as_slice() {
            [one] => one.to_string(),
            many => {
                let many: Vec<_> =
                    many.iter().map(|it| format!("{} . {}", it.ip(), it.port())).collect();
                chosen(&many, choice, v6)?
            }
        };
        let first = first_match(v6, choice, pods.len());
        Some(format!("{first}meta l4proto {protocol} dnat {} to {to}", ip(v6)))
    };
    [false, true].into_iter().filter_map(rule).collect()
}

/// Gives forwarded connections the host's address as their source.
pub(crate) fn masquerade(v6: bool) -> String {
    let (ip, targets) = (ip(v6), TARGETS[usize::from(v6)]);
    format!("ct status dnat {ip} daddr @{targets} {} masquerade", ours())
}

/// The same for connections that a target opened.
pub(crate) fn hairpin(v6: bool) -> String {
    let (ip, targets) = (ip(v6), TARGETS[usize::from(v6)]);
    format!("ct status dnat {ip} saddr @{targets} {ip} daddr @{targets} {} masquerade", ours())
}

/// Matches connections that came to a host port of ours.
fn ours() -> String {
    format!("{WITH_PORTS} meta l4proto . ct original proto-dst @{FORWARDED}")
}

/// `ip` or `ip6`.
pub(crate) fn ip(v6: bool) -> &'static str {
    if v6 { "ip6" } else { "ip" }
}

/// The match of the family, which `ip saddr` in the choice makes superfluous.
fn first_match(v6: bool, choice: Choice, count: usize) -> &'static str {
    match (choice, count, v6) {
        (Choice::BySource, 2.., _) => "",
        (_, _, false) => "meta nfproto ipv4 ",
        (_, _, true) => "meta nfproto ipv6 ",
    }
}

/// Spells the choice between targets; `None` when there is none.
fn chosen<T: ToString>(targets: &[T], choice: Choice, v6: bool) -> Option<String> {
    let count = targets.len();
    let number = match choice {
        Choice::InTurn => format!("numgen inc mod {count}"),
        Choice::BySource => {
            format!("jhash {} saddr mod {count} seed {AFFINITY_SEED:#x}", ip(v6))
        }
    };
    match targets {
        [] => None,
        [one] => Some(one.to_string()),
        many => {
            let pairs: Vec<_> = many
                .iter()
                .enumerate()
                .map(|(index, target)| format!("{index} : {}", target.to_string()))
                .collect();
            Some(format!("{number} map {{ {} }}", pairs.join(", ")))
        }
    }
}

fn list(spans: &[Span]) -> String {
    spans.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Which counter chain of a node set a host port uses.
pub(crate) fn counter(protocol: Protocol, port: Port) -> u16 {
    let offset = match protocol {
        Protocol::Tcp => 0,
        Protocol::Udp => 5,
        Protocol::Sctp => 9,
    };
    (port.get() % super::layout::COUNTERS + offset) % super::layout::COUNTERS
}
