//! Following packets through our table of nftables.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use api::port::{Port, Protocol};

use super::{Entry, Host, NotUnderstood, Packet};
use crate::nftables::layout::{FAMILY, OUTPUT, POSTROUTING, PREROUTING, TABLE};
use crate::nftables::reading::{
    Action, Choice, Element, Match, Rule, Target, element, hooked, rule,
};

/// The table as its text says it.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    chains: BTreeMap<String, Vec<Rule>>,
    hooks: BTreeSet<&'static str>,
    interfaces: BTreeMap<String, String>,
    addresses: BTreeMap<String, BTreeSet<IpAddr>>,
    ports: BTreeMap<String, BTreeMap<(Protocol, Port), Way>>,
    /// By chain and rule.
    counters: BTreeMap<(String, usize), usize>,
}

/// What a map says of a host port: a chain, a node port, or that it is there.
type Way = (Option<String>, Option<Port>);

/// What a packet is on its way through a hook.
struct Passing<'a> {
    packet: &'a Packet,
    host: Option<&'a Host>,
    /// Where address translation sent it.
    translated: Option<SocketAddr>,
}

/// What a chain decided.
enum Decision {
    Translate(SocketAddr),
    Masquerade,
}

impl Rules {
    pub(super) fn read(text: &str) -> Result<Self, NotUnderstood> {
        let mut rules = Self::default();
        let mut container = String::new();
        let mut chain: Option<String> = None;
        for line in text.lines() {
            let line = line.trim();
            if let Some(name) = line.strip_prefix("chain ").and_then(|it| it.strip_suffix(" {")) {
                rules.chains.insert(name.to_owned(), Vec::new());
                chain = Some(name.to_owned());
                continue;
            }
            let named = |kind| line.strip_prefix(kind).and_then(|it: &str| it.strip_suffix(" {"));
            if let Some(name) = named("set ").or_else(|| named("map ")) {
                name.clone_into(&mut container);
                continue;
            }
            if line == "}" {
                // The end of a list of elements leaves its container open, but nothing follows.
                chain = None;
                continue;
            }
            let known = match &chain {
                Some(chain) => rules.rule(chain, line),
                None => {
                    line.is_empty()
                        || line == format!("table {FAMILY} {TABLE} {{")
                        || line == "elements = {"
                        || line.starts_with("type ")
                        || rules.element(&container, line).is_some()
                }
            };
            if !known {
                return Err(NotUnderstood(line.to_owned()));
            }
        }
        rules.all_lead_somewhere()?;
        Ok(rules)
    }

    fn rule(&mut self, chain: &str, line: &str) -> bool {
        if let Some(hook) = hooked(line) {
            self.hooks.insert(hook);
            return hook == chain;
        }
        let rules = self.chains.get_mut(chain);
        match (rule(line), rules) {
            (Some(rule), Some(rules)) => {
                rules.push(rule);
                true
            }
            _ => false,
        }
    }

    fn element(&mut self, container: &str, line: &str) -> Option<()> {
        match element(line.strip_suffix(',')?)? {
            Element::Interface { name, chain } => {
                self.interfaces.insert(name, chain?);
            }
            Element::Address(address) => {
                self.addresses.entry(container.to_owned()).or_default().insert(address);
            }
            Element::Port { key, chain, port } => {
                let ports = self.ports.entry(container.to_owned()).or_default();
                ports.insert(key, (chain, port));
            }
        }
        Some(())
    }

    /// The kernel would not load a rule or an element that leads nowhere.
    fn all_lead_somewhere(&self) -> Result<(), NotUnderstood> {
        let gotos = self.chains.values().flatten().filter_map(|it| match &it.action {
            Action::Goto(chain) => Some(chain),
            Action::ByInterface { .. }
            | Action::ByPort { .. }
            | Action::Translate { .. }
            | Action::Masquerade => None,
        });
        let elements = self.ports.values().flat_map(BTreeMap::values);
        let verdicts = elements.filter_map(|(chain, _)| chain.as_ref());
        let mut chains = gotos.chain(verdicts).chain(self.interfaces.values());
        match chains.find(|it| !self.chains.contains_key(*it)) {
            Some(nowhere) => Err(NotUnderstood(format!("goto {nowhere}"))),
            None => Ok(()),
        }
    }

    pub(super) fn translate(&mut self, packet: &Packet, host: &Host) -> Option<SocketAddr> {
        let hook = match packet.entry {
            Entry::Interface(_) => PREROUTING.chain,
            Entry::Own => OUTPUT.chain,
        };
        let passing = Passing { packet, host: Some(host), translated: None };
        match self.walk(hook, &passing)? {
            Decision::Translate(target) => Some(target),
            Decision::Masquerade => None,
        }
    }

    pub(super) fn masquerades(&mut self, packet: &Packet, target: SocketAddr) -> bool {
        let passing = Passing { packet, host: None, translated: Some(target) };
        matches!(self.walk(POSTROUTING.chain, &passing), Some(Decision::Masquerade))
    }

    /// Every way to another chain is a `goto`: it never comes back.
    fn walk(&mut self, hook: &str, passing: &Passing<'_>) -> Option<Decision> {
        if !self.hooks.contains(hook) {
            return None;
        }
        let mut chain = hook.to_owned();
        loop {
            chain = match self.pass(&chain, passing)? {
                Ok(decision) => return Some(decision),
                Err(next) => next,
            };
        }
    }

    /// Passes one chain: a decision, the next chain, or its end.
    fn pass(&mut self, chain: &str, passing: &Passing<'_>) -> Option<Result<Decision, String>> {
        let rules = self.chains.get(chain)?.clone();
        for (index, rule) in rules.iter().enumerate() {
            if !rule.matches.iter().all(|it| self.matches(it, passing)) {
                continue;
            }
            match &rule.action {
                Action::Goto(next) => return Some(Err(next.clone())),
                Action::Masquerade => return Some(Ok(Decision::Masquerade)),
                Action::ByInterface { .. } => {
                    if let Entry::Interface(name) = &passing.packet.entry
                        && let Some(next) = self.interfaces.get(name)
                    {
                        return Some(Err(next.clone()));
                    }
                }
                Action::ByPort { map } => {
                    if let Some((Some(next), _)) = self.port(map, passing.packet) {
                        return Some(Err(next.clone()));
                    }
                }
                // The choice by source holds a match of the family that is not spelled out.
                Action::Translate { v6, .. } if *v6 != passing.packet.to.is_ipv6() => {}
                Action::Translate { choice, to, ports, .. } => {
                    let place = (chain.to_owned(), index);
                    let target = self.choose(*choice, to, place, passing.packet)?;
                    // Without an element in the map the rule does not match.
                    let target = match (target, ports) {
                        (Target::Pod(target), _) => Some(target),
                        (Target::Node(node), Some(map)) => {
                            let port = self.port(map, passing.packet).and_then(|it| it.1);
                            port.map(|it| SocketAddr::new(node, it.get()))
                        }
                        (Target::Node(_), None) => None,
                    };
                    if let Some(target) = target {
                        return Some(Ok(Decision::Translate(target)));
                    }
                }
            }
        }
        None
    }

    fn port(&self, map: &str, packet: &Packet) -> Option<&Way> {
        self.ports.get(map)?.get(&(packet.protocol, packet.port))
    }

    fn choose(
        &mut self,
        choice: Choice,
        to: &[Target],
        place: (String, usize),
        packet: &Packet,
    ) -> Option<Target> {
        let index = match choice {
            Choice::Only => 0,
            Choice::BySource => super::hash(packet.source, 0) as usize % to.len(),
            Choice::InTurn => {
                let counter = self.counters.entry(place).or_default();
                *counter += 1;
                (*counter - 1) % to.len()
            }
        };
        to.get(index).copied()
    }

    fn matches(&self, condition: &Match, passing: &Passing<'_>) -> bool {
        let packet = passing.packet;
        let family = packet.to.is_ipv6();
        let destination = passing.translated.map_or(packet.to, |it| it.ip());
        let in_set = |set: &str, address: IpAddr| {
            self.addresses.get(set).is_some_and(|it| it.contains(&address))
        };
        match condition {
            Match::Family { v6 } => *v6 == family,
            Match::Protocols(protocols) => protocols.contains(&packet.protocol),
            Match::LocalDestination => {
                passing.host.is_some_and(|it| it.addresses.contains(&packet.to))
            }
            // Where a packet leaves is known only for those that the host makes itself, and those
            // that it sends to itself leave through the loopback interface.
            Match::Output(name) => name == "lo" && packet.entry == Entry::Own,
            Match::Destination { v6, set } => *v6 == family && in_set(set, destination),
            Match::SourceIn { v6, set } => *v6 == family && in_set(set, packet.source),
            Match::Source { v6, spans } => {
                *v6 == family && spans.iter().any(|it| it.contains(packet.source))
            }
            Match::Translated => passing.translated.is_some(),
            Match::OriginalPort { set } => self.port(set, packet).is_some(),
        }
    }
}
