//! What a machine's network is like: addresses, routes, kernel settings, filters.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use super::Machine;
use crate::message::{Ask, Told};

/// How a machine treats packets whose source it would not answer over the same interface
/// (`rp_filter`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ReversePath {
    /// Takes them.
    Off,
    /// Drops them.
    Strict,
    /// Drops them only when it has no route to their source at all.
    Loose,
}

impl Machine {
    /// Lets the machine forward packets between its interfaces, IPv4 and IPv6.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the setting.
    pub fn forwarding(&self, on: bool) -> anyhow::Result<()> {
        let value = if on { "1" } else { "0" };
        self.sysctl("ipv4/ip_forward", value)?;
        let _no_ipv6 = self.sysctl("ipv6/conf/default/forwarding", value);
        let _no_ipv6 = self.sysctl("ipv6/conf/all/forwarding", value);
        Ok(())
    }

    /// Sets the reverse path filter of all interfaces, those that come later too.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the setting.
    pub fn reverse_path(&self, filter: ReversePath) -> anyhow::Result<()> {
        let value = match filter {
            ReversePath::Off => "0",
            ReversePath::Strict => "1",
            ReversePath::Loose => "2",
        };
        // The stricter of `all` and the interface's own counts.
        self.sysctl("ipv4/conf/default/rp_filter", value)?;
        self.sysctl("ipv4/conf/all/rp_filter", value)?;
        for interface in self.interfaces()? {
            self.sysctl(&format!("ipv4/conf/{interface}/rp_filter"), value)?;
        }
        Ok(())
    }

    /// Sets a kernel setting of the machine's network, written as a path below `/proc/sys/net`:
    /// `ipv4/ip_forward`. Settings outside of it belong to the whole host and cannot be reached.
    ///
    /// # Errors
    ///
    /// When there is no such setting or the kernel refuses the value.
    pub fn sysctl(&self, key: &str, value: &str) -> anyhow::Result<()> {
        let ask = Ask::Sysctl { key: key.to_owned(), value: value.to_owned() };
        self.agent().ask(ask).map(|_| ()).with_context(|| format!("on {}", self.name()))
    }

    /// Reads such a setting.
    ///
    /// # Errors
    ///
    /// When there is no such setting.
    pub fn read_sysctl(&self, key: &str) -> anyhow::Result<String> {
        match self.agent().ask(Ask::ReadSysctl { key: key.to_owned() })? {
            (_, Told::Text(value)) => Ok(value),
            (_, other) => bail!("the agent told {other:?}"),
        }
    }

    /// The names of the machine's interfaces, without the loopback interface.
    ///
    /// # Errors
    ///
    /// When `ip` fails.
    pub fn interfaces(&self) -> anyhow::Result<Vec<String>> {
        let links: Vec<serde_json::Value> =
            serde_json::from_str(&self.run("ip", &["-json", "link", "show"])?)?;
        let names = links.iter().filter_map(|it| it.get("ifname")?.as_str());
        Ok(names.filter(|it| *it != "lo").map(str::to_owned).collect())
    }

    /// Adds a route, or replaces the one there is: `route("default", "10.0.0.1")`,
    /// `route("fd00:2::/64", "fd00:1::1")`.
    ///
    /// # Errors
    ///
    /// When `via` is not an address, and what `ip` said.
    pub fn route(&self, to: &str, via: &str) -> anyhow::Result<()> {
        let family = family(via)?;
        self.run("ip", &[family, "route", "replace", to, "via", via]).map(|_| ())
    }

    /// Adds an address with prefix length to an interface.
    ///
    /// # Errors
    ///
    /// What `ip` said.
    pub fn add_address(&self, interface: &str, address: &str) -> anyhow::Result<()> {
        self.ip_batch(&address_line("add", interface, address))
    }

    /// Removes an address from an interface.
    ///
    /// # Errors
    ///
    /// What `ip` said.
    pub fn remove_address(&self, interface: &str, address: &str) -> anyhow::Result<()> {
        self.run("ip", &["address", "del", address, "dev", interface]).map(|_| ())
    }

    /// Switches an interface on or off. Off is like a pulled cable for the other end too. The
    /// kernel forgets the IPv6 addresses of an interface that is switched off.
    ///
    /// # Errors
    ///
    /// What `ip` said.
    pub fn set_up(&self, interface: &str, up: bool) -> anyhow::Result<()> {
        let state = if up { "up" } else { "down" };
        self.run("ip", &["link", "set", interface, state]).map(|_| ())
    }

    /// Adds a bridge with these addresses over these interfaces of the machine, which must have
    /// been linked to something before.
    ///
    /// # Errors
    ///
    /// What `ip` said.
    pub fn bridge(
        &self,
        bridge: &str,
        addresses: &[&str],
        interfaces: &[&str],
    ) -> anyhow::Result<()> {
        let mut lines = format!("link add {bridge} type bridge\n");
        for interface in interfaces {
            lines += &format!("link set {interface} master {bridge} up\n");
        }
        self.ip_batch(&(lines + &up_with_addresses(bridge, addresses)))?;
        if interfaces.is_empty() { Ok(()) } else { self.wait_for_carrier(bridge) }
    }

    /// Loads an nft script, as one transaction.
    ///
    /// # Errors
    ///
    /// What `nft` said.
    pub fn nft(&self, script: &str) -> anyhow::Result<()> {
        self.run_with_input("nft", &["-f", "-"], script).map(|_| ())
    }

    /// Drops every packet from or to `address` in silence, as a dead wire would, until the
    /// returned value is dropped. Needs `nft`.
    ///
    /// # Errors
    ///
    /// What `nft` said.
    pub fn black_hole(&self, address: IpAddr) -> anyhow::Result<BlackHole> {
        let family = if address.is_ipv4() { "ip" } else { "ip6" };
        let hole = BlackHole {
            machine: self.clone(),
            table: format!("black-hole-{:08x}", rand::random::<u32>()),
        };
        // Before connection tracking and every other table.
        self.nft(&format!(
            "table inet {table} {{\n\
             chain input {{ type filter hook prerouting priority -500; {family} saddr {address} drop; }}\n\
             chain output {{ type filter hook postrouting priority 500; {family} daddr {address} drop; }}\n\
             }}\n",
            table = hole.table,
        ))?;
        Ok(hole)
    }

    /// Waits until the kernel has taken note of the carrier of an interface, which it does some
    /// time after it was switched on, and without which packets and bridge ports go nowhere.
    pub(super) fn wait_for_carrier(&self, interface: &str) -> anyhow::Result<()> {
        let interface = interface.to_owned();
        let deadline = Duration::from_secs(20);
        let waited = self.agent().ask(Ask::WaitForCarrier { interface, deadline });
        waited.map(|_| ()).with_context(|| format!("on {}", self.name()))
    }

    pub(super) fn ip_batch(&self, lines: &str) -> anyhow::Result<()> {
        self.run_with_input("ip", &["-batch", "-"], lines).map(|_| ())
    }
}

/// Packets that vanish, until this is dropped. See [`Machine::black_hole`].
#[derive(Debug)]
pub struct BlackHole {
    machine: Machine,
    table: String,
}

impl Drop for BlackHole {
    fn drop(&mut self) {
        // When the machine is gone, so is the table.
        let _gone = self.machine.run("nft", &["delete", "table", "inet", &self.table]);
    }
}

/// A line for `ip -batch` that makes a cable from an interface of the machine where it runs to
/// one of `other`.
///
/// All interfaces get different index numbers. The kernel tells a veth from an ordinary device by
/// its peer having another number; if both have the same, as the first interfaces of two new
/// machines would, it lets up to a second pass before it takes notice of the carrier (rate limit
/// of `linkwatch`), and all packets of that second are lost.
pub(super) fn veth(interface: &str, other_interface: &str, other: &Machine) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1000);
    let index = NEXT.fetch_add(2, Ordering::Relaxed);
    format!(
        "link add {interface} index {index} type veth peer name {other_interface} index {} netns {}\n",
        index + 1,
        other.pid()
    )
}

/// Lines for `ip -batch` that add addresses to an interface and switch it on.
pub(super) fn up_with_addresses(interface: &str, addresses: &[&str]) -> String {
    let addresses: String = addresses.iter().map(|it| address_line("add", interface, it)).collect();
    format!("{addresses}link set {interface} up\n")
}

fn address_line(verb: &str, interface: &str, address: &str) -> String {
    // Duplicate address detection would keep the address unusable for a second.
    let nodad = if address.contains(':') { " nodad" } else { "" };
    format!("address {verb} {address} dev {interface}{nodad}\n")
}

fn family(address: &str) -> anyhow::Result<&'static str> {
    let parsed = address.parse::<IpAddr>();
    ensure!(parsed.is_ok(), "`{address}` is not an address");
    Ok(if address.contains(':') { "-6" } else { "-4" })
}
