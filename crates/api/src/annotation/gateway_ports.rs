//! The grammar of `portcullis.dev/gateway-ports`: that of [host ports](super::host_ports), with
//! ports of the Service as targets, and without SCTP, which no tunnel carries.

use std::fmt;
use std::str::FromStr;

use super::host_ports::{HostPorts, ParseHostPortsError};
use crate::port::{Port, Protocol};

/// The public ports that one Service asks for; no port of a protocol is in it twice.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct GatewayPorts(HostPorts);

/// One public port that a Service asks for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct GatewayPort {
    /// The public port.
    pub port: Port,
    /// Its transport protocol.
    pub protocol: Protocol,
    /// The port of the Service; `None` where it was left out.
    pub target: Option<Port>,
}

impl GatewayPorts {
    /// Every public port on its own, ranges expanded.
    pub fn iter(&self) -> impl Iterator<Item = GatewayPort> + '_ {
        let ports = self.0.iter();
        ports.map(|it| GatewayPort { port: it.port, protocol: it.protocol, target: it.target })
    }
}

impl fmt::Display for GatewayPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a list of public ports was refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ParseGatewayPortsError {
    /// It is no list of ports.
    #[error("{}", .0.to_string().replace("host port", "public port").replace("HOST", "PUBLIC"))]
    List(ParseHostPortsError),
    /// An entry asks for SCTP.
    #[error("port {0} asks for SCTP, which tunnels do not carry")]
    Sctp(Port),
}

impl ParseGatewayPortsError {
    /// What to do about it, as the second half of a sentence.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::List(ParseHostPortsError::Protocol { .. }) => {
                "end the entry with :tcp or :udp, or leave it out for tcp"
            }
            Self::List(
                ParseHostPortsError::Shape(_)
                | ParseHostPortsError::Port { .. }
                | ParseHostPortsError::Target { .. },
            ) => "write entries such as 443, 443:8443, 53:udp or 53:5353:udp, separated by commas",
            Self::List(other) => other.remedy(),
            Self::Sctp(_) => "write tcp or udp, or leave the port out",
        }
    }
}

impl FromStr for GatewayPorts {
    type Err = ParseGatewayPortsError;

    /// Reads a comma-separated list of `PUBLIC[:SERVICE][:PROTOCOL]`.
    ///
    /// # Errors
    ///
    /// Returns the first error found; the value is refused as a whole.
    fn from_str(value: &str) -> Result<Self, Self::Err> {
        let ports: HostPorts = value.parse().map_err(ParseGatewayPortsError::List)?;
        let sctp = ports.iter().find(|it| it.protocol == Protocol::Sctp);
        match sctp.map(|it| it.port) {
            Some(port) => Err(ParseGatewayPortsError::Sctp(port)),
            None => Ok(Self(ports)),
        }
    }
}
