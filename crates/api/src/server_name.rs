//! The names that visitors ask for in their TLS greeting (RFC 6066 section 3), and patterns of
//! such names.

use std::cmp::Reverse;
use std::fmt;
use std::str::FromStr;

use crate::problem::excerpt;

/// A host name, every name below a domain, or every name at all.
///
/// `*.example.com` stands for `a.example.com` and `a.b.example.com`, not for `example.com`, as the
/// Gateway API has it. Names are in lower case. Ordered by how specific they are, the most specific
/// first: whole names, then longer wildcards before shorter, then every name.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum ServerName {
    /// One name.
    Exact(String),
    /// Every name that ends with `.` and this.
    Below(String),
    /// Every name, and visitors that ask for none.
    Any,
}

impl ServerName {
    /// Whether every name that `other` stands for is one that this stands for.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (_, Self::Any) | (Self::Exact(_), Self::Below(_)) => false,
            (Self::Exact(own), Self::Exact(other)) => own == other,
            (Self::Below(own), Self::Exact(other)) => is_below(other, own),
            (Self::Below(own), Self::Below(other)) => own == other || is_below(other, own),
        }
    }

    /// The names that both stand for; `None` when there are none.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        if self.covers(other) {
            Some(other.clone())
        } else if other.covers(self) {
            Some(self.clone())
        } else {
            None
        }
    }

    /// As a Gateway's tables have it: the empty text stands for every name.
    #[must_use]
    pub fn to_key(&self) -> String {
        match self {
            Self::Exact(name) => name.clone(),
            Self::Below(domain) => format!("*.{domain}"),
            Self::Any => String::new(),
        }
    }

    fn rank(&self) -> (u8, Reverse<usize>, &str) {
        match self {
            Self::Exact(name) => (0, Reverse(0), name),
            Self::Below(domain) => (1, Reverse(domain.split('.').count()), domain),
            Self::Any => (2, Reverse(0), ""),
        }
    }
}

/// Whether `name` ends with a dot and `domain`.
fn is_below(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain).is_some_and(|it| it.len() > 1 && it.ends_with('.'))
}

impl Ord for ServerName {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl PartialOrd for ServerName {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Below(domain) => write!(f, "*.{domain}"),
            Self::Any => f.write_str("*"),
        }
    }
}

/// The text is not a name that a visitor can ask for.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is not a host name such as www.example.com or *.example.com")]
pub struct ParseServerNameError(String);

impl FromStr for ServerName {
    type Err = ParseServerNameError;

    /// Reads a host name (RFC 1123) in any case, `*.` and a domain, or `*` alone. An address is no
    /// host name: visitors never ask for one (RFC 6066 section 3).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let lower = text.to_ascii_lowercase();
        let (name, wildcard) = match lower.strip_prefix("*.") {
            Some(domain) => (domain, true),
            None => (lower.as_str(), false),
        };
        let inner = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-';
        let label = |it: &str| {
            (1..=63).contains(&it.len())
                && it.bytes().all(inner)
                && !it.starts_with('-')
                && !it.ends_with('-')
        };
        let numeric = |it: &str| it.bytes().all(|it| it.is_ascii_digit());
        let valid = lower.len() <= 253
            && name.split('.').all(label)
            && !name.rsplit('.').next().is_some_and(numeric);
        match valid {
            true if wildcard => Ok(Self::Below(name.to_owned())),
            true => Ok(Self::Exact(name.to_owned())),
            false => Err(ParseServerNameError(excerpt(text))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_and_wildcards_in_any_case() {
        for (text, shown) in [
            ("blog.Example.com", "blog.example.com"),
            ("*.apps.example.com", "*.apps.example.com"),
            ("localhost", "localhost"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("*", "*"),
        ] {
            assert_eq!(text.parse().map(|it: ServerName| it.to_string()), Ok(shown.to_owned()));
        }
        for text in [
            "",
            "*.",
            "**",
            "a.*.b",
            "*a.example.com",
            "a..b",
            "-a.b",
            "a_b.c",
            "a.b.",
            "192.0.2.7",
            "::1",
            "bücher.example",
            "a b",
            &format!("{}.com", "a".repeat(64)),
            &vec!["a"; 128].join("."),
        ] {
            assert!(text.parse::<ServerName>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_wildcard_stands_for_any_depth_but_not_for_its_own_domain() {
        check("*.example.com", "a.example.com", Some("a.example.com"));
        check("*.example.com", "a.b.example.com", Some("a.b.example.com"));
        check("*.example.com", "example.com", None);
        check("*.example.com", "*.b.example.com", Some("*.b.example.com"));
        check("*.example.com", "*.example.com", Some("*.example.com"));
        check("*.example.com", "*.example.net", None);
        check("*.example.com", "evilexample.com", None);
        check("*.com", "*.example.com", Some("*.example.com"));
        check("a.example.com", "a.example.com", Some("a.example.com"));
        check("a.example.com", "b.example.com", None);
        check("*", "*.com", Some("*.com"));
        check("*", "*", Some("*"));
    }

    #[test]
    fn the_most_specific_comes_first() {
        let mut names: Vec<ServerName> =
            ["*", "*.com", "z.example.com", "*.example.com", "a.com", "*.a.example.com"]
                .map(|it| it.parse().expect("a name"))
                .into();
        names.sort();
        let shown: Vec<_> = names.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            ["a.com", "z.example.com", "*.a.example.com", "*.example.com", "*.com", "*"]
        );
    }

    #[track_caller]
    fn check(a: &str, b: &str, expected: Option<&str>) {
        let [a, b]: [ServerName; 2] = [a, b].map(|it| it.parse().expect("a name"));
        let expected = expected.map(|it| it.parse().expect("a name"));
        assert_eq!(a.intersection(&b), expected);
        assert_eq!(b.intersection(&a), expected, "the other way round");
    }
}
