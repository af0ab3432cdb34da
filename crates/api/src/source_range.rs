//! Lists of addresses that may use a forward.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

use crate::problem::excerpt;

/// The source addresses that may use a forward: at least one range, each in its shortest form,
/// no two of which overlap.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct SourceRanges(BTreeSet<IpNet>);

impl SourceRanges {
    /// The most entries that a list may have.
    pub const MAX_ENTRIES: usize = 1024;

    /// Reads the entries of a list, each an address or a CIDR range of either family.
    ///
    /// White space around an entry is ignored, a bare address is a range of one, host bits are
    /// cleared (`10.1.2.3/8` is `10.0.0.0/8`) and a dotted mask is read
    /// (`10.0.0.0/255.0.0.0`), as iptables does. A range within another is dropped.
    ///
    /// # Errors
    ///
    /// Returns the first entry that cannot be understood; the list is refused as a whole, because
    /// a list with a hole in it would still be relied on.
    pub fn from_entries<'a>(
        entries: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, ParseSourceRangesError> {
        let mut ranges = BTreeSet::new();
        for (index, entry) in entries.into_iter().enumerate() {
            if index == Self::MAX_ENTRIES {
                return Err(ParseSourceRangesError::TooMany);
            }
            ranges.insert(read_range(entry.trim())?);
        }
        Self::disjoint(ranges).ok_or(ParseSourceRangesError::Empty)
    }

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
        Self::disjoint(both)
    }

    /// Drops ranges within others: two ranges overlap only when one holds the other, and the
    /// wider one comes first in order.
    fn disjoint(ranges: BTreeSet<IpNet>) -> Option<Self> {
        let mut kept: Vec<IpNet> = Vec::with_capacity(ranges.len());
        for range in ranges {
            if !kept.last().is_some_and(|it| it.contains(&range)) {
                kept.push(range);
            }
        }
        (!kept.is_empty()).then(|| Self(kept.into_iter().collect()))
    }
}

fn read_range(entry: &str) -> Result<IpNet, ParseSourceRangesError> {
    let address = || entry.parse::<IpAddr>().ok().map(IpNet::from);
    let masked = || {
        let (address, mask) = entry.split_once('/')?;
        Ipv4Net::with_netmask(address.parse().ok()?, mask.parse().ok()?).ok().map(IpNet::from)
    };
    let range = entry.parse::<IpNet>().ok().or_else(address).or_else(masked);
    range.map(|it| it.trunc()).ok_or_else(|| ParseSourceRangesError::Range(excerpt(entry)))
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
    #[error("the list is empty, so that nobody would be allowed")]
    Empty,
    /// The list has more than [`SourceRanges::MAX_ENTRIES`].
    #[error("the list has more than 1024 entries")]
    TooMany,
}

impl ParseSourceRangesError {
    /// What to do about it, as the second half of a sentence.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Range(_) => {
                "write addresses and CIDR ranges, separated by commas; names are not looked up"
            }
            Self::Empty => "leave it out to allow everyone",
            Self::TooMany => "join neighbouring ranges into wider ones",
        }
    }
}

impl FromStr for SourceRanges {
    type Err = ParseSourceRangesError;

    /// Reads a comma-separated list as [`SourceRanges::from_entries`] does; empty entries are
    /// ignored.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::from_entries(text.split(',').filter(|it| !it.trim().is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lists_of_both_families() {
        check("10.0.0.0/8, 2001:db8::/32", Ok("10.0.0.0/8, 2001:db8::/32"));
        check(" 192.0.2.7 ,\n::1,", Ok("192.0.2.7/32, ::1/128"));
        check("10.1.2.3/8", Ok("10.0.0.0/8"));
        check("10.1.2.3/255.255.0.0", Ok("10.1.0.0/16"));
        check("0.0.0.0/0,::/0", Ok("0.0.0.0/0, ::/0"));
    }

    #[test]
    fn ranges_never_overlap() {
        check("10.0.0.0/8, 10.1.0.0/16, 10.1.2.3, 10.0.0.0/8", Ok("10.0.0.0/8"));
        check("10.1.0.0/16, 10.0.0.0/16", Ok("10.0.0.0/16, 10.1.0.0/16"));
        check("::1, ::/0, 10.0.0.1", Ok("10.0.0.1/32, ::/0"));
    }

    #[test]
    fn names_the_entry_that_is_wrong() {
        let range = |it| {
            format!("`{it}` is not an address or CIDR range such as 10.0.0.0/8 or 2001:db8::/32")
        };
        for entry in [
            "10.0.0.0/33",
            "2001:db8::/129",
            "10/8",
            "10.0.0.0/255.0.255.0",
            "300.0.0.1",
            "fe80::1%eth0",
            "vpn.example.com",
            "!10.0.0.0/8",
            "10.0.0.0/8; reboot",
            "$(reboot)",
            "١٠.٠.٠.٠/8",
        ] {
            check(&format!("192.0.2.1, {entry}"), Err(&range(entry)));
        }
        check("10.0.0.0/8 -j ACCEPT\n", Err(&range("10.0.0.0/8 -j ACCEPT")));
        check("a\u{1b}[2Jb", Err(&range("a\\u{1b}[2Jb")));
        check("", Err("the list is empty, so that nobody would be allowed"));
        check(" , ", Err("the list is empty, so that nobody would be allowed"));
    }

    #[test]
    fn a_list_is_limited() {
        let list = |count: u32| {
            let addresses = (0..count).map(|it| std::net::Ipv4Addr::from(it * 2).to_string());
            addresses.collect::<Vec<_>>().join(",")
        };
        assert_eq!(list(1024).parse::<SourceRanges>().map(|it| it.iter().count()), Ok(1024));
        check(&list(1025), Err("the list has more than 1024 entries"));
        check(
            &format!("{}/8", "1".repeat(1_000_000)),
            Err(&format!(
                "`{}…` is not an address or CIDR range such as 10.0.0.0/8 or 2001:db8::/32",
                "1".repeat(48)
            )),
        );
    }

    #[test]
    fn what_two_lists_allow_is_the_narrower_of_each_pair() {
        let both = |a: &str, b: &str| {
            let (a, b): (SourceRanges, SourceRanges) =
                (a.parse().expect("a list"), b.parse().expect("a list"));
            a.intersection(&b).map(|it| it.to_string())
        };
        assert_eq!(
            both("10.0.0.0/8, ::/0", "10.1.0.0/16, 10.2.0.0/16, 192.0.2.0/24, ::1").as_deref(),
            Some("10.1.0.0/16, 10.2.0.0/16, ::1/128")
        );
        assert_eq!(both("10.0.0.0/8", "192.0.2.0/24, ::/0"), None);
    }

    #[track_caller]
    fn check(text: &str, expected: Result<&str, &str>) {
        let actual = text.parse::<SourceRanges>();
        let actual = actual.map(|it| it.to_string()).map_err(|it| it.to_string());
        assert_eq!(actual.as_deref().map_err(String::as_str), expected);
    }
}
