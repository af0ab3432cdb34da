//! What our chains are called and where they hang: data with its reasons.

use api::port::Protocol;
use planner::desired::{Exposure, ForwardKey};

/// What the name of every chain of ours begins with. Chain names end at 28 bytes
/// (`XT_EXTENSION_MAXNAMELEN` less its terminator).
pub(crate) const PREFIX: &str = "PORTCULLIS-";

/// The table for address translation.
pub(crate) const NAT: &str = "nat";
/// The table for accepting and dropping.
pub(crate) const FILTER: &str = "filter";

// Chain                    In      Jump        Why there
// ------------------------ ------- ----------- -----------------------------------------------------
// PORTCULLIS-PREROUTING    nat     appended    Who forwarded a port before us keeps it. Where others
//                                              stand is not compared later: two programs that each
//                                              insist on being first would never come to rest.
// PORTCULLIS-OUTPUT        nat     appended    The same for the host's own programs.
// PORTCULLIS-POSTROUTING   nat     appended    Sources that others already rewrite stay theirs.
// PORTCULLIS-FORWARD       filter  inserted    Before the rules and the policy that would drop what
//                                              was forwarded; behind them it could save nothing.

/// A built-in chain and the chain of ours that it leads to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Jump {
    /// The table of both.
    pub(crate) table: &'static str,
    /// The built-in chain.
    pub(crate) from: &'static str,
    /// The jump, as it is listed.
    pub(crate) rule: &'static str,
    /// Whether it goes to the top.
    pub(crate) first: bool,
}

/// Every jump that a host can have.
pub(crate) const JUMPS: [Jump; 4] = [
    Jump { table: NAT, from: "PREROUTING", rule: "-j PORTCULLIS-PREROUTING", first: false },
    Jump { table: NAT, from: "OUTPUT", rule: "-j PORTCULLIS-OUTPUT", first: false },
    Jump { table: NAT, from: "POSTROUTING", rule: "-j PORTCULLIS-POSTROUTING", first: false },
    Jump {
        table: FILTER,
        from: "FORWARD",
        rule: "-m conntrack --ctstate DNAT -j PORTCULLIS-FORWARD",
        first: true,
    },
];

/// Takes connections to the host.
pub(crate) const PREROUTING: &str = "PORTCULLIS-PREROUTING";
/// Tells interfaces apart.
pub(crate) const ENTRY: &str = "PORTCULLIS-ENTRY";
/// Takes connections of the host's own programs to the host.
pub(crate) const OUTPUT: &str = "PORTCULLIS-OUTPUT";
/// Rewrites sources, where asked for.
pub(crate) const POSTROUTING: &str = "PORTCULLIS-POSTROUTING";
/// Has connections that a target opened.
pub(crate) const HAIRPIN: &str = "PORTCULLIS-HAIRPIN";
/// Masquerades connections to host ports of ours.
pub(crate) const MASQUERADE: &str = "PORTCULLIS-MASQUERADE";
/// Accepts forwarded connections.
pub(crate) const FORWARD: &str = "PORTCULLIS-FORWARD";
/// Accepts connections to host ports of ours.
pub(crate) const ACCEPT: &str = "PORTCULLIS-ACCEPT";
/// Looks up what came in through the external interface.
pub(crate) const FROM_EXTERNAL: &str = "PORTCULLIS-FROM-EXTERNAL";
/// Looks up what came in through another interface, or from the host itself.
pub(crate) const FROM_INTERNAL: &str = "PORTCULLIS-FROM-INTERNAL";

/// The chains in which the order of the rules means nothing, so that single rules may change.
pub(crate) const UNORDERED: [&str; 5] = [
    lookup(Exposure::Everywhere),
    lookup(Exposure::Internal),
    lookup(Exposure::External),
    MASQUERADE,
    ACCEPT,
];

/// The chain that finds a forward by its host port.
pub(crate) const fn lookup(exposure: Exposure) -> &'static str {
    match exposure {
        Exposure::Everywhere => "PORTCULLIS-EVERYWHERE",
        Exposure::Internal => "PORTCULLIS-INTERNAL",
        Exposure::External => "PORTCULLIS-EXTERNAL",
    }
}

/// The chain of one forward: `PORTCULLIS-TCP-443`, `PORTCULLIS-TCP-443-INT`.
pub(crate) fn forward_chain(key: ForwardKey) -> String {
    let protocol = match key.protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    };
    let exposure = match key.exposure {
        Exposure::Everywhere => "",
        Exposure::Internal => "-INT",
        Exposure::External => "-EXT",
    };
    format!("{PREFIX}{protocol}-{}{exposure}", key.port)
}

/// The most members among which one chain can choose by source address.
///
/// The kernel's `cluster` match could tell 32 apart, but iptables 1.8.9 refuses to read a mask
/// above 32 that it printed itself, so that a saved ruleset could not be restored. Six masks are
/// not above 32, and the last member needs none.
pub(crate) const MEMBERS: usize = 7;

/// The seed for choosing targets by source address; each level of a choice adds its number.
pub(crate) const AFFINITY_SEED: u32 = 0x506f_7274;

/// The name of a part of a choice by source address: `PORTCULLIS-TCP-443-07`.
pub(crate) fn group_chain(forward: &str, index: usize) -> String {
    let tens = char::from_digit(u32::try_from(index / 10).unwrap_or(0) % 36, 36).unwrap_or('0');
    format!("{forward}-{}{}", tens.to_ascii_uppercase(), index % 10)
}

/// The most parts that have a name of their own.
pub(crate) const GROUPS: usize = 360;
