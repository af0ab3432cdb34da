//! Where our chains hook into the kernel, and what the maps are called: data with its reasons.

use planner::desired::Exposure;

/// The family of our table: one ruleset for IPv4 and IPv6.
pub(crate) const FAMILY: &str = "inet";
/// The name of our table. Everything in it is ours; nothing outside it is.
pub(crate) const TABLE: &str = "portcullis";

/// A base chain: where and when the kernel calls it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Hook {
    /// The name of the chain, `type-hook`.
    pub(crate) chain: &'static str,
    /// The chain's type.
    pub(crate) kind: &'static str,
    /// The hook.
    pub(crate) hook: &'static str,
    /// The priority as the kernel knows it.
    pub(crate) priority: i32,
    /// The priority as people know it. `dstnat` is no name in the output hook before nft 1.0.8.
    pub(crate) priority_text: &'static str,
}

// Chain              Priority      Why there
// ------------------ ------------- ---------------------------------------------------------------
// nat-prerouting     dstnat + 5    Before routing, so that the target decides the way. After every
//                                  other destination NAT: who forwarded a port before us keeps it,
//                                  as with rules appended to iptables. Equal priorities would run
//                                  in the order of their last change, which nobody can foresee.
// nat-output         -100 + 5      The same for what the host's own programs send to the host.
// nat-postrouting    srcnat + 5    After routing, when the outgoing address is known; after other
//                                  source NAT for the same reason as above.
//
// There is no filter chain. In nftables, `accept` ends only its own base chain: a table of ours
// could never save a packet from a policy of `drop` elsewhere.

/// Takes connections to the host.
pub(crate) const PREROUTING: Hook = Hook {
    chain: "nat-prerouting",
    kind: "nat",
    hook: "prerouting",
    priority: -95,
    priority_text: "dstnat + 5",
};
/// Takes connections of the host's own programs to the host.
pub(crate) const OUTPUT: Hook =
    Hook { chain: "nat-output", kind: "nat", hook: "output", priority: -95, priority_text: "-95" };
/// Rewrites sources, where asked for.
pub(crate) const POSTROUTING: Hook = Hook {
    chain: "nat-postrouting",
    kind: "nat",
    hook: "postrouting",
    priority: 105,
    priority_text: "srcnat + 5",
};

/// Every base chain that a table of ours can have.
pub(crate) const HOOKS: [Hook; 3] = [PREROUTING, OUTPUT, POSTROUTING];

/// Looks up what came in through the external interface.
pub(crate) const FROM_EXTERNAL: &str = "from-external";
/// Looks up what came in through another interface, or from the host itself.
pub(crate) const FROM_INTERNAL: &str = "from-internal";

/// What the names of all other chains begin with: those of node sets, of pods, and those that ask
/// where a connection comes from.
pub(crate) const PREFIXES: [&str; 3] = ["nodes-", "pods-", "allow-"];

/// Interface -> which lookups.
pub(crate) const INTERFACES: &str = "interfaces";
/// The addresses that count as the host.
pub(crate) const DESTINATIONS: [&str; 2] = ["destinations-ipv4", "destinations-ipv6"];
/// The addresses that forwards lead to; filled only where a rule asks for them.
pub(crate) const TARGETS: [&str; 2] = ["targets-ipv4", "targets-ipv6"];
/// The host ports; filled only where a rule asks for them.
pub(crate) const FORWARDED: &str = "forwarded";

/// A set or map: its name, its type as text, and its type as a listing spells it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Container {
    pub(crate) name: &'static str,
    /// `map` or `set`.
    pub(crate) keyword: &'static str,
    /// What stands after `type`.
    pub(crate) key: &'static str,
    /// The type of the values of a map.
    pub(crate) value: Option<&'static str>,
}

const fn map(name: &'static str, key: &'static str, value: &'static str) -> Container {
    Container { name, keyword: "map", key, value: Some(value) }
}

const fn set(name: &'static str, key: &'static str) -> Container {
    Container { name, keyword: "set", key, value: None }
}

const PORT: &str = "inet_proto . inet_service";

/// Every set and map. All of them always exist, so that rules never change with what is in them.
pub(crate) const CONTAINERS: [Container; 12] = [
    map(INTERFACES, "ifname", "verdict"),
    set(DESTINATIONS[0], "ipv4_addr"),
    set(DESTINATIONS[1], "ipv6_addr"),
    set(TARGETS[0], "ipv4_addr"),
    set(TARGETS[1], "ipv6_addr"),
    set(FORWARDED, PORT),
    map("everywhere", PORT, "verdict"),
    map("everywhere-ports", PORT, "inet_service"),
    map("internal", PORT, "verdict"),
    map("internal-ports", PORT, "inet_service"),
    map("external", PORT, "verdict"),
    map("external-ports", PORT, "inet_service"),
];

/// The exposures, in the order of their maps.
pub(crate) const EXPOSURES: [Exposure; 3] =
    [Exposure::Everywhere, Exposure::Internal, Exposure::External];

/// The map from host port to the chain that forwards it.
pub(crate) const fn verdicts(exposure: Exposure) -> &'static str {
    match exposure {
        Exposure::Everywhere => "everywhere",
        Exposure::Internal => "internal",
        Exposure::External => "external",
    }
}

/// The map from host port to node port.
pub(crate) const fn ports(exposure: Exposure) -> &'static str {
    match exposure {
        Exposure::Everywhere => "everywhere-ports",
        Exposure::Internal => "internal-ports",
        Exposure::External => "external-ports",
    }
}

/// How many counter chains a node set can have.
///
/// A chain counts connections to spread them. Were all ports to share one counter, clients that
/// open two ports in turn would always find the same port on the same node. A prime, so that
/// neither neighbours nor round numbers such as 80 and 8080 share a chain.
pub(crate) const COUNTERS: u16 = 13;

/// The seed for choosing targets by source address; fixed, so that a source keeps its target
/// when the ruleset is loaded anew.
pub(crate) const AFFINITY_SEED: u32 = 0x506f_7274;
