//! Names of network interfaces.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::problem::excerpt;

/// The name of a network interface on a host.
///
/// At most 15 bytes (`IFNAMSIZ` less its terminator), and only letters, digits and `-_.:@`: a
/// narrower set than the kernel's, so that a name can stand in a ruleset as it is.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InterfaceName(String);

impl InterfaceName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text cannot be the name of an interface.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is not an interface name: expected 1 to 15 letters, digits or -_.:@")]
pub struct ParseInterfaceError(pub String);

impl FromStr for InterfaceName {
    type Err = ParseInterfaceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = |c: char| c.is_ascii_alphanumeric() || "-_.:@".contains(c);
        let valid = (1..=15).contains(&text.len()) && text.chars().all(known);
        if !valid || text == "." || text == ".." {
            return Err(ParseInterfaceError(excerpt(text)));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for InterfaceName {
    type Error = ParseInterfaceError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<InterfaceName> for String {
    fn from(name: InterfaceName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_kernels_and_people_use() {
        for name in ["lo", "eth0", "wg0.100", "br-lan", "enp3s0f1np1", "eth0:1", "if0@if1", "a"] {
            assert_eq!(name.parse::<InterfaceName>().map(String::from), Ok(name.to_owned()));
        }
    }

    #[test]
    fn refuses_what_could_be_more_than_a_name() {
        let hostile =
            ["", ".", "..", "eth 0", "eth0;reboot", "eth0\n", "\"lo\"", "eth*", "eth+", "ëth0"];
        for name in hostile.into_iter().chain(["sixteen-letters0", " wg0", "$IF", "a/b", "eth0\0"])
        {
            assert!(name.parse::<InterfaceName>().is_err(), "{name:?}");
        }
        let error = "eth0\nx".parse::<InterfaceName>().expect_err("a line break");
        assert_eq!(
            error.to_string(),
            "`eth0\\nx` is not an interface name: expected 1 to 15 letters, digits or -_.:@"
        );
    }
}
