//! Consecutive addresses, and the fewest of them that cover a list.
//!
//! nft merges neighbouring and overlapping ranges of a set and lists what came of it. Whoever
//! compares a ruleset with a listing must merge in the same way.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// All addresses between two of the same family, both included.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Span {
    v6: bool,
    first: u128,
    last: u128,
}

impl Span {
    /// All addresses between two; `None` when their families differ or they are out of order.
    pub(crate) fn between(first: IpAddr, last: IpAddr) -> Option<Self> {
        let v6 = first.is_ipv6();
        let ordered = first <= last && last.is_ipv6() == v6;
        ordered.then(|| Self { v6, first: number(first), last: number(last) })
    }

    /// Whether the addresses are IPv6.
    pub(crate) fn is_ipv6(&self) -> bool {
        self.v6
    }

    /// Whether `address` is one of them.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv6() == self.v6 && (self.first..=self.last).contains(&number(address))
    }

    /// Reads an address, a range `a-b` or a prefix `a/n`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if let Some((first, last)) = text.split_once('-') {
            return Self::between(first.parse().ok()?, last.parse().ok()?);
        }
        let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        net.ok().map(Self::from)
    }

    /// The prefix that is exactly these addresses, if there is one.
    fn prefix(&self) -> Option<IpNet> {
        let bits: u8 = if self.v6 { 128 } else { 32 };
        let size = self.last - self.first; // less one
        let host_bits = u8::try_from(128 - size.leading_zeros()).ok()?;
        let whole = host_bits >= 128 || size == (1_u128 << host_bits) - 1;
        let aligned = self.first & size == 0;
        if !(whole && aligned) {
            return None;
        }
        IpNet::new(address(self.first, self.v6), bits - host_bits).ok()
    }
}

impl From<IpNet> for Span {
    fn from(net: IpNet) -> Self {
        let v6 = net.network().is_ipv6();
        Self { v6, first: number(net.network()), last: number(net.broadcast()) }
    }
}

/// `10.0.0.1`, `10.0.0.0/8` or `10.0.0.1-10.0.0.3`: as nft spells them.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (address(self.first, self.v6), address(self.last, self.v6));
        if self.first == self.last {
            return write!(f, "{first}");
        }
        match self.prefix() {
            Some(net) => write!(f, "{net}"),
            None => write!(f, "{first}-{last}"),
        }
    }
}

/// Returns the fewest spans that cover the given ones, in ascending order.
pub(crate) fn merged(spans: impl IntoIterator<Item = Span>) -> Vec<Span> {
    let mut spans: Vec<_> = spans.into_iter().collect();
    spans.sort_unstable();
    let mut merged: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        match merged.last_mut() {
            Some(last) if last.v6 == span.v6 && span.first <= last.last.saturating_add(1) => {
                last.last = last.last.max(span.last);
            }
            _ => merged.push(span),
        }
    }
    merged
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(it) => u128::from(u32::from(it)),
        IpAddr::V6(it) => u128::from(it),
    }
}

fn address(number: u128, v6: bool) -> IpAddr {
    if v6 {
        return Ipv6Addr::from(number).into();
    }
    // An IPv4 span is made of 32-bit numbers only.
    Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn neighbours_become_one() {
        check("10.0.0.0/24, 10.0.1.0/24", "10.0.0.0/23");
        check("10.0.0.0/24, 10.0.1.0/24, 10.0.2.0/24", "10.0.0.0-10.0.2.255");
        check("10.1.2.3, 10.0.0.0/8", "10.0.0.0/8");
        check("10.0.0.1, 10.0.0.2, 10.0.0.4", "10.0.0.1-10.0.0.2, 10.0.0.4");
        check("0.0.0.0/1, 128.0.0.0/1", "0.0.0.0/0");
        check("::/1, 8000::/1", "::/0");
        check("fd00::1, 10.0.0.1", "10.0.0.1, fd00::1");
        check("0.0.0.0/0, ::/0", "0.0.0.0/0, ::/0");
    }

    #[test]
    fn families_do_not_mix() {
        let [v4, v6]: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        assert_eq!(Span::between(v4, v6), None);
        assert_eq!(Span::between(v6, v4), None);
    }

    proptest! {
        #[test]
        fn merging_keeps_every_address_and_adds_none(
            nets in prop::collection::vec((any::<u8>(), 24_u8..=32), 0..8), probe in any::<u8>()
        ) {
            let nets: Vec<_> = nets
                .into_iter()
                .filter_map(|(last, len)| IpNet::new([10, 0, 0, last].into(), len).ok())
                .collect();
            let probe = IpAddr::from([10, 0, 0, probe]);
            let spans = merged(nets.iter().map(|it| Span::from(*it)));
            let before = nets.iter().any(|it| it.contains(&probe));
            prop_assert_eq!(spans.iter().any(|it| it.contains(probe)), before);
            for span in spans {
                prop_assert_eq!(Span::parse(&span.to_string()), Some(span));
            }
        }
    }

    #[track_caller]
    fn check(from: &str, expected: &str) {
        let spans = from.split(", ").map(|it| Span::parse(it).expect("a span"));
        let texts: Vec<_> = merged(spans).iter().map(ToString::to_string).collect();
        assert_eq!(texts.join(", "), expected);
    }
}
