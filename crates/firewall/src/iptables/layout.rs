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
pub(crate) const UNORDERED: [&str; 5] =
    [lookup(Exposure::Everywhere), lookup(Exposure::Internal), lookup(Exposure::External), MASQUERADE, ACCEPT];

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

/// The most targets that one `cluster` match can tell apart (`XT_CLUSTER_NODES_MAX`).
pub(crate) const CLUSTER: usize = 32;

/// The seeds for choosing targets by source address: for a group, and within it.
pub(crate) const AFFINITY_SEEDS: [u32; 2] = [0x506f_7274, 0x6375_6c6c];
