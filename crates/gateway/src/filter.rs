//! What the kernel shall refuse before anyone here reads a byte: nftables text, rendered purely.
//!
//! One table of our own. A port that limits nothing has no rule, and without any limit there is no
//! table: then nothing is tracked and nothing is looked up. A change is one transaction that leaves
//! the counters of other ports as they are, so limits hold while ports come and go.

mod ranges;
mod rule;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use tunnel_proto::message::{Limits, Protocol, Range};

use crate::port::PortKey;
pub(crate) use ranges::{contains, simplified};

/// The family and name of our table. Everything in it is ours.
pub(crate) const TABLE: &str = "inet portcullis_gateway";

/// What the kernel shall refuse.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Filter {
    /// Ports that not everyone may use as he likes.
    pub(crate) ports: BTreeMap<PortKey, PortFilter>,
    /// Ports that share a rate, by cluster.
    pub(crate) shaped: BTreeMap<String, Shaped>,
}

/// What one port refuses.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct PortFilter {
    /// Who may connect; empty means everyone.
    pub(crate) allow_from: Vec<Range>,
    /// What one source may do. The kernel keeps it for TCP alone: it cannot tell the first datagram
    /// of a UDP flow from the second while nobody answers.
    pub(crate) limits: Limits,
}

/// Ports that share a rate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Shaped {
    pub(crate) bits_per_second: u64,
    pub(crate) ports: BTreeSet<(Protocol, u16)>,
}

impl PortFilter {
    /// Whether there is anything for the kernel to do.
    pub(crate) fn is_needed(&self, protocol: Protocol) -> bool {
        let limits = protocol == Protocol::Tcp && self.limits != Limits::default();
        limits || !self.allow_from.is_empty()
    }
}

impl Filter {
    fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.shaped.is_empty()
    }

    /// The transaction that makes the kernel's table this, whatever it was. `None` when there is no
    /// table to have: removing one that is not there would be an error before Linux 6.3.
    pub(crate) fn whole(&self) -> Option<String> {
        if self.is_empty() {
            return None;
        }
        let mut text = removal();
        text.push_str(&rule::skeleton());
        for (key, port) in &self.ports {
            text.push_str(&rule::port(key, port));
        }
        text.push_str(&rule::lookups(self.ports.keys()));
        text.push_str(&rule::shaped(&self.shaped));
        Some(text)
    }

    /// The transaction that makes this of `before`, which the kernel is known to have. `None` when
    /// nothing changes.
    pub(crate) fn change_from(&self, before: &Self) -> Option<String> {
        if self == before {
            return None;
        }
        if self.is_empty() {
            return Some(removal());
        }
        if before.is_empty() {
            return self.whole();
        }
        let mut text = String::new();
        for (key, port) in &self.ports {
            if before.ports.get(key) != Some(port) {
                if let Some(before) = before.ports.get(key) {
                    text.push_str(&rule::forget(key, before, port));
                }
                text.push_str(&rule::port(key, port));
            }
        }
        if !self.ports.keys().eq(before.ports.keys()) {
            text.push_str(&rule::lookups(self.ports.keys()));
        }
        for (key, gone) in before.ports.iter().filter(|(key, _)| !self.ports.contains_key(key)) {
            text.push_str(&rule::removed(key, gone));
        }
        if self.shaped != before.shaped {
            text.push_str(&rule::unshaped(&before.shaped));
            text.push_str(&rule::shaped(&self.shaped));
        }
        Some(text)
    }
}

/// Removes the table, whether it is there or not.
pub(crate) fn removal() -> String {
    let mut text = String::new();
    let _infallible = write!(text, "add table {TABLE}\ndelete table {TABLE}\n");
    text
}

#[cfg(test)]
mod tests;
