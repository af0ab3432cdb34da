//! Epok's extra internal addresses: a list for the `-d` match of iptables, with optional lengths.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::ending::{Result, refused};

/// The most addresses that a Host object holds.
const MOST: u128 = 64;

/// Returns every address of the list; a short range becomes its addresses, as iptables matched
/// each of them.
///
/// # Errors
///
/// Refuses what is no address or range, and ranges of more than 64 addresses.
pub(crate) fn expand(text: &str) -> Result<BTreeSet<IpAddr>> {
    let mut addresses = BTreeSet::new();
    for part in text.split(',').map(str::trim).filter(|it| !it.is_empty()) {
        let range = range(part).ok_or_else(|| {
            complaint(part, "not an address or range", "write for example 10.8.0.1 or 10.8.0.1/32")
        })?;
        let (first, count) = range;
        if count > MOST {
            return Err(complaint(
                part,
                &format!("a range of more than {MOST} addresses"),
                "name the addresses that the host really has; a longer range would also catch \
                 traffic that only passes through",
            ));
        }
        addresses.extend((0..count).map(|offset| match first {
            IpAddr::V4(it) => IpAddr::V4(Ipv4Addr::from_bits(
                it.to_bits().wrapping_add(u32::try_from(offset).unwrap_or_default()),
            )),
            IpAddr::V6(it) => IpAddr::V6(Ipv6Addr::from_bits(it.to_bits().wrapping_add(offset))),
        }));
    }
    Ok(addresses)
}

/// The first address of a range, and how many it has.
fn range(text: &str) -> Option<(IpAddr, u128)> {
    let (address, length) = text.split_once('/').map_or((text, None), |(it, len)| (it, Some(len)));
    let address: IpAddr = address.parse().ok()?;
    let bits: u32 = if address.is_ipv4() { 32 } else { 128 };
    let length: u32 = match length {
        Some(length) => length.parse().ok().filter(|it| *it <= bits)?,
        None => bits,
    };
    let count = 1_u128.checked_shl(bits - length).unwrap_or(u128::MAX);
    let first = match address {
        IpAddr::V4(it) => {
            let mask = u32::MAX.checked_shl(bits - length).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(it.to_bits() & mask))
        }
        IpAddr::V6(it) => {
            let mask = u128::MAX.checked_shl(bits - length).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(it.to_bits() & mask))
        }
    };
    Some((first, count))
}

fn complaint(value: &str, problem: &str, remedy: &str) -> anyhow::Error {
    let flag = "--extra-internal-ips (EPOK_EXTRA_INTERNAL_IPS)";
    refused(format!("{flag}: {value:?}: {problem}; {remedy}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_range_becomes_its_addresses() {
        check("10.8.0.1", Ok("10.8.0.1"));
        check(" 10.8.0.1/32, 2001:db8::1/128 ", Ok("10.8.0.1 2001:db8::1"));
        check(
            "10.8.0.2/31,10.8.0.9/30",
            Ok("10.8.0.2 10.8.0.3 10.8.0.8 10.8.0.9 10.8.0.10 10.8.0.11"),
        );
        check("255.255.255.255/32", Ok("255.255.255.255"));
        check("", Ok(""));
    }

    #[test]
    fn what_is_no_address_is_refused_by_name() {
        check("10.8.0.0/24", Err("\"10.8.0.0/24\": a range of more than 64 addresses"));
        check("0.0.0.0/0", Err("\"0.0.0.0/0\": a range of more than 64 addresses"));
        check("::/0", Err("\"::/0\": a range of more than 64 addresses"));
        check("10.8.0.1/33", Err("\"10.8.0.1/33\": not an address or range"));
        check("10.8.0.1 -j ACCEPT", Err("\"10.8.0.1 -j ACCEPT\": not an address or range"));
    }

    #[track_caller]
    fn check(text: &str, expected: std::result::Result<&str, &str>) {
        match (expand(text), expected) {
            (Ok(found), Ok(expected)) => {
                let found = found.iter().map(ToString::to_string).collect::<Vec<_>>();
                assert_eq!(found.join(" "), expected);
            }
            (Err(error), Err(expected)) => {
                assert!(error.to_string().contains(expected), "{error}");
            }
            (found, expected) => panic!("{found:?} instead of {expected:?}"),
        }
    }
}
