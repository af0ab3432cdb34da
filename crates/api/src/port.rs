//! Transport protocols and port numbers.

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::problem::excerpt;

/// A port between 1 and 65535, in host byte order.
pub type Port = NonZeroU16;

/// A transport protocol with ports.
///
/// Ordered and printed as Kubernetes orders and netfilter prints them: `tcp`, `udp`, `sctp`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260; needs a kernel with SCTP connection tracking.
    Sctp,
}

impl Protocol {
    /// Every protocol, in order.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// The lowercase name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text is not the name of a protocol.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is not a protocol, expected tcp, udp or sctp")]
pub struct ParseProtocolError(pub String);

impl FromStr for Protocol {
    type Err = ParseProtocolError;

    /// Reads a name in any case: Kubernetes writes `TCP`, netfilter writes `tcp`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|it| it.name().eq_ignore_ascii_case(text))
            .ok_or_else(|| ParseProtocolError(excerpt(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_protocols_in_any_case() {
        for text in ["udp", "UDP", "uDp"] {
            assert_eq!(text.parse(), Ok(Protocol::Udp));
        }
        for text in ["", "ud", "udp ", "ucp", "17", "ｕｄｐ", "icmp"] {
            assert_eq!(text.parse::<Protocol>(), Err(ParseProtocolError(text.to_owned())));
        }
    }
}
