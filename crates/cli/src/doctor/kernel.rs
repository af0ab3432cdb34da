//! What the kernel of this machine is set to, as `/proc` tells.

use std::fs;

use super::Check;

const AREA: &str = "this machine";
const PERSIST: &str = "put it into /etc/sysctl.d/90-portcullis.conf so that it survives a reboot";

/// Looks at forwarding, reverse path filters and old iptables tables.
pub(super) fn look() -> Vec<Check> {
    let mut checks = vec![
        forwarding("IPv4 forwarding", "net.ipv4.ip_forward", true),
        forwarding("IPv6 forwarding", "net.ipv6.conf.all.forwarding", false),
        reverse_path(),
    ];
    checks.extend(legacy_tables());
    checks
}

fn read(key: &str) -> Option<String> {
    // A dot in a key is a slash in the path; interface names with dots are not asked for here.
    let path = format!("/proc/sys/{}", key.replace('.', "/"));
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

fn forwarding(name: &'static str, key: &str, needed: bool) -> Check {
    let remedy = format!("sysctl -w {key}=1; {PERSIST}");
    match read(key).as_deref() {
        Some("1") => Check::ok(AREA, name, format!("{key} is 1")),
        Some(value) if needed => Check::failure(
            AREA,
            name,
            format!("{key} is {value}: the kernel forwards no packet, so no host port works"),
            remedy,
        ),
        Some(value) => Check::warning(
            AREA,
            name,
            format!("{key} is {value}: host ports do not work over this family"),
            remedy,
        ),
        None => Check::warning(
            AREA,
            name,
            format!("{key} does not exist: the kernel does not have this family"),
            "nothing to do unless you need it",
        ),
    }
}

/// A strict filter drops answers of nodes that come in through another interface than the one
/// that leads back to the client.
fn reverse_path() -> Check {
    const NAME: &str = "reverse path filter";
    let mut strict: Vec<String> = fs::read_dir("/proc/sys/net/ipv4/conf")
        .into_iter()
        .flatten()
        .filter_map(|it| it.ok()?.file_name().into_string().ok())
        .filter(|it| {
            let path = format!("/proc/sys/net/ipv4/conf/{it}/rp_filter");
            fs::read_to_string(path).is_ok_and(|it| it.trim() == "1")
        })
        .collect();
    strict.sort();
    if strict.is_empty() {
        return Check::ok(AREA, NAME, "no interface has a strict one");
    }
    Check::warning(
        AREA,
        NAME,
        format!("strict (1) on {}", strict.join(", ")),
        format!(
            "fine while every node answers through the interface that leads to it; otherwise set \
             net.ipv4.conf.INTERFACE.rp_filter=2; {PERSIST}"
        ),
    )
}

/// The old tables live beside nftables, and `nft` does not show them.
fn legacy_tables() -> Option<Check> {
    const NAME: &str = "old iptables tables";
    let tables: Vec<String> = ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"]
        .iter()
        .filter_map(|it| fs::read_to_string(it).ok())
        .flat_map(|it| it.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    if tables.is_empty() {
        return None;
    }
    Some(Check::warning(
        AREA,
        NAME,
        format!("the legacy iptables tables {} are in use", tables.join(", ")),
        "their rules count beside nftables but `nft` does not show them; look with \
         `iptables-legacy-save`, and move them with `iptables-legacy-save | iptables-nft-restore`",
    ))
}
