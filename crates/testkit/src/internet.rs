//! The usual place of action for tunnels: visitors and gateways on the internet, and a home whose
//! router lets nobody in.
//!
//! ```text
//! visitor 198.51.100.9 ───┐                                          ┌ 10.77.0.21 …
//! g1      198.51.100.1 ───┼─── wan0 198.51.100.254 router lan0 10.77.0.1
//! g2      198.51.100.2 ───┘                                          └ 10.77.0.31 …
//! ```
//!
//! Every address has an IPv6 twin with the same last number. The router masquerades in both
//! families and drops every connection that begins on the internet. Only topology is here: what
//! runs on the machines is the business of tests.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::lab::Network;
use crate::{Lab, Machine};

/// The first visitor.
pub const VISITOR: u8 = 9;

/// An address on the internet by its last number.
#[must_use]
pub fn public(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, number)
}

/// The same in IPv6.
#[must_use]
pub fn public6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, decimal(number))
}

/// An address at home by its last number.
#[must_use]
pub fn private(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, number)
}

/// The same in IPv6.
#[must_use]
pub fn private6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, decimal(number))
}

/// The number whose hexadecimal digits are the decimal digits of `number`: `::21` is 21.
fn decimal(number: u8) -> u16 {
    let number = u16::from(number);
    number / 100 * 0x100 + number / 10 % 10 * 0x10 + number % 10
}

/// Visitors, gateways, a router, and what is behind it.
pub struct Internet {
    /// The lab that holds the machines.
    pub lab: Lab,
    /// The switch that is the internet.
    pub wan: Network,
    /// A machine on the internet, at [`VISITOR`].
    pub visitor: Machine,
    /// Between the internet (`wan0`) and home (`lan0`).
    pub router: Machine,
    /// The switch at home.
    pub lan: Network,
}

impl Internet {
    /// Builds the internet with one visitor, and a home with nobody in it, in an empty lab.
    ///
    /// # Errors
    ///
    /// When a machine or a wire cannot be made, or `nft` fails.
    pub fn build(lab: Lab) -> anyhow::Result<Self> {
        let wan = lab.network("wan")?;
        let lan = lab.network("lan")?;
        let router = lab.machine("router")?;
        plug(&wan, &router, "wan0", public(254).into(), public6(254).into())?;
        plug(&lan, &router, "lan0", private(1).into(), private6(1).into())?;
        masquerade(&router, "wan0")?;
        let visitor = lab.machine("visitor")?;
        plug(&wan, &visitor, "wan0", public(VISITOR).into(), public6(VISITOR).into())?;
        Ok(Self { lab, wan, visitor, router, lan })
    }

    /// Adds a machine to the internet, with interface `wan0`. Gateways are `g1` at 1 and so on.
    ///
    /// # Errors
    ///
    /// When the machine or its wire cannot be made.
    pub fn public(&self, name: &str, number: u8) -> anyhow::Result<Machine> {
        let machine = self.lab.machine(name)?;
        plug(&self.wan, &machine, "wan0", public(number).into(), public6(number).into())?;
        Ok(machine)
    }

    /// Adds a machine to the home, with interface `lan0` and the router as its way out.
    ///
    /// # Errors
    ///
    /// When the machine or its wire cannot be made.
    pub fn private(&self, name: &str, number: u8) -> anyhow::Result<Machine> {
        let machine = self.lab.machine(name)?;
        plug(&self.lan, &machine, "lan0", private(number).into(), private6(number).into())?;
        machine.route("default", &private(1).to_string())?;
        machine.route("default", &private6(1).to_string())?;
        Ok(machine)
    }

    /// Lets the router drop packets in silence until the returned value is dropped: those between
    /// these two numbers, in this direction. Connections are not told; nothing is closed.
    ///
    /// # Errors
    ///
    /// What `nft` said.
    pub fn silence(&self, home: u8, internet: u8, direction: Direction) -> anyhow::Result<Silence> {
        let table = format!("silence_{:08x}", rand::random::<u32>());
        let out = [
            format!("ip saddr {} ip daddr {} drop;", private(home), public(internet)),
            format!("ip6 saddr {} ip6 daddr {} drop;", private6(home), public6(internet)),
        ];
        let back = [
            format!("ip saddr {} ip daddr {} drop;", public(internet), private(home)),
            format!("ip6 saddr {} ip6 daddr {} drop;", public6(internet), private6(home)),
        ];
        let rules: Vec<_> = match direction {
            Direction::Out => out.to_vec(),
            Direction::Back => back.to_vec(),
            Direction::Both => [out, back].concat(),
        };
        // In the middle of the router, where the addresses are those of the machines themselves.
        self.router.nft(&format!(
            "table inet {table} {{ chain middle {{ type filter hook forward priority -10; {} }}\n}}\n",
            rules.join(" ")
        ))?;
        Ok(Silence { router: self.router.clone(), table })
    }
}

impl std::fmt::Debug for Internet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Internet").field("lab", &self.lab).finish_non_exhaustive()
    }
}

/// Makes a machine with this interface to the internet the router of all its other networks: it
/// forwards, masquerades, and drops what begins on the internet.
///
/// # Errors
///
/// What `nft` said.
pub fn masquerade(router: &Machine, wan: &str) -> anyhow::Result<()> {
    router.forwarding(true)?;
    router.nft(&format!(
        "table inet home {{\n\
         chain out {{ type nat hook postrouting priority srcnat; oifname \"{wan}\" masquerade; }}\n\
         chain in {{ type filter hook forward priority filter;\n\
         iifname \"{wan}\" ct state new drop; }}\n\
         }}\n"
    ))
}

fn plug(
    network: &Network,
    machine: &Machine,
    interface: &str,
    address: IpAddr,
    address6: IpAddr,
) -> anyhow::Result<()> {
    network.plug(machine, interface, &[&format!("{address}/24"), &format!("{address6}/64")])
}

/// Which packets vanish.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Direction {
    /// Those from home to the internet.
    Out,
    /// Those from the internet to home.
    Back,
    /// All.
    Both,
}

/// Packets that vanish, until this is dropped. See [`Internet::silence`].
#[derive(Debug)]
pub struct Silence {
    router: Machine,
    table: String,
}

impl Drop for Silence {
    fn drop(&mut self) {
        // When the machine is gone, so is the table.
        let _gone = self.router.run("nft", &["delete", "table", "inet", &self.table]);
    }
}
