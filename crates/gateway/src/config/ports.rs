//! The ports of a grant: `443`, `8000-8100`, `53/udp`, `1-65535/tcp`.

use std::fmt;
use std::str::FromStr;

use tunnel_proto::message::Protocol;

/// A range of ports, of one protocol or of both.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct GrantedPorts {
    first: u16,
    last: u16,
    /// `None` means both.
    protocol: Option<Protocol>,
}

/// Why a text is no range of ports.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "`{0}` is no range of ports; write `443`, `8000-8100`, or with a protocol, `8000-8100/udp`"
)]
pub struct PortsError(String);

impl GrantedPorts {
    /// Every port of both protocols.
    pub const ALL: Self = Self { first: 1, last: u16::MAX, protocol: None };

    /// Whether the port is one of these.
    #[must_use]
    pub fn contains(&self, protocol: Protocol, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
            && self.protocol.is_none_or(|granted| granted == protocol)
    }
}

impl FromStr for GrantedPorts {
    type Err = PortsError;

    fn from_str(text: &str) -> Result<Self, PortsError> {
        let wrong = || PortsError(text.to_owned());
        let (range, protocol) = match text.split_once('/') {
            Some((range, "tcp")) => (range, Some(Protocol::Tcp)),
            Some((range, "udp")) => (range, Some(Protocol::Udp)),
            Some(_) => return Err(wrong()),
            None => (text, None),
        };
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let port = |it: &str| {
            let digits = it.bytes().all(|it| it.is_ascii_digit());
            it.parse::<u16>().ok().filter(|it| digits && *it > 0).ok_or_else(wrong)
        };
        let (first, last) = (port(first)?, port(last)?);
        if first > last {
            return Err(wrong());
        }
        Ok(Self { first, last, protocol })
    }
}

impl fmt::Display for GrantedPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        if self.last != self.first {
            write!(f, "-{}", self.last)?;
        }
        match self.protocol {
            Some(Protocol::Tcp) => f.write_str("/tcp"),
            Some(Protocol::Udp) => f.write_str("/udp"),
            None => Ok(()),
        }
    }
}

impl serde::Serialize for GrantedPorts {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for GrantedPorts {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_its_ends_and_its_protocol() {
        check("443", Protocol::Tcp, 443, true);
        check("443", Protocol::Udp, 443, true);
        check("443", Protocol::Tcp, 444, false);
        check("443/udp", Protocol::Tcp, 443, false);
        check("8000-8100/udp", Protocol::Udp, 8000, true);
        check("8000-8100/udp", Protocol::Udp, 8100, true);
        check("8000-8100/udp", Protocol::Udp, 8101, false);
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in ["", "0", "-", "1-", "65536", "+443", "443/sctp", "9-8", "80,443", " 80"] {
            assert!(text.parse::<GrantedPorts>().is_err(), "{text:?} was taken");
        }
    }

    #[track_caller]
    fn check(text: &str, protocol: Protocol, port: u16, expected: bool) {
        let ports: GrantedPorts = text.parse().expect("a range");
        assert_eq!(ports.contains(protocol, port), expected, "{text} {protocol:?} {port}");
        assert_eq!(ports.to_string(), text);
    }
}
