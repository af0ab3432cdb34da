//! What one host says about itself: its addresses and its own listening sockets.
//!
//! Here are the facts and the pure parsers of the two listings that they come from; which
//! commands print those listings is not known here. Nothing in a listing is trusted: text that
//! cannot be read is refused or left out, never guessed.

mod addresses;
mod listeners;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::interface::InterfaceName;
use api::port::{Port, Protocol};
use ipnet::IpNet;

pub use addresses::AddressListingError;

/// What one host says about itself.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HostView {
    /// Every interface with its usable addresses of both families, each with its prefix length,
    /// in ascending order. Loopback and link-local addresses are left out, and so are IPv6
    /// addresses that duplicate address detection has not (yet) accepted (RFC 4862, section 5.4).
    /// An interface without such an address is here with an empty list.
    pub addresses: BTreeMap<InterfaceName, Vec<IpNet>>,
    /// The addresses among them that are about to go: deprecated or temporary ones (RFC 8981).
    /// The host still answers on them, but they should not be announced to anyone.
    pub passing: BTreeSet<IpAddr>,
    /// The sockets on which the host's own programs listen.
    pub listeners: BTreeSet<Listener>,
}

/// A socket on which one of the host's own programs listens.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Listener {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: Port,
    /// The address; the unspecified address of a family for all of that family, and `None` for
    /// all of the host's addresses.
    pub address: Option<IpAddr>,
}

impl HostView {
    /// Reads the listings of `ip -j addr show` and `ss -H -l -n -t -u`.
    ///
    /// # Errors
    ///
    /// Fails when the first listing cannot be read, because addresses decide what is forwarded.
    /// A line of the second listing that cannot be read is left out: listeners cause warnings
    /// only, and an odd line must not stop forwarding.
    pub fn read(addresses: &str, listeners: &str) -> Result<Self, AddressListingError> {
        let (addresses, passing) = addresses::read(addresses)?;
        Ok(Self { addresses, passing, listeners: listeners::read(listeners) })
    }

    /// Whether the host has `address` on any interface.
    #[must_use]
    pub fn has(&self, address: IpAddr) -> bool {
        self.addresses.values().flatten().any(|it| it.addr() == address)
    }

    /// The addresses of one interface.
    pub fn addresses_of<'a>(
        &'a self,
        interface: &InterfaceName,
    ) -> impl Iterator<Item = IpAddr> + use<'a> {
        self.addresses.get(interface).into_iter().flatten().map(IpNet::addr)
    }
}
