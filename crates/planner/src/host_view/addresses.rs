//! The listing of `ip -j addr show` (iproute2 4.17 or newer).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::interface::InterfaceName;
use ipnet::IpNet;
use serde::Deserialize;

/// Why a listing of addresses cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AddressListingError {
    /// It is not the JSON that `ip -j addr show` prints.
    #[error("the list of addresses is not the JSON of `ip -j addr show`")]
    Shape(#[source] serde_json::Error),
    /// An address in it makes no sense.
    #[error("interface {interface} has `{}/{length}`, which is not an address", excerpt(address))]
    Address {
        /// The interface it was found on.
        interface: String,
        /// The text that should have been an address.
        address: String,
        /// The prefix length beside it.
        length: u8,
    },
}

#[derive(Deserialize)]
struct Link {
    ifname: Option<String>,
    #[serde(default)]
    addr_info: Vec<Entry>,
}

/// One address. iproute2 writes a flag as `true` or leaves it out, and writes `{}` for an entry
/// that a filter hid.
#[derive(Deserialize)]
struct Entry {
    local: Option<String>,
    #[serde(default)]
    prefixlen: u8,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    tentative: bool,
    #[serde(default)]
    dadfailed: bool,
    #[serde(default)]
    optimistic: bool,
    #[serde(default)]
    deprecated: bool,
    #[serde(default)]
    temporary: bool,
}

/// What a host printed, as a message may repeat it: short and on one line.
fn excerpt(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_debug).collect()
}

type Addresses = (BTreeMap<InterfaceName, Vec<IpNet>>, BTreeSet<IpAddr>);

/// Returns the addresses of each interface, and which of them are about to go.
pub(super) fn read(listing: &str) -> Result<Addresses, AddressListingError> {
    let links: Vec<Link> = serde_json::from_str(listing).map_err(AddressListingError::Shape)?;
    let mut addresses = BTreeMap::new();
    let mut passing = BTreeSet::new();
    for link in links {
        // A name that no Host object can hold is of no interest.
        let Some(name) = link.ifname.and_then(|it| it.parse::<InterfaceName>().ok()) else {
            continue;
        };
        let nets: &mut Vec<IpNet> = addresses.entry(name.clone()).or_default();
        for entry in link.addr_info {
            let Some(net) = usable(&name, &entry)? else { continue };
            if entry.deprecated || entry.temporary {
                passing.insert(net.addr());
            }
            nets.push(net);
        }
        nets.sort_unstable();
        nets.dedup();
    }
    Ok((addresses, passing))
}

fn usable(interface: &InterfaceName, entry: &Entry) -> Result<Option<IpNet>, AddressListingError> {
    let Some(local) = &entry.local else { return Ok(None) };
    let unusable = || AddressListingError::Address {
        interface: interface.to_string(),
        address: local.clone(),
        length: entry.prefixlen,
    };
    let address: IpAddr = local.parse().map_err(|_| unusable())?;
    let net = IpNet::new(address, entry.prefixlen).map_err(|_| unusable())?;
    let link_local = match address {
        IpAddr::V4(it) => it.is_link_local(),
        IpAddr::V6(it) => it.is_unicast_link_local(),
    };
    let unreachable = link_local
        || address.is_loopback()
        || address.is_unspecified()
        || address.is_multicast()
        || matches!(entry.scope.as_str(), "link" | "host");
    // An optimistic address is tentative and in use all the same (RFC 4429).
    let undecided = entry.dadfailed || (entry.tentative && !entry.optimistic);
    Ok((!unreachable && !undecided).then_some(net))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keeps_what_the_host_answers_on_and_drops_the_rest() {
        check("10.0.0.1", 24, r#""scope":"global""#, Some("10.0.0.1/24"));
        check("2001:db8::1", 64, r#""scope":"global""#, Some("2001:db8::1/64"));
        check("fd00::1", 64, r#""scope":"site""#, Some("fd00::1/64"));
        check("127.0.0.1", 8, r#""scope":"host""#, None);
        check("127.0.0.2", 8, r#""scope":"global""#, None);
        check("::1", 128, r#""scope":"host""#, None);
        check("169.254.3.4", 16, r#""scope":"link""#, None);
        check("169.254.3.4", 16, r#""scope":"global""#, None);
        check("fe80::1", 64, r#""scope":"link""#, None);
        check("2001:db8::2", 64, r#""scope":"global","tentative":true"#, None);
        check("2001:db8::2", 64, r#""scope":"global","tentative":true,"dadfailed":true"#, None);
        check(
            "2001:db8::2",
            64,
            r#""scope":"global","tentative":true,"optimistic":true"#,
            Some("2001:db8::2/64"),
        );
        check("2001:db8::3", 64, r#""scope":"global","deprecated":true"#, Some("2001:db8::3/64"));
    }

    #[track_caller]
    fn check(local: &str, length: u8, flags: &str, expected: Option<&str>) {
        let listing = format!(
            r#"[{{"ifindex":2,"ifname":"eth0","flags":["UP"],"addr_info":[{{}},
                {{"family":"inet","local":"{local}","prefixlen":{length},{flags}}}]}}]"#
        );
        let (addresses, _) = read(&listing).expect("a plain listing");
        let found: Vec<_> = addresses.values().flatten().map(ToString::to_string).collect();
        assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn an_address_that_is_about_to_go_is_marked() {
        let listing = r#"[{"ifname":"eth0","addr_info":[
            {"local":"2001:db8::1","prefixlen":64,"scope":"global"},
            {"local":"2001:db8::2","prefixlen":64,"scope":"global","deprecated":true},
            {"local":"2001:db8::3","prefixlen":64,"scope":"global","temporary":true}]}]"#;
        let (_, passing) = read(listing).expect("a plain listing");
        let passing: Vec<_> = passing.iter().map(ToString::to_string).collect();
        assert_eq!(passing, ["2001:db8::2", "2001:db8::3"]);
    }

    #[test]
    fn an_interface_without_addresses_is_known_all_the_same() {
        let (addresses, _) = read(r#"[{"ifname":"wg0","addr_info":[]}]"#).expect("plain");
        assert_eq!(addresses.values().map(Vec::len).collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn a_listing_that_makes_no_sense_is_refused_as_a_whole() {
        for listing in ["", "{}", "[", "[1]", r#"[{"addr_info":7}]"#] {
            assert!(matches!(read(listing), Err(AddressListingError::Shape(_))), "{listing}");
        }
        for (local, length) in [("x", 8), ("10.0.0.1", 33), ("$(reboot)", 1)] {
            let listing = format!(
                r#"[{{"ifname":"eth0","addr_info":[{{"local":"{local}","prefixlen":{length}}}]}}]"#
            );
            let error = read(&listing).expect_err(local).to_string();
            assert_eq!(
                error,
                format!("interface eth0 has `{local}/{length}`, which is not an address")
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(listing in "\\PC*") {
            let _ = read(&listing);
        }

        #[test]
        fn no_field_makes_the_reader_panic(
            name in "\\PC{0,20}", local in "\\PC{0,20}", length: u8, scope in "\\PC{0,8}",
        ) {
            let listing = serde_json::json!([{ "ifname": name, "addr_info": [
                { "local": local, "prefixlen": length, "scope": scope }
            ]}]);
            let _ = read(&listing.to_string());
        }
    }
}
