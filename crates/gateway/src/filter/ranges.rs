//! Address ranges: which addresses they hold, and which of them say nothing new.

use std::net::IpAddr;

use tunnel_proto::message::Range;

/// Whether the address is in the range. An IPv4 address is in no range of IPv6 addresses.
pub(crate) fn contains(range: &Range, address: IpAddr) -> bool {
    match (range.address, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let shift = 32_u32.saturating_sub(range.prefix.into());
            network.to_bits().checked_shr(shift) == address.to_bits().checked_shr(shift)
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let shift = 128_u32.saturating_sub(range.prefix.into());
            network.to_bits().checked_shr(shift) == address.to_bits().checked_shr(shift)
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

/// The ranges of one family, ordered, with no bits after the prefix and none inside another: the
/// kernel takes no overlapping ranges. `None` when they hold every address of the family.
pub(crate) fn simplified(ranges: &[Range], v6: bool) -> Option<Vec<Range>> {
    let of_family = ranges.iter().filter(|it| it.address.is_ipv6() == v6);
    let mut sorted: Vec<Range> = of_family.map(network).collect();
    sorted.sort_by_key(|it| (it.prefix, it.address));
    let mut kept: Vec<Range> = Vec::new();
    for range in sorted {
        if range.prefix == 0 {
            return None;
        }
        if !kept.iter().any(|it| contains(it, range.address)) {
            kept.push(range);
        }
    }
    kept.sort_unstable();
    Some(kept)
}

fn network(range: &Range) -> Range {
    match range.address {
        IpAddr::V4(address) => {
            let prefix = range.prefix.min(32);
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            Range { address: IpAddr::V4((address.to_bits() & mask).into()), prefix }
        }
        IpAddr::V6(address) => {
            let prefix = range.prefix.min(128);
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            Range { address: IpAddr::V6((address.to_bits() & mask).into()), prefix }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_its_network() {
        check("10.0.0.0", 8, "10.255.0.1", true);
        check("10.0.0.0", 8, "11.0.0.1", false);
        check("0.0.0.0", 0, "203.0.113.1", true);
        check("192.0.2.1", 32, "192.0.2.1", true);
        check("192.0.2.1", 32, "192.0.2.2", false);
        check("2001:db8::", 32, "2001:db8:1::1", true);
        check("::", 0, "2001:db8::1", true);
        check("::", 0, "192.0.2.1", false);
        check("0.0.0.0", 0, "2001:db8::1", false);
    }

    #[test]
    fn ranges_inside_others_say_nothing_new() {
        let ranges = ["10.1.0.0/16", "10.0.0.1/8", "192.0.2.1/32", "2001:db8::/32"].map(range);
        let kept = simplified(&ranges, false).expect("not everything");
        assert_eq!(kept, ["10.0.0.0/8", "192.0.2.1/32"].map(range));
        assert_eq!(simplified(&["0.0.0.0/0"].map(range), false), None);
        assert_eq!(simplified(&[], true), Some(Vec::new()));
    }

    #[track_caller]
    fn check(network: &str, prefix: u8, address: &str, expected: bool) {
        let range = Range { address: network.parse().expect("an address"), prefix };
        assert_eq!(contains(&range, address.parse().expect("an address")), expected);
    }

    fn range(text: &str) -> Range {
        let (address, prefix) = text.split_once('/').expect("a range");
        Range {
            address: address.parse().expect("an address"),
            prefix: prefix.parse().expect("a prefix length"),
        }
    }
}
