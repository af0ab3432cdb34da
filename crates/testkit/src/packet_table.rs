//! Packet tables: who may reach what, as text that is checked against a tracer and against a
//! kernel.
//!
//! A row is one packet (or several, for a row about distribution) and what must become of it:
//!
//! ```text
//! # from                 to                        becomes
//! client                 192.0.2.1:80/tcp       -> n1 source 10.1.0.1
//! client from 192.0.2.9  192.0.2.1:80/tcp       -> n1 source kept
//! vpn                    [fd01::1]:53/udp       -> n2 at [fd02::12]:30053
//! client                 192.0.2.1:22/tcp       -> refused
//! client                 192.0.2.1:23/tcp       -> dropped
//! client                 192.0.2.1:443/tcp x30  -> n1:10 n2:10 n3:10
//! client                 192.0.2.1:444/udp x300 -> n1:150~30 n2:150~30
//! ```
//!
//! `from` is a place: what it is (an interface and an address for a tracer, a machine for a lab)
//! is for the one who runs the table to say. `source kept` means the packet's own source address;
//! no `source` means that it does not matter. `at` is the address and port that the server was
//! reached on. `x30` sends thirty packets of different connections and counts who got them;
//! `150~30` accepts 120 to 180.
//!
//! The same table is run over the tracer of each backend and over real packets through each
//! backend in the kernel, so this module knows neither.

mod parse;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::{Context as _, bail};

use crate::lab::Machine;
use crate::message::{Outcome, Probe, Protocol};
use crate::probe::{DEADLINE, SILENCE};
pub use parse::ParseTableError;

/// The rows of a packet table. There is at least one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PacketTable {
    rows: Vec<Row>,
}

/// One row.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Row {
    /// The line of the text, counted from 1.
    pub line: usize,
    /// Where the packet comes from.
    pub from: String,
    /// Its source address, where that is not the place's own.
    pub source: Option<IpAddr>,
    /// Where it is sent.
    pub to: SocketAddr,
    /// Over what.
    pub protocol: Protocol,
    /// How many are sent.
    pub times: u32,
    /// What must become of it.
    pub becomes: Expected,
}

/// What must become of the packets of a row.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Expected {
    /// They reach one server.
    Delivered {
        /// The server's name.
        server: String,
        /// The address and port it is reached on, where that matters.
        reached_on: Option<SocketAddr>,
        /// The source it sees, where that matters.
        source: Option<Source>,
    },
    /// They are spread over several servers.
    Spread {
        /// For each server, how many it gets and by how much that may be missed.
        shares: BTreeMap<String, Share>,
        /// The source they see, where that matters.
        source: Option<Source>,
    },
    /// They are answered with a refusal (a TCP reset, an ICMP port unreachable, an SCTP abort).
    Refused,
    /// They are answered with another ICMP error, or there is no route.
    Unreachable,
    /// They vanish.
    Dropped,
}

/// How many packets a server must get: `150~30`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Share {
    /// The number.
    pub count: u32,
    /// By how much it may be missed.
    pub tolerance: u32,
}

/// The source address that a server must see.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    /// The packet's own.
    Kept,
    /// This one.
    Is(IpAddr),
}

/// One packet of a row, as a [`Tracer`] gets it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Packet<'a> {
    /// Where it comes from.
    pub from: &'a str,
    /// Its source address, where that is not the place's own.
    pub source: Option<IpAddr>,
    /// Where it is sent.
    pub to: SocketAddr,
    /// Over what.
    pub protocol: Protocol,
    /// Which of the row's packets it is, counted from 0. Each begins a connection of its own.
    pub number: u32,
    /// What the row expects. For a runner that waits in vain for packets that are dropped; the
    /// verdict must not depend on it.
    pub silence_expected: bool,
}

/// What became of one packet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// A server got it.
    Delivered {
        /// The server's name.
        server: String,
        /// The address and port that it was reached on.
        reached_on: SocketAddr,
        /// The source address that the server sees.
        source_seen: IpAddr,
        /// The source address that the packet was sent with.
        source_sent: IpAddr,
    },
    /// It was refused.
    Refused,
    /// It could not be delivered, and the sender was told.
    Unreachable,
    /// It vanished.
    Dropped,
}

/// Something that can say what becomes of a packet. Any closure of this form is one.
pub trait Tracer {
    /// Says what becomes of `packet`.
    ///
    /// # Errors
    ///
    /// When it cannot say, for example because it does not know the place.
    fn trace(&self, packet: &Packet<'_>) -> anyhow::Result<Verdict>;
}

impl<F: Fn(&Packet<'_>) -> anyhow::Result<Verdict>> Tracer for F {
    fn trace(&self, packet: &Packet<'_>) -> anyhow::Result<Verdict> {
        self(packet)
    }
}

impl PacketTable {
    /// Reads a table from a file.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or is not a table; the message has file and line.
    pub fn read(path: impl AsRef<Path>) -> anyhow::Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path);
        let text = text.with_context(|| format!("packet table {}", path.display()))?;
        text.parse::<Self>().with_context(|| format!("packet table {}", path.display()))
    }

    /// The rows.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Sends all packets through `tracer` and compares what became of them.
    ///
    /// Rows that expect silence are run side by side, because each waits; all others one after
    /// the other, in their order.
    ///
    /// # Errors
    ///
    /// Lists every row that came out differently, with its line.
    pub fn check(&self, tracer: &(impl Tracer + Sync)) -> anyhow::Result<()> {
        let (silent, others): (Vec<_>, Vec<_>) =
            self.rows.iter().partition(|it| it.becomes == Expected::Dropped);
        let mut wrong: Vec<_> = others.into_iter().filter_map(|it| it.wrong(tracer)).collect();
        for part in silent.chunks(32) {
            std::thread::scope(|scope| {
                let running: Vec<_> =
                    part.iter().map(|it| scope.spawn(|| it.wrong(tracer))).collect();
                for row in running {
                    match row.join() {
                        Ok(result) => wrong.extend(result),
                        Err(panic) => std::panic::resume_unwind(panic),
                    }
                }
            });
        }
        if wrong.is_empty() {
            return Ok(());
        }
        wrong.sort();
        let lines: Vec<_> = wrong.into_iter().map(|(_, text)| text).collect();
        bail!("{} of {} rows are wrong:\n{}", lines.len(), self.rows.len(), lines.join("\n"))
    }
}

impl Row {
    fn wrong(&self, tracer: &impl Tracer) -> Option<(usize, String)> {
        let mut verdicts = Vec::new();
        for number in 0..self.times {
            let packet = Packet {
                from: &self.from,
                source: self.source,
                to: self.to,
                protocol: self.protocol,
                number,
                silence_expected: self.becomes == Expected::Dropped,
            };
            match tracer.trace(&packet) {
                Ok(verdict) => verdicts.push(verdict),
                Err(error) => return Some((self.line, format!("line {self}: {error:#}"))),
            }
        }
        let found = self.becomes.mismatch(&verdicts)?;
        Some((self.line, format!("line {self}: found {found}")))
    }
}

impl Expected {
    /// What was found instead, if it is not what was expected.
    fn mismatch(&self, verdicts: &[Verdict]) -> Option<String> {
        let all = |wanted: Verdict| verdicts.iter().find(|it| **it != wanted);
        let wrong = match self {
            Self::Refused => all(Verdict::Refused),
            Self::Unreachable => all(Verdict::Unreachable),
            Self::Dropped => all(Verdict::Dropped),
            Self::Delivered { server, reached_on, source } => verdicts.iter().find(|it| {
                !it.is_delivery_to(server, *source)
                    || reached_on.is_some_and(|wanted| it.reached_on() != Some(wanted))
            }),
            Self::Spread { shares, source } => {
                let stray = verdicts
                    .iter()
                    .find(|it| !shares.keys().any(|name| it.is_delivery_to(name, *source)));
                if stray.is_none() {
                    return uneven(shares, verdicts);
                }
                stray
            }
        };
        wrong.map(ToString::to_string)
    }
}

/// Who got how many, if that is not what was expected.
fn uneven(shares: &BTreeMap<String, Share>, verdicts: &[Verdict]) -> Option<String> {
    let mut counts: BTreeMap<&str, u32> = shares.keys().map(|it| (it.as_str(), 0)).collect();
    for name in verdicts.iter().filter_map(Verdict::server) {
        *counts.entry(name).or_default() += 1;
    }
    let even = shares.iter().all(|(name, share)| {
        counts.get(name.as_str()).is_some_and(|it| it.abs_diff(share.count) <= share.tolerance)
    });
    let text = || counts.iter().map(|(name, it)| format!("{name}:{it}")).collect::<Vec<_>>();
    (!even).then(|| text().join(" "))
}

impl Verdict {
    /// The server that got the packet, if one did.
    #[must_use]
    pub fn server(&self) -> Option<&str> {
        match self {
            Self::Delivered { server, .. } => Some(server),
            Self::Refused | Self::Unreachable | Self::Dropped => None,
        }
    }

    fn reached_on(&self) -> Option<SocketAddr> {
        match self {
            Self::Delivered { reached_on, .. } => Some(*reached_on),
            Self::Refused | Self::Unreachable | Self::Dropped => None,
        }
    }

    fn is_delivery_to(&self, name: &str, source: Option<Source>) -> bool {
        match self {
            Self::Delivered { server, source_seen, source_sent, .. } => {
                server == name
                    && match source {
                        None => true,
                        Some(Source::Kept) => source_seen == source_sent,
                        Some(Source::Is(address)) => *source_seen == address,
                    }
            }
            Self::Refused | Self::Unreachable | Self::Dropped => false,
        }
    }
}

/// Real packets in a lab: a [`Tracer`] whose places are machines.
#[derive(Clone, Debug, Default)]
pub struct Places {
    machines: BTreeMap<String, Machine>,
}

impl Places {
    /// No places yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a machine under its own name.
    #[must_use]
    pub fn with(self, machine: &Machine) -> Self {
        let name = machine.name().to_owned();
        self.with_named(&name, machine)
    }

    /// Adds a machine under another name.
    #[must_use]
    pub fn with_named(mut self, name: &str, machine: &Machine) -> Self {
        self.machines.insert(name.to_owned(), machine.clone());
        self
    }
}

impl Tracer for Places {
    /// Sends a real packet. Servers must be echo servers of a lab.
    fn trace(&self, packet: &Packet<'_>) -> anyhow::Result<Verdict> {
        let machine = self.machines.get(packet.from).with_context(|| {
            let known: Vec<_> = self.machines.keys().map(String::as_str).collect();
            format!("`{}` is not a place of this lab, which has {}", packet.from, known.join(", "))
        })?;
        let deadline = if packet.silence_expected { SILENCE } else { DEADLINE };
        let mut probe = Probe::new(packet.to, packet.protocol).within(deadline);
        if let Some(source) = packet.source {
            probe = probe.from(SocketAddr::new(source, 0));
        }
        Ok(match machine.probe(probe)? {
            Outcome::Reached(answer) => Verdict::Delivered {
                server: answer.server,
                reached_on: answer.reached_on,
                source_seen: answer.source_seen.ip(),
                source_sent: answer.local.ip(),
            },
            Outcome::Refused(_) => Verdict::Refused,
            Outcome::Unreachable(_) => Verdict::Unreachable,
            Outcome::Dropped => Verdict::Dropped,
        })
    }
}

impl fmt::Display for PacketTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.rows {
            let text = row.to_string();
            let (_, row) = text.split_once(": ").unwrap_or_default();
            writeln!(f, "{row}")?;
        }
        Ok(())
    }
}

/// The line number and the row as it is written in a table.
impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.from)?;
        if let Some(source) = self.source {
            write!(f, " from {source}")?;
        }
        write!(f, " {}/{}", self.to, self.protocol)?;
        if self.times != 1 {
            write!(f, " x{}", self.times)?;
        }
        write!(f, " -> {}", self.becomes)
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = match self {
            Self::Delivered { server, reached_on, source } => {
                f.write_str(server)?;
                if let Some(address) = reached_on {
                    write!(f, " at {address}")?;
                }
                *source
            }
            Self::Spread { shares, source } => {
                for (number, (name, share)) in shares.iter().enumerate() {
                    let space = if number == 0 { "" } else { " " };
                    write!(f, "{space}{name}:{}", share.count)?;
                    if share.tolerance != 0 {
                        write!(f, "~{}", share.tolerance)?;
                    }
                }
                *source
            }
            Self::Refused => return f.write_str("refused"),
            Self::Unreachable => return f.write_str("unreachable"),
            Self::Dropped => return f.write_str("dropped"),
        };
        match source {
            None => Ok(()),
            Some(Source::Kept) => f.write_str(" source kept"),
            Some(Source::Is(address)) => write!(f, " source {address}"),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delivered { server, reached_on, source_seen, source_sent } => {
                write!(f, "{server} at {reached_on} source {source_seen}")?;
                if source_seen == source_sent { f.write_str(" (kept)") } else { Ok(()) }
            }
            Self::Refused => f.write_str("refused"),
            Self::Unreachable => f.write_str("unreachable"),
            Self::Dropped => f.write_str("dropped"),
        }
    }
}
