//! The grammar of `portcullis.dev/host-ports`, and of the predecessor's `externalports`.
//!
//! One value becomes [`HostPorts`] and nothing else: which object carried it, which node ports a
//! Service really has and which target is meant by an omitted one are questions for the planner.
//!
//! Both vocabularies share one grammar. What `epok.getbetter.ro/externalports` accepted means the
//! same here, with four differences, all of them refusals of values that the predecessor took
//! without doing what they say:
//!
//! - a third part other than `udp` used to mean TCP, so that `53:30053:UDP` and
//!   `53:30053:sctp` opened TCP ports; here protocols are read in any case, `sctp` is SCTP, and
//!   anything else is refused;
//! - port 0 was accepted and made rules that match nothing; it is refused;
//! - two entries for one host port were accepted and the first won; they are refused;
//! - a number with a plus sign (`+22`) was accepted; it is refused.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::port::{Port, Protocol};
use crate::port_range::{ParsePortRangeError, PortRange};
use crate::problem::excerpt;

/// The host ports that one object asks for; no host port of a protocol is in it twice.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HostPorts(BTreeMap<(PortRange, Protocol), Option<Port>>);

/// One host port that an object asks for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct HostPort {
    /// The port on the host.
    pub port: Port,
    /// Its transport protocol.
    pub protocol: Protocol,
    /// The node port of a Service, or the port of a Pod; `None` where it was left out.
    pub target: Option<Port>,
}

impl HostPorts {
    /// The most bytes that a value may have: as many as Kubernetes allows all annotations of an
    /// object together.
    pub const MAX_BYTES: usize = 256 * 1024;

    /// The most ports that one value may ask for: as many as a host has of one protocol.
    pub const MAX_PORTS: usize = 65_535;

    /// Every host port on its own, ranges expanded.
    pub fn iter(&self) -> impl Iterator<Item = HostPort> + '_ {
        self.0.iter().flat_map(|(&(host, protocol), &first_target)| {
            host.ports().zip(0..).map(move |(port, offset)| HostPort {
                port,
                protocol,
                // Cannot overflow: parsing checked that the last target is a port.
                target: first_target.and_then(|it| it.checked_add(offset)),
            })
        })
    }

    /// How many host ports it asks for.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.keys().map(|(host, _)| usize::from(host.count())).sum()
    }

    /// Whether it asks for no host port: how a user turns forwarding off without deleting the
    /// annotation.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for HostPorts {
    /// Writes the value back, in order of host ports: `53:30053:udp, 443:30443, 9000-9010`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, ((host, protocol), target)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{host}")?;
            if let Some(first) = target {
                let last = first.saturating_add(host.count() - 1);
                match PortRange::new(*first, last) {
                    Some(target) => write!(f, ":{target}")?,
                    None => write!(f, ":{first}")?,
                }
            }
            match protocol {
                Protocol::Tcp => {}
                Protocol::Udp | Protocol::Sctp => write!(f, ":{protocol}")?,
            }
        }
        Ok(())
    }
}

/// Why a list of host ports was refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ParseHostPortsError {
    /// The entry has more than three parts.
    #[error("`{0}` has too many parts, expected HOST[:TARGET][:PROTOCOL]")]
    Shape(String),
    /// A port is missing, is not a number, or is outside 1 to 65535.
    #[error("`{port}` in `{entry}` is not a port between 1 and 65535")]
    Port {
        /// The text that should have been a port.
        port: String,
        /// The entry that holds it.
        entry: String,
    },
    /// A range ends before it begins.
    #[error("the range `{range}` in `{entry}` ends before it begins")]
    Backwards {
        /// The range.
        range: String,
        /// The entry that holds it.
        entry: String,
    },
    /// The host ports and the targets differ in number.
    #[error("`{entry}` leads {host} host ports to {target} target ports")]
    Length {
        /// The entry.
        entry: String,
        /// How many host ports it has.
        host: u16,
        /// How many target ports it has.
        target: u16,
    },
    /// The second of two parts is neither a port nor a protocol.
    #[error("`{part}` in `{entry}` is neither a port between 1 and 65535 nor tcp, udp or sctp")]
    Target {
        /// The part.
        part: String,
        /// The entry that holds it.
        entry: String,
    },
    /// The third part is not a protocol.
    #[error("`{protocol}` in `{entry}` is not a protocol, expected tcp, udp or sctp")]
    Protocol {
        /// The text that should have been a protocol.
        protocol: String,
        /// The entry that holds it.
        entry: String,
    },
    /// Two entries claim the same host port.
    #[error("host port {port}/{protocol} is in the list twice")]
    Duplicate {
        /// The lowest host port claimed twice.
        port: Port,
        /// Its protocol.
        protocol: Protocol,
    },
    /// The value is longer than [`HostPorts::MAX_BYTES`].
    #[error("the value has {0} bytes, the limit is 262144")]
    TooLong(usize),
    /// The value asks for more than [`HostPorts::MAX_PORTS`].
    #[error("the value asks for {0} ports, the limit is 65535")]
    TooMany(usize),
}

impl ParseHostPortsError {
    /// What to do about it, as the second half of a sentence.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Shape(_) | Self::Port { .. } | Self::Target { .. } => {
                "write entries such as 443, 443:30443, 53:udp, 53:30053:udp or \
                 9000-9010:30000-30010, separated by commas"
            }
            Self::Backwards { .. } => "write the lower port first, such as 9000-9010",
            Self::Length { .. } => {
                "write two ranges of one length, such as 9000-9010:30000-30010, or leave the \
                 targets out"
            }
            Self::Protocol { .. } => {
                "end the entry with :tcp, :udp or :sctp, or leave it out for tcp"
            }
            Self::Duplicate { .. } => "leave one of the two entries out",
            Self::TooLong(_) | Self::TooMany(_) => {
                "write ranges, or split the ports over several objects"
            }
        }
    }
}

impl FromStr for HostPorts {
    type Err = ParseHostPortsError;

    /// Reads a comma-separated list of `HOST[:TARGET][:PROTOCOL]`.
    ///
    /// `HOST` and `TARGET` are ports or ranges of one length, the protocol defaults to TCP and is
    /// read in any case. White space around a part is ignored, and so is an empty entry. An empty
    /// value asks for nothing.
    ///
    /// # Errors
    ///
    /// Returns the first error found, reading left to right. The value is refused as a whole: a
    /// half-understood annotation would open some ports and silently not others.
    ///
    /// # Examples
    ///
    /// ```
    /// use api::annotation::host_ports::{HostPorts, ParseHostPortsError};
    ///
    /// let ports: HostPorts = "443:30443, 53:30053:UDP, 9000-9010".parse()?;
    /// assert_eq!(ports.to_string(), "53:30053:udp, 443:30443, 9000-9010");
    /// assert_eq!(ports.count(), 13);
    /// # Ok::<(), ParseHostPortsError>(())
    /// ```
    fn from_str(value: &str) -> Result<Self, Self::Err> {
        if value.len() > Self::MAX_BYTES {
            return Err(ParseHostPortsError::TooLong(value.len()));
        }
        let mut read = Vec::new();
        for entry in value.split(',').map(str::trim).filter(|it| !it.is_empty()) {
            read.push(read_entry(entry)?);
        }
        let count = read.iter().map(|it| usize::from(it.host.count())).sum();
        refuse_duplicates(&read)?;
        if count > Self::MAX_PORTS {
            return Err(ParseHostPortsError::TooMany(count));
        }
        Ok(Self(read.into_iter().map(|it| ((it.host, it.protocol), it.target)).collect()))
    }
}

struct Entry {
    host: PortRange,
    target: Option<Port>,
    protocol: Protocol,
}

fn read_entry(entry: &str) -> Result<Entry, ParseHostPortsError> {
    let parts: Vec<&str> = entry.splitn(4, ':').map(str::trim).collect();
    match parts[..] {
        [host] => {
            Ok(Entry { host: read_range(host, entry)?, target: None, protocol: Protocol::Tcp })
        }
        [host, second] => {
            let host = read_range(host, entry)?;
            if let Ok(protocol) = second.parse() {
                return Ok(Entry { host, target: None, protocol });
            }
            if second.starts_with(|it: char| it.is_ascii_alphabetic()) {
                let (part, entry) = (excerpt(second), excerpt(entry));
                return Err(ParseHostPortsError::Target { part, entry });
            }
            let target = Some(read_target(host, second, entry)?);
            Ok(Entry { host, target, protocol: Protocol::Tcp })
        }
        [host, target, protocol] => {
            let host = read_range(host, entry)?;
            let target = Some(read_target(host, target, entry)?);
            let protocol = protocol.parse().map_err(|_| ParseHostPortsError::Protocol {
                protocol: excerpt(protocol),
                entry: excerpt(entry),
            })?;
            Ok(Entry { host, target, protocol })
        }
        _ => Err(ParseHostPortsError::Shape(excerpt(entry))),
    }
}

fn read_target(host: PortRange, target: &str, entry: &str) -> Result<Port, ParseHostPortsError> {
    let target = read_range(target, entry)?;
    if target.count() != host.count() {
        return Err(ParseHostPortsError::Length {
            entry: excerpt(entry),
            host: host.count(),
            target: target.count(),
        });
    }
    Ok(target.first())
}

fn read_range(text: &str, entry: &str) -> Result<PortRange, ParseHostPortsError> {
    let entry = excerpt(entry);
    text.parse().map_err(|it| match it {
        ParsePortRangeError::Port(port) => ParseHostPortsError::Port { port, entry },
        ParsePortRangeError::Backwards(range) => ParseHostPortsError::Backwards { range, entry },
    })
}

/// Reports the lowest host port that two entries claim.
fn refuse_duplicates(entries: &[Entry]) -> Result<(), ParseHostPortsError> {
    let mut claims: Vec<_> = entries.iter().map(|it| (it.protocol, it.host)).collect();
    claims.sort_unstable();
    // Of two neighbours in this order, the second begins where the overlap begins; and when no
    // two neighbours overlap, no two ranges do.
    let twice = claims.windows(2).find(|it| it[0].0 == it[1].0 && it[0].1.overlaps(it[1].1));
    match twice {
        Some(claims) => {
            let (protocol, host) = claims[1];
            Err(ParseHostPortsError::Duplicate { port: host.first(), protocol })
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
