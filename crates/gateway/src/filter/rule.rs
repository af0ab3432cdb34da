//! The rules as nft reads them.
//!
//! ```text
//! chain input     hook input, before other filters: what is refused here costs nobody anything
//!                 looks up  address . port -> chain,  port -> chain  for TCP's first packets and
//!                 for every datagram
//! chain tcp-443   one for each port that limits something
//! chain shape-*   hooks input and output, only while a cluster's flows have to be slow
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use tunnel_proto::message::{Protocol, Range};

use super::{PortFilter, Shaped, TABLE, simplified};
use crate::port::{PortKey, word};

/// How many sources the kernel remembers for each port.
const SOURCES: u32 = 65_535;

/// How long a source's rate is remembered after its last connection.
const REMEMBERED: &str = "1m";

/// Sources of IPv6 count by /64: whoever has one address there has all of them.
const NETWORK: &str = "ip6 saddr & ffff:ffff:ffff:ffff::";

/// TCP's first packet.
const FIRST: &str = "tcp flags & (fin | syn | rst | ack) == syn";

/// The maps from port to chain, and what stands before `vmap` in the rule that looks up in each.
const LOOKUPS: [(&str, &str, &str); 6] = [
    ("tcp-ipv4", "ipv4_addr . inet_service", "ip daddr . tcp dport"),
    ("tcp-ipv6", "ipv6_addr . inet_service", "ip6 daddr . tcp dport"),
    ("tcp-all", "inet_service", "tcp dport"),
    ("udp-ipv4", "ipv4_addr . inet_service", "ip daddr . udp dport"),
    ("udp-ipv6", "ipv6_addr . inet_service", "ip6 daddr . udp dport"),
    ("udp-all", "inet_service", "udp dport"),
];

/// Table, base chain and empty maps.
pub(super) fn skeleton() -> String {
    let mut text = format!("add table {TABLE}\n");
    for (map, key, _) in LOOKUPS {
        line(&mut text, format_args!("add map {TABLE} {map} {{ type {key} : verdict; }}"));
    }
    line(
        &mut text,
        format_args!(
            "add chain {TABLE} input {{ type filter hook input priority filter - 5; policy accept; }}"
        ),
    );
    // The gateway's own probe of its ports comes this way, and no visitor does.
    line(&mut text, format_args!("add rule {TABLE} input iif lo accept"));
    for (map, _, selector) in LOOKUPS {
        let first = if map.starts_with("tcp") { FIRST } else { "meta l4proto udp" };
        line(&mut text, format_args!("add rule {TABLE} input {first} {selector} vmap @{map}"));
    }
    text
}

/// The chain of a port with everything that it needs. What exists of it is kept, so that counts go on.
pub(super) fn port(key: &PortKey, port: &PortFilter) -> String {
    let chain = chain(key);
    let mut text = String::new();
    for (set, declaration) in sets(key, port) {
        line(&mut text, format_args!("add set {TABLE} {set} {{ {declaration} }}"));
    }
    line(&mut text, format_args!("add chain {TABLE} {chain}"));
    line(&mut text, format_args!("flush chain {TABLE} {chain}"));
    let mut rule = |rule: String| line(&mut text, format_args!("add rule {TABLE} {chain} {rule}"));
    if !port.allow_from.is_empty() {
        for (family, ip, v6) in [("ipv4", "ip", false), ("ipv6", "ip6", true)] {
            match simplified(&port.allow_from, v6).as_deref() {
                None => {}
                Some([]) => rule(format!("meta nfproto {family} counter drop")),
                Some(ranges) => {
                    rule(format!("{ip} saddr != {{ {} }} counter drop", list(ranges)));
                }
            }
        }
    }
    if key.protocol == Protocol::Tcp {
        let sources = [("ip saddr", 4), (NETWORK, 6)];
        if let rate @ 1.. = port.limits.new_per_second {
            for (source, family) in sources {
                rule(format!(
                    "update @rate{family}-{chain} {{ {source} limit rate over {rate}/second burst \
                     {rate} packets }} counter drop"
                ));
            }
        }
        if let open @ 1.. = port.limits.open {
            for (source, family) in sources {
                rule(format!(
                    "add @open{family}-{chain} {{ {source} ct count over {open} }} counter drop"
                ));
            }
        }
    }
    text
}

/// What must go before the chain of `key` can change from `before` to `after`: counts by another
/// limit. The kernel keeps an element's limit as it was when the source first came.
pub(super) fn forget(key: &PortKey, before: &PortFilter, after: &PortFilter) -> String {
    let kept: Vec<_> =
        sets(key, after).into_iter().filter(|_| before.limits == after.limits).collect();
    let gone: Vec<_> = sets(key, before).into_iter().filter(|it| !kept.contains(it)).collect();
    let mut text = String::new();
    if !gone.is_empty() {
        line(&mut text, format_args!("flush chain {TABLE} {}", chain(key)));
    }
    for (set, _) in gone {
        line(&mut text, format_args!("delete set {TABLE} {set}"));
    }
    text
}

/// Removes the chain of a port that no map leads to any more.
pub(super) fn removed(key: &PortKey, port: &PortFilter) -> String {
    let mut text = String::new();
    line(&mut text, format_args!("delete chain {TABLE} {}", chain(key)));
    for (set, _) in sets(key, port) {
        line(&mut text, format_args!("delete set {TABLE} {set}"));
    }
    text
}

/// Fills the maps from port to chain.
pub(super) fn lookups<'a>(keys: impl Iterator<Item = &'a PortKey>) -> String {
    let mut elements: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for key in keys {
        let (family, address) = match key.address {
            Some(IpAddr::V4(address)) => ("ipv4", format!("{address} . ")),
            Some(IpAddr::V6(address)) => ("ipv6", format!("{address} . ")),
            None => ("all", String::new()),
        };
        let element = format!("{address}{} : jump {}", key.port, chain(key));
        elements.entry(format!("{}-{family}", word(key.protocol))).or_default().push(element);
    }
    let mut text = String::new();
    for (map, _, _) in LOOKUPS {
        line(&mut text, format_args!("flush map {TABLE} {map}"));
    }
    for (map, elements) in elements {
        line(&mut text, format_args!("add element {TABLE} {map} {{ {} }}", elements.join(", ")));
    }
    text
}

/// The rules that make a cluster's flows slow: what is too much is dropped, and TCP adapts.
pub(super) fn shaped(shaped: &BTreeMap<String, Shaped>) -> String {
    let mut text = String::new();
    for (hook, port) in [("input", "dport"), ("output", "sport")] {
        if shaped.values().any(|it| !it.ports.is_empty()) {
            line(
                &mut text,
                format_args!(
                    "add chain {TABLE} shape-{hook} {{ type filter hook {hook} priority filter - 4; \
                     policy accept; }}"
                ),
            );
        }
        for (cluster, shaped) in shaped.iter().filter(|(_, it)| !it.ports.is_empty()) {
            let bytes = (shaped.bits_per_second / 8).max(1000);
            // Large enough for several of the 64 KiB pieces that a card splits.
            let burst = (bytes / 8).max(512 * 1024);
            if hook == "input" {
                line(
                    &mut text,
                    format_args!(
                        "add limit {TABLE} shape-{cluster} {{ rate over {bytes} bytes/second burst \
                         {burst} bytes; }}"
                    ),
                );
            }
            let ports = shaped.ports.iter().map(|(it, port)| format!("{} . {port}", word(*it)));
            let ports = ports.collect::<Vec<_>>().join(", ");
            line(
                &mut text,
                format_args!(
                    "add rule {TABLE} shape-{hook} meta l4proto . th {port} {{ {ports} }} limit name \
                     \"shape-{cluster}\" drop"
                ),
            );
        }
    }
    text
}

/// Removes what [`shaped`] made.
pub(super) fn unshaped(shaped: &BTreeMap<String, Shaped>) -> String {
    let mut text = String::new();
    if shaped.values().all(|it| it.ports.is_empty()) {
        return text;
    }
    for hook in ["input", "output"] {
        line(&mut text, format_args!("flush chain {TABLE} shape-{hook}"));
        line(&mut text, format_args!("delete chain {TABLE} shape-{hook}"));
    }
    for (cluster, _) in shaped.iter().filter(|(_, it)| !it.ports.is_empty()) {
        line(&mut text, format_args!("delete limit {TABLE} shape-{cluster}"));
    }
    text
}

/// `tcp-443`, `tcp-443-192.0.2.1`, `udp-53-2001_db8__1`.
fn chain(key: &PortKey) -> String {
    let address = key.address.map(|it| format!("-{it}").replace(':', "_")).unwrap_or_default();
    format!("{}-{}{address}", word(key.protocol), key.port)
}

/// The sets in which the kernel counts for a port, with what they are.
fn sets(key: &PortKey, port: &PortFilter) -> Vec<(String, String)> {
    let chain = chain(key);
    let mut sets = Vec::new();
    if key.protocol == Protocol::Udp {
        return sets;
    }
    for (family, address) in [(4, "ipv4_addr"), (6, "ipv6_addr")] {
        if port.limits.new_per_second > 0 {
            let declaration = format!(
                "type {address}; size {SOURCES}; flags dynamic,timeout; timeout {REMEMBERED};"
            );
            sets.push((format!("rate{family}-{chain}"), declaration));
        }
        if port.limits.open > 0 {
            let declaration = format!("type {address}; size {SOURCES}; flags dynamic;");
            sets.push((format!("open{family}-{chain}"), declaration));
        }
    }
    sets
}

fn list(ranges: &[Range]) -> String {
    let ranges = ranges.iter().map(|it| format!("{}/{}", it.address, it.prefix));
    ranges.collect::<Vec<_>>().join(", ")
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    let _infallible = writeln!(text, "{line}");
}
