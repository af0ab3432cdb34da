//! The wire between the nodes: a bridge in a network namespace of its own.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;

use super::daemon::run;
use super::namespace::Holder;
use crate::Machine;

const BRIDGE: &str = "underlay";

/// Which address is whose. The same in every cluster: clusters do not see each other.
///
/// | range | whose |
/// | --- | --- |
/// | `10.200.0.0/24`, `fd00:200::/64` | the underlay |
/// | `10.200.0.1`, `fd00:200::1` | the bridge, where the API server listens on port 6443 |
/// | `10.200.0.11`, `fd00:200::11` | the first node, and so on |
/// | `10.200.0.100` to `.199` | free for whatever is attached |
/// | `10.200.0.254`, `fd00:200::254` | the nodes' default gateway; nobody, until a host is attached with it |
/// | `10.201.N.0/24`, `fd00:201:0:N::/64` | pods of node N |
/// | `10.202.0.0/16`, `fd00:202::/108` | Services |
#[derive(Clone, Copy, Debug)]
pub struct AddressPlan;

impl AddressPlan {
    /// The bridge, and the API server.
    pub const BRIDGE: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 1);
    /// The same in IPv6.
    pub const BRIDGE6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x200, 0, 0, 0, 0, 0, 1);
    /// Where nodes send what they have no route for. Attach a host with this address to be between
    /// the nodes and the world, as a hypervisor is for its machines.
    pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 254);
    /// The same in IPv6.
    pub const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x200, 0, 0, 0, 0, 0, 0x254);
    /// The length of the underlay's IPv4 prefix.
    pub const PREFIX: u8 = 24;
    /// The length of the underlay's IPv6 prefix.
    pub const PREFIX6: u8 = 64;

    /// The address of node `number`, from 1.
    #[must_use]
    pub fn node(number: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 200, 0, 10 + number)
    }

    /// The IPv6 address of node `number`, from 1: `fd00:200::11` is the first.
    #[must_use]
    pub fn node6(number: u8) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x200, 0, 0, 0, 0, 0, 0x10 + u16::from(number))
    }

    /// The pods of node `number`, from 1.
    #[must_use]
    pub fn pods(number: u8) -> String {
        format!("10.201.{number}.0/24")
    }

    /// The same in IPv6.
    #[must_use]
    pub fn pods6(number: u8) -> String {
        format!("fd00:201:0:{number:x}::/64")
    }
}

/// The wire between the nodes, to which tests attach machines of their own.
#[derive(Clone, Debug)]
pub struct Underlay {
    holder: Arc<Holder>,
}

impl Underlay {
    pub(super) fn new(log: PathBuf) -> anyhow::Result<Self> {
        let holder = Holder::network("underlay", log)?;
        holder.run("ip", &["link", "add", BRIDGE, "type", "bridge"])?;
        let address = format!("{}/{}", AddressPlan::BRIDGE, AddressPlan::PREFIX);
        let address6 = format!("{}/{}", AddressPlan::BRIDGE6, AddressPlan::PREFIX6);
        holder.run("ip", &["address", "add", &address, "dev", BRIDGE])?;
        holder.run("ip", &["address", "add", &address6, "dev", BRIDGE, "nodad"])?;
        holder.run("ip", &["link", "set", BRIDGE, "up"])?;
        Ok(Self { holder: Arc::new(holder) })
    }

    /// Lets the bridge know the ways to pods: they ask the API server, which answers from there.
    pub(super) fn route_pods(&self, nodes: u8) -> anyhow::Result<()> {
        for number in 1..=nodes {
            let (node, node6) = (AddressPlan::node(number), AddressPlan::node6(number));
            let ways = [
                (AddressPlan::pods(number), node.to_string()),
                (AddressPlan::pods6(number), node6.to_string()),
            ];
            for (pods, node) in ways {
                self.holder.run("ip", &["route", "add", &pods, "via", &node])?;
            }
        }
        Ok(())
    }

    /// The namespace with the bridge, in which the control plane runs too.
    #[must_use]
    pub fn holder(&self) -> &Arc<Holder> {
        &self.holder
    }

    /// Plugs a lab machine into the wire: `interface` appears in it, is up, and has `addresses`
    /// (each with its prefix length).
    ///
    /// # Errors
    ///
    /// Fails when the machine has such an interface already, or lives in a user namespace.
    pub fn attach(
        &self,
        machine: &Machine,
        interface: &str,
        addresses: &[&str],
    ) -> anyhow::Result<()> {
        self.plug(machine.pid(), interface)?;
        for address in addresses {
            machine.add_address(interface, address)?;
        }
        machine.set_up(interface, true)
    }

    /// Makes the cable: one end in the network namespace of a process, the other in the bridge.
    pub(super) fn plug(&self, pid: u32, interface: &str) -> anyhow::Result<()> {
        // Unique on this bridge, and short enough for an interface name.
        let port = format!("p{pid}");
        let (here, there) = (self.holder.pid().to_string(), pid.to_string());
        let mut link = std::process::Command::new("ip");
        link.args([
            "link", "add", &port, "netns", &here, "type", "veth", "peer", "name", interface,
            "netns", &there,
        ]);
        run(&mut link)?;
        self.holder.run("ip", &["link", "set", &port, "master", BRIDGE, "up"])?;
        Ok(())
    }
}
