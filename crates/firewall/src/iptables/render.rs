//! Desired forwarding to our chains.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use api::port::Protocol;
use api::source_range::SourceRanges;
use ipnet::IpNet;
use planner::desired::{Destinations, Exposure, Forward, ForwardKey, Forwarding, Targets};

use super::layout::{
    ACCEPT, AFFINITY_SEED, ENTRY, FILTER, FORWARD, FROM_EXTERNAL, FROM_INTERNAL, GROUPS, HAIRPIN,
    JUMPS, MASQUERADE, MEMBERS, NAT, OUTPUT, POSTROUTING, PREROUTING, forward_chain, group_chain,
    lookup,
};
use super::tables::{Families, Family, Name};
use crate::label::owner_comment;
use crate::nftables::render::targets;

/// A protocol and a host port.
pub(crate) type PortKey = (Protocol, u16);

/// Returns the chains that do what `forwarding` says.
pub(crate) fn render(forwarding: &Forwarding) -> Families {
    let family = |v6| {
        let mut rendering = Rendering::new(forwarding, v6);
        rendering.entry();
        rendering.forwards();
        rendering.sources_of_forwarded();
        rendering.accept_forwarded();
        rendering.finish()
    };
    Families { ipv4: family(false), ipv6: family(true) }
}

/// Returns only the chains that accept forwarded connections; none unless that is asked for.
///
/// nftables needs them too: only in the table that drops can a packet be saved from dropping.
pub(crate) fn render_acceptance(forwarding: &Forwarding) -> Families {
    let family = |v6| {
        let mut rendering = Rendering::new(forwarding, v6);
        rendering.accept_forwarded();
        rendering.finish()
    };
    Families { ipv4: family(false), ipv6: family(true) }
}

/// Spells the rules that do `what` for connections to the given host ports.
pub(crate) fn port_rules(keys: &BTreeSet<PortKey>, what: &str) -> Vec<String> {
    let mut spans: Vec<(Protocol, u16, u16)> = Vec::new();
    for (protocol, port) in keys.iter().copied() {
        match spans.last_mut() {
            Some((last, _, to)) if *last == protocol && *to + 1 == port => *to = port,
            _ => spans.push((protocol, port, port)),
        }
    }
    let ports = |from: u16, to: u16| match from == to {
        true => from.to_string(),
        false => format!("{from}:{to}"),
    };
    let rule = |(protocol, from, to)| {
        format!("-p {protocol} -m conntrack --ctorigdstport {} -j {what}", ports(from, to))
    };
    spans.into_iter().map(rule).collect()
}

struct Rendering<'a> {
    forwarding: &'a Forwarding,
    v6: bool,
    family: Family,
}

impl<'a> Rendering<'a> {
    fn new(forwarding: &'a Forwarding, v6: bool) -> Self {
        Self { forwarding, v6, family: Family::default() }
    }

    /// Where traffic enters.
    fn entry(&mut self) {
        let entry = &self.forwarding.entry;
        let then = |second| {
            vec![format!("-j {}", lookup(Exposure::Everywhere)), format!("-j {}", lookup(second))]
        };
        self.chain(NAT, FROM_EXTERNAL, then(Exposure::External));
        self.chain(NAT, FROM_INTERNAL, then(Exposure::Internal));

        let external = entry.external.iter().map(|it| format!("-i {it} -g {FROM_EXTERNAL}"));
        let internal = entry.internal.iter().map(|it| format!("-i {it} -g {FROM_INTERNAL}"));
        self.chain(NAT, ENTRY, external.chain(internal).collect());

        match &entry.destinations {
            Destinations::Local => {
                let rule = format!("-m addrtype --dst-type LOCAL -g {ENTRY}");
                self.chain(NAT, PREROUTING, vec![rule]);
            }
            Destinations::Addresses(addresses) => {
                let own: Vec<_> =
                    addresses.iter().filter(|it| it.is_ipv6() == self.v6).map(one).collect();
                let enter = own.iter().map(|it| format!("-d {it} -g {ENTRY}")).collect();
                let output = own.iter().map(|it| format!("-d {it} -o lo -g {FROM_INTERNAL}"));
                let output = output.collect();
                self.chain(NAT, PREROUTING, enter);
                self.chain(NAT, OUTPUT, output);
            }
        }
    }

    /// Where it goes.
    fn forwards(&mut self) {
        let mut lookups: BTreeMap<Exposure, Vec<String>> = BTreeMap::new();
        for exposure in [Exposure::Everywhere, Exposure::Internal, Exposure::External] {
            lookups.insert(exposure, Vec::new());
        }
        for (key, forward) in &self.forwarding.forwards {
            let targets = self.targets_of(forward);
            if targets.is_empty() {
                continue;
            }
            let chain = forward_chain(*key);
            let (protocol, port) = (key.protocol, key.port);
            let owner = owner_comment(&forward.owner);
            lookups.entry(key.exposure).or_default().push(format!(
                "-p {protocol} -m {protocol} --dport {port} -m comment --comment \"{owner}\" \
                 -g {chain}"
            ));
            self.forward(*key, forward, &targets);
        }
        for (exposure, rules) in lookups {
            self.chain(NAT, lookup(exposure), rules);
        }
    }

    fn forward(&mut self, key: ForwardKey, forward: &Forward, targets: &[SocketAddr]) {
        let first = forward_chain(key);
        let last = match &forward.sources {
            None => first.clone(),
            Some(sources) => {
                let last = format!("{first}-TO");
                self.chain(NAT, &first, self.allow(sources, &last));
                last
            }
        };
        let rules = match forward.affinity {
            false => in_turn(key.protocol, targets),
            true => self.by_source(key, targets),
        };
        self.chain(NAT, &last, rules);
    }

    fn targets_of(&self, forward: &Forward) -> Vec<SocketAddr> {
        let targets: Vec<_> = match &forward.targets {
            Targets::Nodes { set, port } => {
                let nodes = self.forwarding.nodes(set);
                nodes.map(|it| SocketAddr::new(it, port.get())).collect()
            }
            Targets::Pods(pods) => pods.iter().copied().collect(),
        };
        targets.into_iter().filter(|it| it.is_ipv6() == self.v6).collect()
    }

    /// Lets the host's own programs and `sources` go on to `chain`.
    fn allow(&self, sources: &SourceRanges, chain: &str) -> Vec<String> {
        let mut rules = Vec::new();
        if matches!(self.forwarding.entry.destinations, Destinations::Addresses(_)) {
            rules.push(format!("-o lo -g {chain}"));
        }
        let nets: Vec<_> = sources.iter().filter(|it| is_ipv6(it) == self.v6).collect();
        let mut nets = IpNet::aggregate(&nets);
        nets.sort();
        rules.extend(nets.iter().map(|net| match net.prefix_len() {
            // `iptables-save` leaves out what matches everything.
            0 => format!("-g {chain}"),
            _ => format!("-s {net} -g {chain}"),
        }));
        rules
    }

    /// Chooses by source address: among few at once, among many part by part.
    ///
    /// Parts differ by one member at most, so a member's share differs as little.
    fn by_source(&mut self, key: ForwardKey, targets: &[SocketAddr]) -> Vec<String> {
        let forward = forward_chain(key);
        let translate = |it: &SocketAddr| format!("-j DNAT --to-destination {it}");
        let mut members: Vec<_> = targets.iter().map(translate).collect();
        let mut seed = AFFINITY_SEED;
        let mut groups = 0;
        while members.len() > MEMBERS {
            let parts = members.len().div_ceil(MEMBERS);
            if groups + parts > GROUPS {
                // No cluster that was ever built has so many nodes; what is left is not used.
                members.truncate((GROUPS - groups) * MEMBERS);
                continue;
            }
            let mut chains = Vec::new();
            for part in 0..parts {
                let (from, to) = (part * members.len() / parts, (part + 1) * members.len() / parts);
                let name = group_chain(&forward, groups + part);
                let rules = members.get(from..to).unwrap_or_default();
                self.chain(NAT, &name, clustered(key.protocol, rules, seed));
                chains.push(format!("-g {name}"));
            }
            groups += parts;
            members = chains;
            seed += 1;
        }
        clustered(key.protocol, &members, seed)
    }

    /// What is done about the sources of forwarded connections.
    fn sources_of_forwarded(&mut self) {
        let options = self.forwarding.options;
        if !options.masquerade && !options.hairpin {
            return;
        }
        let targets = self.targets();
        let dnat = "-m conntrack --ctstate DNAT";
        if options.masquerade {
            let rules = targets.iter().map(|it| format!("-d {it} {dnat} -g {MASQUERADE}"));
            self.chain(NAT, POSTROUTING, rules.collect());
        } else {
            let from = targets.iter().map(|it| format!("-s {it} {dnat} -g {HAIRPIN}"));
            let to = targets.iter().map(|it| format!("-d {it} -g {MASQUERADE}"));
            self.chain(NAT, POSTROUTING, from.collect());
            self.chain(NAT, HAIRPIN, to.collect());
        }
        let rules = port_rules(&self.keys(), "MASQUERADE");
        self.chain(NAT, MASQUERADE, rules);
    }

    /// What is forwarded passes the filter of the host.
    fn accept_forwarded(&mut self) {
        if !self.forwarding.options.accept_forwarded {
            return;
        }
        // Answers, and connections to targets that are gone: only connections that were accepted
        // when they were new are established.
        let mut rules = vec!["-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT".to_owned()];
        rules.extend(self.targets().iter().map(|it| format!("-d {it} -g {ACCEPT}")));
        self.chain(FILTER, FORWARD, rules);
        let rules = port_rules(&self.keys(), "ACCEPT");
        self.chain(FILTER, ACCEPT, rules);
    }

    fn targets(&self) -> Vec<String> {
        let targets = targets(self.forwarding);
        targets.iter().filter(|it| it.is_ipv6() == self.v6).map(one).collect()
    }

    fn keys(&self) -> BTreeSet<PortKey> {
        let forwards = self.forwarding.forwards.iter();
        let forwards = forwards.filter(|(_, it)| !self.targets_of(it).is_empty());
        forwards.map(|(it, _)| (it.protocol, it.port.get())).collect()
    }

    fn chain(&mut self, table: &'static str, name: &str, rules: Vec<String>) {
        let chains = &mut self.family.tables.entry(table).or_default().chains;
        chains.insert(Name::from(name), rules);
    }

    /// Adds the jumps to those chains that there are.
    fn finish(mut self) -> Family {
        for jump in JUMPS {
            let Some(part) = self.family.tables.get_mut(jump.table) else { continue };
            let to = jump.rule.rsplit_once(' ').map_or("", |(_, to)| to);
            if part.chains.contains_key(to) {
                part.jumps.push(format!("{} {}", jump.from, jump.rule));
                part.jumps.sort();
            }
        }
        self.family
    }
}

/// Every target gets its share: the first of n takes every n-th connection, the next every
/// (n-1)-th of the rest, and the last what is left.
fn in_turn(protocol: Protocol, targets: &[SocketAddr]) -> Vec<String> {
    let rule = |(index, target): (usize, &SocketAddr)| {
        let left = targets.len() - index;
        let when = match left {
            1 => String::new(),
            left => format!("-m statistic --mode nth --every {left} --packet 0 "),
        };
        format!("-p {protocol} {when}-j DNAT --to-destination {target}")
    };
    targets.iter().enumerate().map(rule).collect()
}

/// Every source gets the member that its hash names; the last takes what is left.
fn clustered(protocol: Protocol, members: &[String], seed: u32) -> Vec<String> {
    let count = members.len();
    let rule = |(index, member): (usize, &String)| {
        let when = match index + 1 == count {
            true => String::new(),
            false => format!(
                "-m cluster --cluster-local-nodemask {:#010x} --cluster-total-nodes {count} \
                 --cluster-hash-seed {seed:#010x} ",
                1_u32 << index
            ),
        };
        format!("-p {protocol} {when}{member}")
    };
    members.iter().enumerate().map(rule).collect()
}

/// An address as `iptables-save` spells it.
fn one(address: &IpAddr) -> String {
    IpNet::from(*address).to_string()
}

fn is_ipv6(net: &IpNet) -> bool {
    net.network().is_ipv6()
}
