//! Every host port that somebody asks for, and who does, best claim first.
//!
//! The index is kept in the order of the finished plan and changes with the objects, so that a
//! plan is one walk over it, and a changed object costs as much as it has ports.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::port::{Port, Protocol};

use super::wish::Wish;

/// The claims on every host port.
#[derive(Debug, Default)]
pub(crate) struct Ports(BTreeMap<(Protocol, Port), Slot>);

/// The claims on one host port.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    /// The version of the view in which a claim last changed.
    pub(crate) changed: u64,
    /// In the order in which conflicts are decided. An empty slot stays, so that those who keep
    /// a plan up to date see that the port was given up; there are never more than ports.
    pub(crate) claims: Vec<Claim>,
}

/// One object's claim on one host port.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) wish: Arc<Wish>,
    pub(crate) target: Port,
}

impl Ports {
    /// Replaces one object's claims.
    pub(crate) fn replace(&mut self, old: Option<&Wish>, new: Option<&Arc<Wish>>, version: u64) {
        if let Some(old) = old {
            for port in &old.ports {
                let Some(slot) = self.0.get_mut(&(port.protocol, port.host)) else { continue };
                slot.claims.retain(|it| it.wish.owner != old.owner);
                slot.changed = version;
            }
        }
        if let Some(new) = new {
            for port in &new.ports {
                let slot = self.0.entry((port.protocol, port.host)).or_default();
                let at = slot.claims.partition_point(|it| it.wish.rank() < new.rank());
                let claim = Claim { wish: Arc::clone(new), target: port.target };
                slot.claims.insert(at, claim);
                slot.changed = version;
            }
        }
    }

    /// Marks every port of one object as changed: not its claims, but what answers behind them.
    pub(crate) fn touch(&mut self, wish: &Wish, version: u64) {
        for port in &wish.ports {
            if let Some(slot) = self.0.get_mut(&(port.protocol, port.host)) {
                slot.changed = version;
            }
        }
    }

    /// Every slot, in the order of protocol and port.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Protocol, Port, &Slot)> {
        self.0.iter().map(|(&(protocol, port), slot)| (protocol, port, slot))
    }

    /// The claims on one host port.
    pub(crate) fn claims(&self, protocol: Protocol, port: Port) -> &[Claim] {
        self.0.get(&(protocol, port)).map_or(&[], |it| &it.claims)
    }
}
