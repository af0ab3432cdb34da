//! The machine's own addresses.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

/// Every address of the machine that others can have packets for, ordered: those of interfaces that
/// are up, without loopback and link-local ones. Empty when the system does not tell.
pub(crate) fn global() -> Vec<IpAddr> {
    let Ok(addresses) = getifaddrs() else { return Vec::new() };
    let up = addresses.filter(|it| {
        it.flags.contains(InterfaceFlags::IFF_UP)
            && !it.flags.contains(InterfaceFlags::IFF_LOOPBACK)
    });
    let found: BTreeSet<IpAddr> = up
        .filter_map(|it| {
            let storage = it.address?;
            let v4 = storage.as_sockaddr_in().map(|it| IpAddr::V4(it.ip()));
            v4.or_else(|| storage.as_sockaddr_in6().map(|it| IpAddr::V6(it.ip())))
        })
        .filter(is_global)
        .collect();
    found.into_iter().collect()
}

fn is_global(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(it) => !it.is_loopback() && !it.is_link_local() && !it.is_unspecified(),
        IpAddr::V6(it) => {
            !it.is_loopback() && !it.is_unicast_link_local() && *it != Ipv6Addr::UNSPECIFIED
        }
    }
}
