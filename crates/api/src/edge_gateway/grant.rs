//! What namespaces may publish on a gateway.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::port::{Port, Protocol};
use crate::port_range::PortRange;
use crate::problem::excerpt;
use crate::server_name::ServerName;

/// What some namespaces may publish.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Grant {
    /// Which namespaces.
    pub namespaces: Namespaces,
    /// Which ports; `None` for every one.
    pub ports: Option<Vec<GrantedPorts>>,
    /// Which server names; `None` for every one, and for ports that are not shared by name.
    pub hostnames: Option<Vec<ServerName>>,
    /// How many ports each of the namespaces may have; `None` for any number.
    pub max_ports: Option<u32>,
}

impl Grant {
    /// Whether it is for this namespace.
    #[must_use]
    pub fn is_for(&self, namespace: &str) -> bool {
        match &self.namespaces {
            Namespaces::All => true,
            Namespaces::Listed(names) => names.contains(namespace),
        }
    }

    /// Whether it allows a port; `name` is the server name by which the port is shared, `None` for
    /// a port that is not.
    #[must_use]
    pub fn allows(&self, protocol: Protocol, port: Port, name: Option<&ServerName>) -> bool {
        let ports = self.ports.as_ref();
        let hostnames = self.hostnames.as_ref();
        ports.is_none_or(|it| it.iter().any(|it| it.holds(protocol, port)))
            && hostnames
                .is_none_or(|it| name.is_some_and(|name| it.iter().any(|it| it.covers(name))))
    }
}

/// Some namespaces.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Namespaces {
    /// Every one.
    All,
    /// These.
    Listed(BTreeSet<String>),
}

/// Ports that are granted.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum GrantedPorts {
    /// Every port of every protocol.
    All,
    /// These ports of this protocol.
    Range(Protocol, PortRange),
}

impl GrantedPorts {
    /// Whether a port is among them.
    #[must_use]
    pub fn holds(self, protocol: Protocol, port: Port) -> bool {
        match self {
            Self::All => true,
            Self::Range(own, range) => {
                own == protocol && range.first() <= port && port <= range.last()
            }
        }
    }
}

impl fmt::Display for GrantedPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Range(protocol, range) => write!(f, "{range}/{protocol}"),
        }
    }
}

/// The text is not a port or a range of ports.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is not a port or a range of ports such as 443, 53/udp or 8000-8100")]
pub struct ParseGrantedPortsError(String);

impl FromStr for GrantedPorts {
    type Err = ParseGrantedPortsError;

    /// Reads `443`, `53/udp`, `8000-8100/tcp` or `*`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "*" {
            return Ok(Self::All);
        }
        let refuse = || ParseGrantedPortsError(excerpt(text));
        let (range, protocol) = match text.split_once('/') {
            Some((range, "tcp")) => (range, Protocol::Tcp),
            Some((range, "udp")) => (range, Protocol::Udp),
            Some(_) => return Err(refuse()),
            None => (text, Protocol::Tcp),
        };
        Ok(Self::Range(protocol, range.parse().map_err(|_| refuse())?))
    }
}
