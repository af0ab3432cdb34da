//! Ranges of ports.

use std::fmt;
use std::str::FromStr;

use crate::port::Port;
use crate::problem::excerpt;

/// One port, or several that follow each other; never empty.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PortRange {
    first: Port,
    last: Port,
}

impl PortRange {
    /// The ports from `first` to `last`, both included; `None` when `last` is below `first`.
    #[must_use]
    pub fn new(first: Port, last: Port) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// The lowest port.
    #[must_use]
    pub fn first(self) -> Port {
        self.first
    }

    /// The highest port.
    #[must_use]
    pub fn last(self) -> Port {
        self.last
    }

    /// How many ports it holds: 1 to 65535.
    #[must_use]
    pub fn count(self) -> u16 {
        self.last.get() - self.first.get() + 1
    }

    /// The ports in ascending order.
    pub fn ports(self) -> impl Iterator<Item = Port> {
        (self.first.get()..=self.last.get()).filter_map(Port::new)
    }

    /// Whether some port is in both ranges.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl From<Port> for PortRange {
    fn from(port: Port) -> Self {
        Self { first: port, last: port }
    }
}

impl fmt::Display for PortRange {
    /// `443` or `9000-9010`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// The text is not a port or a range of ports.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ParsePortRangeError {
    /// A port is missing, is not a number, or is outside 1 to 65535.
    #[error("`{0}` is not a port between 1 and 65535")]
    Port(String),
    /// The range ends before it begins.
    #[error("the range `{0}` ends before it begins")]
    Backwards(String),
}

impl FromStr for PortRange {
    type Err = ParsePortRangeError;

    /// Reads `443` or `9000-9010`; white space around a number is ignored.
    ///
    /// A number is written in ASCII digits alone: no sign, no other digits of Unicode.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((first, last)) = text.split_once('-') else {
            return Ok(read_port(text)?.into());
        };
        let (first, last) = (read_port(first)?, read_port(last)?);
        Self::new(first, last).ok_or_else(|| ParsePortRangeError::Backwards(excerpt(text)))
    }
}

fn read_port(text: &str) -> Result<Port, ParsePortRangeError> {
    let text = text.trim();
    let digits = text.bytes().all(|it| it.is_ascii_digit());
    let port = if digits { text.parse().ok() } else { None };
    port.ok_or_else(|| ParsePortRangeError::Port(excerpt(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_ports_and_ranges() {
        check("1", Ok("1"));
        check("65535", Ok("65535"));
        check(" 9000 - 9010 ", Ok("9000-9010"));
        check("443-443", Ok("443"));
        check("0080", Ok("80"));
    }

    #[test]
    fn names_the_part_that_is_wrong() {
        check("", Err("`` is not a port between 1 and 65535"));
        check("0", Err("`0` is not a port between 1 and 65535"));
        check("65536", Err("`65536` is not a port between 1 and 65535"));
        check("-1", Err("`` is not a port between 1 and 65535"));
        check("+1", Err("`+1` is not a port between 1 and 65535"));
        check("1-2-3", Err("`2-3` is not a port between 1 and 65535"));
        check("9010-9000", Err("the range `9010-9000` ends before it begins"));
        // Digits, but not ASCII.
        check("٤٤٣", Err("`٤٤٣` is not a port between 1 and 65535"));
        check("４４３", Err("`４４３` is not a port between 1 and 65535"));
    }

    #[test]
    fn counts_every_port() {
        let all: PortRange = "1-65535".parse().expect("a range");
        assert_eq!(all.count(), 65535);
        assert_eq!(all.ports().count(), 65535);
    }

    #[track_caller]
    fn check(text: &str, expected: Result<&str, &str>) {
        let actual = text.parse::<PortRange>();
        let actual = actual.map(|it| it.to_string()).map_err(|it| it.to_string());
        assert_eq!(actual.as_deref().map_err(String::as_str), expected);
    }
}
