//! Follows packets through a ruleset without a kernel.
//!
//! The tracer reads the text that the kernel would get, for either backend, and refuses text that
//! it does not understand; so it says what the ruleset does, not what it was meant to do. It
//! counts as the kernel counts: the same packet again goes to the next target. Which target a
//! source address is bound to is the kernel's own choice; the tracer's is as stable, but another.

mod iptables;
mod nftables;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use api::port::{Port, Protocol};

use crate::backend::{Observed, Ruleset};

/// The first packet of a connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Packet {
    /// Where it comes from.
    pub source: IpAddr,
    /// How it reaches the host.
    pub entry: Entry,
    /// The address that it is for.
    pub to: IpAddr,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The port that it is for.
    pub port: Port,
}

/// How a packet reaches the host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Entry {
    /// Through an interface.
    Interface(String),
    /// It is made on the host, and stays there unless it is forwarded.
    Own,
}

/// What the tracer has to know about the host besides its rules.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Host {
    /// Its own addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Whether its other rules drop what it forwards.
    pub drops_forwarded: bool,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It is sent to a target.
    Delivered {
        /// The target.
        target: SocketAddr,
        /// The source that the target sees.
        source: Source,
    },
    /// Our rules leave it alone: the host itself answers, or routes it on.
    Host,
    /// It is forwarded, and the host's other rules drop it.
    Dropped,
}

/// The source that a target sees.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    /// The packet's own.
    Kept,
    /// An address of the host.
    Masqueraded,
}

/// The text holds something that the tracer does not understand.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("cannot follow packets through `{0}`")]
pub struct NotUnderstood(pub String);

/// A ruleset with its counters.
#[derive(Clone, Debug, Default)]
pub struct Tracer {
    nftables: Option<nftables::Rules>,
    iptables: [iptables::Rules; 2],
}

impl Tracer {
    /// Reads a rendered ruleset.
    ///
    /// # Errors
    ///
    /// Names the first line that it does not understand.
    pub fn new(ruleset: &Ruleset) -> Result<Self, NotUnderstood> {
        Self::of(&ruleset.as_observed())
    }

    /// Reads what a host has.
    ///
    /// # Errors
    ///
    /// Names the first line that it does not understand.
    pub fn of(observed: &Observed) -> Result<Self, NotUnderstood> {
        let nftables = observed.nftables.as_ref();
        if let Some(foreign) = nftables.and_then(|it| it.foreign.first()) {
            return Err(NotUnderstood(foreign.clone()));
        }
        let nftables = nftables.map(|it| nftables::Rules::read(&it.to_string()));
        let [(_, v4), (_, v6)] = observed.iptables.each();
        let families = [v4, v6].map(|it| iptables::Rules::read(&it.to_string()));
        let [v4, v6] = families;
        Ok(Self { nftables: nftables.transpose()?, iptables: [v4?, v6?] })
    }

    /// Follows one packet, and counts it.
    pub fn trace(&mut self, packet: &Packet, host: &Host) -> Verdict {
        let v6 = packet.to.is_ipv6();
        if packet.source.is_ipv6() != v6 {
            return Verdict::Host;
        }
        let family = &mut self.iptables[usize::from(v6)];
        let translated = match &mut self.nftables {
            Some(rules) => rules.translate(packet, host),
            None => family.translate(packet, host),
        };
        let Some(target) = translated else { return Verdict::Host };
        let passes = packet.entry == Entry::Own || !host.drops_forwarded;
        if !passes && !family.accepts(packet, target) {
            return Verdict::Dropped;
        }
        let masqueraded = match &mut self.nftables {
            Some(rules) => rules.masquerades(packet, target),
            None => family.masquerades(packet, target),
        };
        let source = if masqueraded { Source::Masqueraded } else { Source::Kept };
        Verdict::Delivered { target, source }
    }
}

/// A number that is the same for the same source: FNV-1a.
fn hash(source: IpAddr, seed: u32) -> u32 {
    let bytes = match source {
        IpAddr::V4(it) => it.octets().to_vec(),
        IpAddr::V6(it) => it.octets().to_vec(),
    };
    let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    bytes.iter().fold(0x811c_9dc5 ^ seed, step)
}
