//! Following packets through our chains of iptables.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::{Entry, Host, NotUnderstood, Packet};
use crate::iptables::layout::{FILTER, JUMPS, NAT};
use crate::iptables::reading::{Rule, Target, rule};

/// The chains of one family as their text says them.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    /// Table and chain -> rules. Built-in chains hold our jumps alone.
    chains: BTreeMap<(&'static str, String), Vec<Rule>>,
    counters: BTreeMap<(&'static str, String, usize), u32>,
}

struct Passing<'a> {
    packet: &'a Packet,
    host: Option<&'a Host>,
    translated: Option<SocketAddr>,
}

enum Decision {
    Translate(SocketAddr),
    Masquerade,
    Accept,
}

impl Rules {
    pub(super) fn read(text: &str) -> Result<Self, NotUnderstood> {
        let mut rules = Self::default();
        let mut table = "";
        for line in text.lines() {
            match line {
                "*nat" => table = NAT,
                "*filter" => table = FILTER,
                "COMMIT" => table = "",
                _ => rules.line(table, line).ok_or_else(|| NotUnderstood(line.to_owned()))?,
            }
        }
        rules.all_lead_somewhere()?;
        Ok(rules)
    }

    fn line(&mut self, table: &'static str, line: &str) -> Option<()> {
        if let Some(name) = line.strip_prefix(':') {
            let name = name.strip_suffix(" - [0:0]")?;
            self.chains.insert((table, name.to_owned()), Vec::new());
            return Some(());
        }
        let (verb, rest) = line.split_once(' ')?;
        let (chain, rest) = rest.split_once(' ')?;
        let text = match verb {
            "-A" => rest,
            "-I" => rest.strip_prefix("1 ")?,
            _ => return None,
        };
        let jump = JUMPS.iter().any(|it| (it.table, it.from, it.rule) == (table, chain, text));
        let known = jump || self.chains.contains_key(&(table, chain.to_owned()));
        let rules = self.chains.entry((table, chain.to_owned())).or_default();
        rules.push(rule(text).filter(|_| known)?);
        Some(())
    }

    /// iptables would not load a rule that leads nowhere.
    fn all_lead_somewhere(&self) -> Result<(), NotUnderstood> {
        for ((table, _), rules) in &self.chains {
            for rule in rules {
                if let Some(Target::Jump(to) | Target::Goto(to)) = &rule.target
                    && !self.chains.contains_key(&(*table, to.clone()))
                {
                    return Err(NotUnderstood(format!("a rule that leads to {to}")));
                }
            }
        }
        Ok(())
    }

    pub(super) fn translate(&mut self, packet: &Packet, host: &Host) -> Option<SocketAddr> {
        let chain = match packet.entry {
            Entry::Interface(_) => "PREROUTING",
            Entry::Own => "OUTPUT",
        };
        let passing = Passing { packet, host: Some(host), translated: None };
        match self.walk(NAT, chain, &passing)? {
            Decision::Translate(target) => Some(target),
            Decision::Masquerade | Decision::Accept => None,
        }
    }

    pub(super) fn masquerades(&mut self, packet: &Packet, target: SocketAddr) -> bool {
        let passing = Passing { packet, host: None, translated: Some(target) };
        matches!(self.walk(NAT, "POSTROUTING", &passing), Some(Decision::Masquerade))
    }

    pub(super) fn accepts(&mut self, packet: &Packet, target: SocketAddr) -> bool {
        let passing = Passing { packet, host: None, translated: Some(target) };
        matches!(self.walk(FILTER, "FORWARD", &passing), Some(Decision::Accept))
    }

    /// A chain reached by `-j` comes back to the rule after it; one reached by `-g` comes back to
    /// where the chain that it was reached from would have.
    fn walk(
        &mut self,
        table: &'static str,
        first: &str,
        passing: &Passing<'_>,
    ) -> Option<Decision> {
        let mut stack = vec![(first.to_owned(), 0)];
        while let Some((chain, mut index)) = stack.pop() {
            let Some(rules) = self.chains.get(&(table, chain.clone())).cloned() else { continue };
            while let Some(rule) = rules.get(index) {
                index += 1;
                if !self.matches(rule, (table, &chain, index), passing) {
                    continue;
                }
                match &rule.target {
                    Some(Target::Jump(next)) => {
                        stack.push((chain.clone(), index));
                        stack.push((next.clone(), 0));
                        break;
                    }
                    Some(Target::Goto(next)) => {
                        stack.push((next.clone(), 0));
                        break;
                    }
                    Some(Target::Translate(target)) => return Some(Decision::Translate(*target)),
                    Some(Target::Masquerade) => return Some(Decision::Masquerade),
                    Some(Target::Accept) => return Some(Decision::Accept),
                    None => {}
                }
            }
        }
        None
    }

    /// Matches in the order in which they are written: one that counts, counts only what the
    /// others let through.
    fn matches(
        &mut self,
        rule: &Rule,
        (table, chain, index): (&'static str, &str, usize),
        passing: &Passing<'_>,
    ) -> bool {
        let packet = passing.packet;
        let destination = passing.translated.map_or(packet.to, |it| it.ip());
        let port = passing.translated.map_or(packet.port.get(), |it| it.port());
        let contains = |net: &ipnet::IpNet, address: IpAddr| net.contains(&address);
        let input = match &packet.entry {
            Entry::Interface(name) => name,
            Entry::Own => "",
        };
        let local = || passing.host.is_some_and(|it: &Host| it.addresses.contains(&packet.to));
        let fits = rule.input.as_deref().is_none_or(|it| it == input)
            && rule.output.as_deref().is_none_or(|it| it == "lo" && packet.entry == Entry::Own)
            && rule.source.as_ref().is_none_or(|it| contains(it, packet.source))
            && rule.destination.as_ref().is_none_or(|it| contains(it, destination))
            && rule.protocol.is_none_or(|it| it == packet.protocol)
            && rule.port.is_none_or(|it| it == port)
            && (!rule.local || local())
            && (!rule.translated || passing.translated.is_some())
            // The first packet of a connection never belongs to an established one.
            && !rule.established
            && rule
                .original_ports
                .is_none_or(|(from, to)| (from..=to).contains(&packet.port.get()));
        if !fits {
            return false;
        }
        if let Some(cluster) = rule.cluster {
            let member = super::hash(packet.source, cluster.seed) % cluster.total;
            return cluster.mask & (1_u32.checked_shl(member).unwrap_or(0)) != 0;
        }
        let Some(every) = rule.every else { return true };
        let counter = self.counters.entry((table, chain.to_owned(), index)).or_default();
        *counter += 1;
        (*counter - 1).is_multiple_of(every)
    }
}
