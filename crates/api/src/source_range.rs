//! Lists of addresses that may use a forward.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// The source addresses that may use a forward: at least one range, each in its shortest form.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct SourceRanges(BTreeSet<IpNet>);

impl SourceRanges {
    /// The ranges, IPv4 before IPv6, in ascending order, none twice.
    pub fn iter(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.0.iter().copied()
    }

    /// Whether `source` lies in one of the ranges.
    #[must_use]
    pub fn contains(&self, source: IpAddr) -> bool {
        self.0.iter().any(|it| it.contains(&source))
    }

    /// Returns what both lists allow, or `None` when no address is in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let narrower = |a: IpNet, b: IpNet| match (a.contains(&b), b.contains(&a)) {
            (true, _) => Some(b),
            (false, true) => Some(a),
            (false, false) => None,
        };
        let both: BTreeSet<_> =
            self.iter().flat_map(|a| other.iter().filter_map(move |b| narrower(a, b))).collect();
        (!both.is_empty()).then_some(Self(both))
    }
}

impl fmt::Display for SourceRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{range}")?;
        }
        Ok(())
    }
}

/// Why a list of source ranges was rejected.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ParseSourceRangesError {
    /// One entry is neither an address nor a CIDR range.
    #[error("`{0}` is not an address or CIDR range such as 10.0.0.0/8 or 2001:db8::/32")]
    Range(String),
    /// The list has no entry: it would allow nobody.
    #[error("the list is empty; leave the annotation out to allow everyone")]
    Empty,
}

impl FromStr for SourceRanges {
    type Err = ParseSourceRangesError;

    /// Reads a comma-separated list of addresses and CIDR ranges of both families.
    ///
    /// White space around an entry is ignored, a bare address is a range of one, and host bits
    /// are cleared (`10.1.2.3/8` is `10.0.0.0/8`), as iptables does.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let range = |entry: &str| {
            let net = entry.parse::<IpNet>().or_else(|_| entry.parse::<IpAddr>().map(IpNet::from));
            net.map(|it| it.trunc()).map_err(|_| ParseSourceRangesError::Range(entry.to_owned()))
        };
        let entries = text.split(',').map(str::trim).filter(|it| !it.is_empty());
        let ranges = entries.map(range).collect::<Result<BTreeSet<_>, _>>()?;
        if ranges.is_empty() {
            return Err(ParseSourceRangesError::Empty);
        }
        Ok(Self(ranges))
    }
}
