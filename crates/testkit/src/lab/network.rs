//! A switch.

use std::sync::atomic::{AtomicU32, Ordering};

use super::{Machine, Shared, settings};

/// A switch that machines are plugged into: one broadcast domain, no filter, no addresses.
#[derive(Clone, Debug)]
pub struct Network {
    bridge: String,
    wiring: Machine,
    ports: Shared<AtomicU32>,
}

impl Network {
    pub(super) fn new(name: &str, wiring: Machine) -> anyhow::Result<Self> {
        // The kernel's limit for a name is 15 bytes, and each port adds a number.
        anyhow::ensure!(
            (1..=8).contains(&name.len()) && name.bytes().all(|it| it.is_ascii_alphanumeric()),
            "network `{name}`: a name is 1 to 8 letters or digits"
        );
        let bridge = format!("{name}-sw");
        wiring.ip_batch(&format!(
            "link add {bridge} type bridge mcast_snooping 0\nlink set {bridge} up\n"
        ))?;
        Ok(Self { bridge, wiring, ports: Shared::default() })
    }

    /// Plugs a machine in: it gets this interface with these addresses.
    ///
    /// # Errors
    ///
    /// What `ip` said.
    pub fn plug(
        &self,
        machine: &Machine,
        interface: &str,
        addresses: &[&str],
    ) -> anyhow::Result<()> {
        let number = self.ports.fetch_add(1, Ordering::Relaxed);
        let port = format!("{}{number}", self.bridge);
        self.wiring.ip_batch(&format!(
            "{}link set {port} up\n",
            settings::veth(&port, interface, machine),
        ))?;
        machine.ip_batch(&settings::up_with_addresses(interface, addresses))?;
        machine.wait_for_carrier(interface)?;
        self.wiring.wait_for_carrier(&port)?;
        // Only now: a bridge takes a port with a carrier into service at once, and another one
        // whenever it hears of the carrier.
        self.wiring.ip_batch(&format!("link set {port} master {}\n", self.bridge))
    }
}
