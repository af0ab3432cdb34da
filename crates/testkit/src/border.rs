//! The usual place of action: a host with two nodes behind it, a client outside, one on the VPN.
//!
//! ```text
//! outside 198.51.100.9 ─── eth0 198.51.100.1 ┐          ┌ 10.77.0.11 n1
//!                                            host ─ nodes0 10.77.0.1
//! vpn     10.8.0.2     ─── wg0  10.8.0.1     ┘          └ 10.77.0.12 n2
//! ```
//!
//! Every address has an IPv6 twin. The host routes; nodes and clients have their default route
//! through it. Only topology is here: who forwards what is the business of what runs on the host.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use anyhow::Context as _;

use crate::probe::EchoServer;
use crate::{Lab, Machine, Protocol};

/// The host's address on `eth0`, towards the outside.
pub const HOST: &str = "198.51.100.1";
/// The same in IPv6.
pub const HOST6: &str = "2001:db8::1";
/// The host's address on `wg0`, towards the VPN.
pub const HOST_ON_VPN: &str = "10.8.0.1";
/// The client outside.
pub const OUTSIDE: &str = "198.51.100.9";
/// The client on the VPN.
pub const VPN: &str = "10.8.0.2";
/// The nodes, behind `nodes0`.
pub const NODES: [&str; 2] = ["10.77.0.11", "10.77.0.12"];
/// The same in IPv6.
pub const NODES6: [&str; 2] = ["fd77::11", "fd77::12"];

/// The host between two clients and whatever lies behind it. Interfaces `eth0` and `wg0`.
#[derive(Clone, Debug)]
pub struct Edge {
    /// Stands between the clients and what is behind it, and routes.
    pub host: Machine,
    /// A client that reaches the host through `eth0`.
    pub outside: Machine,
    /// A client that reaches the host through `wg0`.
    pub vpn: Machine,
}

impl Edge {
    /// Builds the machines `edge`, `outside` and `vpn`.
    ///
    /// # Errors
    ///
    /// When a machine or a wire cannot be made.
    pub fn build(lab: &Lab) -> anyhow::Result<Self> {
        let host = lab.machine("edge")?;
        let outside = lab.machine("outside")?;
        let vpn = lab.machine("vpn")?;
        lab.link(
            &outside,
            "eth0",
            &["198.51.100.9/24", "2001:db8::9/64"],
            &host,
            "eth0",
            &["198.51.100.1/24", "2001:db8::1/64"],
        )?;
        lab.link(
            &vpn,
            "wg0",
            &["10.8.0.2/24", "fd08::2/64"],
            &host,
            "wg0",
            &["10.8.0.1/24", "fd08::1/64"],
        )?;
        for (client, gateways) in [(&outside, [HOST, HOST6]), (&vpn, [HOST_ON_VPN, "fd08::1"])] {
            gateways.iter().try_for_each(|it| client.route("default", it))?;
        }
        host.forwarding(true)?;
        Ok(Self { host, outside, vpn })
    }
}

/// A host, two nodes, two clients.
pub struct Border {
    /// The lab that holds the machines.
    pub lab: Lab,
    /// Stands between all others; interfaces `eth0`, `wg0` and `nodes0`.
    pub host: Machine,
    /// A client that reaches the host through `eth0`.
    pub outside: Machine,
    /// A client that reaches the host through `wg0`.
    pub vpn: Machine,
    /// `n1` and `n2`.
    pub nodes: [Machine; 2],
}

impl Border {
    /// Builds the machines in an empty lab.
    ///
    /// # Errors
    ///
    /// When a machine or a wire cannot be made.
    pub fn build(lab: Lab) -> anyhow::Result<Self> {
        let Edge { host, outside, vpn } = Edge::build(&lab)?;
        let switch = lab.network("nodes")?;
        switch.plug(&host, "nodes0", &["10.77.0.1/24", "fd77::1/64"])?;
        let node = |number: usize| -> anyhow::Result<Machine> {
            let node = lab.machine(&format!("n{number}"))?;
            let v4 = format!("{}/24", NODES[number - 1]);
            let v6 = format!("{}/64", NODES6[number - 1]);
            switch.plug(&node, "eth0", &[&v4, &v6])?;
            node.route("default", "10.77.0.1")?;
            node.route("default", "fd77::1")?;
            Ok(node)
        };
        let nodes = [node(1)?, node(2)?];
        Ok(Self { lab, host, outside, vpn, nodes })
    }

    /// Opens an echo server on node 1 or 2, on both families, that says `n1` or `n2`.
    ///
    /// # Errors
    ///
    /// When the port is taken.
    pub fn serve(&self, node: usize, port: u16, protocol: Protocol) -> anyhow::Result<EchoServer> {
        let node = self.nodes.get(node.wrapping_sub(1)).context("the nodes are 1 and 2")?;
        node.serve(node.name(), SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), protocol)
    }
}

/// An address of this module with a port.
///
/// # Panics
///
/// When `address` is no IP address, which is a mistake in the test.
#[must_use]
pub fn at(address: &str, port: u16) -> SocketAddr {
    let address: IpAddr = address.parse().expect("an address of the border");
    SocketAddr::new(address, port)
}
