//! Names of Kubernetes objects.

use std::fmt;
use std::str::FromStr;

use crate::problem::excerpt;

/// The name of an object: a DNS subdomain of RFC 1123, at most 253 characters.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ObjectName(String);

impl ObjectName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text cannot be the name of an object.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is not the name of an object: expected lower case letters, digits, - and .")]
pub struct ParseObjectNameError(String);

impl FromStr for ObjectName {
    type Err = ParseObjectNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let inner = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-';
        let label = |it: &str| {
            !it.is_empty() && it.bytes().all(inner) && !it.starts_with('-') && !it.ends_with('-')
        };
        if text.len() > 253 || !text.split('.').all(label) {
            return Err(ParseObjectNameError(excerpt(text)));
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_the_api_server_accepts() {
        for name in ["a", "edge-a", "7", "edge-a.example.com", &"a".repeat(253)] {
            assert_eq!(name.parse::<ObjectName>().map(|it| it.to_string()), Ok(name.to_owned()));
        }
    }

    #[test]
    fn refuses_the_rest() {
        for name in ["", "Edge", "-a", "a-", "a..b", ".", "a_b", "a b", "ä", &"a".repeat(254)] {
            assert!(name.parse::<ObjectName>().is_err(), "{name}");
        }
        let error = "Edge A".parse::<ObjectName>().expect_err("upper case and a space");
        assert_eq!(
            error.to_string(),
            "`Edge A` is not the name of an object: expected lower case letters, digits, - and ."
        );
    }
}
