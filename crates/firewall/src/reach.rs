//! Where host ports lead, as the rules of either backend say it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use api::port::{Port, Protocol};
use planner::desired::Exposure;

use crate::backend::Observed;
use crate::iptables::keep::lookup_rule;
use crate::iptables::layout::{NAT, lookup};
use crate::iptables::plan::chains_of;
use crate::iptables::reading as iptables_reading;
use crate::nftables::layout::EXPOSURES;
use crate::nftables::reading::{self, Action, Target};
use crate::nftables::table::{PortKey, Table};

/// A view of the forwards of one state.
pub(crate) struct Reach<'a> {
    table: Option<&'a Table>,
    /// What the chains of iptables say, which hold it in no order to search in.
    translated: BTreeMap<(Exposure, (Protocol, u16)), BTreeSet<SocketAddr>>,
}

impl<'a> Reach<'a> {
    pub(crate) fn new(state: &'a Observed) -> Self {
        let mut found: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for (_, family) in state.iptables.each() {
            for exposure in EXPOSURES {
                for rule in family.rules(NAT, lookup(exposure)) {
                    let Some(rule) = lookup_rule(rule) else { continue };
                    let targets = found.entry((exposure, rule.key)).or_default();
                    for (_, rules) in chains_of(family, &rule.chain) {
                        targets.extend(rules.iter().filter_map(|it| translated(it)));
                    }
                }
            }
        }
        Self { table: state.nftables.as_ref(), translated: found }
    }

    /// A view of a table of nftables, where nothing else forwards.
    pub(crate) fn of_table(table: Option<&'a Table>) -> Self {
        Self { table, translated: BTreeMap::new() }
    }

    /// The exposures and the ports among `ports` that are forwarded.
    pub(crate) fn among(
        &self,
        ports: &BTreeSet<PortKey>,
        protocol: Protocol,
    ) -> BTreeSet<(Exposure, Port)> {
        let mut among = BTreeSet::new();
        for exposure in EXPOSURES {
            for key in ports.iter().filter(|it| it.0 == protocol) {
                let forwarded = self.table.is_some_and(|it| it.of(exposure).contains_key(key))
                    || self.translated.contains_key(&(exposure, (key.0, key.1.get())));
                among.extend(forwarded.then_some((exposure, key.1)));
            }
        }
        among
    }

    /// The forwarded host ports of a protocol.
    pub(crate) fn ports(&self, protocol: Protocol) -> BTreeSet<(Exposure, Port)> {
        let mut ports = BTreeSet::new();
        for exposure in EXPOSURES {
            if let Some(table) = self.table {
                let of_protocol = table.of(exposure).keys().filter(|it| it.0 == protocol);
                ports.extend(of_protocol.map(|it| (exposure, it.1)));
            }
        }
        for (exposure, key) in self.translated.keys().filter(|it| it.1.0 == protocol) {
            ports.extend(Port::new(key.1).map(|it| (*exposure, it)));
        }
        ports
    }

    /// Whether a host port certainly leads to the same targets in both states.
    pub(crate) fn is_same(&self, other: &Self, exposure: Exposure, key: PortKey) -> bool {
        match (self.table, other.table) {
            (Some(a), Some(b)) => {
                let (was, is) = (a.of(exposure).get(&key), b.of(exposure).get(&key));
                let same = was == is;
                let chain = was.and_then(|it| it.chain.as_ref());
                // A chain that checks sources leads to one that need not be the same.
                let plain = chain.is_some_and(|it| !it.starts_with("allow-"));
                same && plain && chain.is_some_and(|it| a.chains.get(it) == b.chains.get(it))
            }
            _ => false,
        }
    }

    /// The targets of a host port.
    pub(crate) fn targets(&self, exposure: Exposure, key: PortKey) -> BTreeSet<SocketAddr> {
        let mut targets = BTreeSet::new();
        if let Some(table) = self.table
            && let Some(element) = table.of(exposure).get(&key)
        {
            let mut chains: Vec<&str> = element.chain.iter().map(|it| &**it).collect();
            let mut seen = BTreeSet::new();
            while let Some(chain) = chains.pop() {
                let Some(chain) = table.chains.get(chain).filter(|_| seen.insert(chain)) else {
                    continue;
                };
                for rule in &chain.rules {
                    match next(rule) {
                        Next::Chain(name) => chains.push(name),
                        Next::Targets(found) => {
                            targets.extend(found.iter().filter_map(|it| match it {
                                Target::Pod(target) => Some(*target),
                                Target::Node(node) => {
                                    element.port.map(|port| SocketAddr::new(*node, port.get()))
                                }
                            }))
                        }
                    }
                }
            }
        }
        targets
            .extend(self.translated.get(&(exposure, (key.0, key.1.get()))).into_iter().flatten());
        targets
    }

    /// The host ports that lead to targets of IPv4, and those that lead to targets of IPv6.
    pub(crate) fn keys(&self) -> [BTreeSet<(Protocol, u16)>; 2] {
        let mut keys = [BTreeSet::new(), BTreeSet::new()];
        for protocol in Protocol::ALL {
            for (exposure, port) in self.ports(protocol) {
                for target in self.targets(exposure, (protocol, port)) {
                    let [v4, v6] = &mut keys;
                    let keys = if target.is_ipv6() { v6 } else { v4 };
                    keys.insert((protocol, port.get()));
                }
            }
        }
        keys
    }

    /// Whether any host port of a protocol leads to an address.
    pub(crate) fn leads_to(&self, protocol: Protocol, address: IpAddr) -> bool {
        let ports = self.ports(protocol);
        let mut targets = ports.iter().flat_map(|it| self.targets(it.0, (protocol, it.1)));
        targets.any(|it| it.ip() == address)
    }
}

enum Next<'a> {
    Chain(&'a str),
    Targets(Vec<Target>),
}

fn next(rule: &str) -> Next<'_> {
    match reading::rule(rule).map(|it| it.action) {
        Some(Action::Goto(_)) => {
            Next::Chain(rule.rsplit_once("goto ").map_or("", |(_, chain)| chain))
        }
        Some(Action::Translate { to, .. }) => Next::Targets(to),
        Some(Action::ByInterface { .. } | Action::ByPort { .. } | Action::Masquerade) | None => {
            Next::Targets(Vec::new())
        }
    }
}

fn translated(rule: &str) -> Option<SocketAddr> {
    match iptables_reading::rule(rule)?.target? {
        iptables_reading::Target::Translate(target) => Some(target),
        iptables_reading::Target::Jump(_)
        | iptables_reading::Target::Goto(_)
        | iptables_reading::Target::Masquerade
        | iptables_reading::Target::Accept => None,
    }
}
