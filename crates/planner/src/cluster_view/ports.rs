//! Every host port that somebody asks for, and who does, best claim first.
//!
//! The index is kept in the order of the finished plan and changes with the objects, so that a
//! plan is one walk over it, and a changed object costs as much as it has ports.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use api::port::{Port, Protocol};

use super::wish::Wish;

/// The claims on every host port, and which ports changed of late.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    /// In the order in which conflicts are decided; none of the lists is empty.
    claims: BTreeMap<(Protocol, Port), Vec<Claim>>,
    /// Changed ports with the version of the view, oldest first.
    recent: VecDeque<(u64, (Protocol, Port))>,
    /// The last version of which changes are no longer in `recent`.
    forgotten: u64,
}

/// How many changes of ports are remembered. Whoever missed more makes a whole plan, which is
/// no slower then.
const REMEMBERED: usize = 4096;

/// One object's claim on one host port.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) wish: Arc<Wish>,
    pub(crate) target: Port,
}

impl Ports {
    /// Replaces one object's claims.
    pub(crate) fn replace(&mut self, old: Option<&Wish>, new: Option<&Arc<Wish>>, version: u64) {
        for port in old.into_iter().flat_map(|it| &it.ports) {
            let key = (port.protocol, port.host);
            if let Some(claims) = self.claims.get_mut(&key) {
                claims.retain(|it| old.is_none_or(|old| it.wish.owner != old.owner));
                if claims.is_empty() {
                    self.claims.remove(&key);
                }
            }
            self.remember(key, version);
        }
        let Some(new) = new else { return };
        for port in &new.ports {
            let key = (port.protocol, port.host);
            let claims = self.claims.entry(key).or_default();
            let at = claims.partition_point(|it| it.wish.rank() < new.rank());
            claims.insert(at, Claim { wish: Arc::clone(new), target: port.target });
            self.remember(key, version);
        }
    }

    /// Marks every port of one object as changed: not its claims, but what answers behind them.
    pub(crate) fn touch(&mut self, wish: &Wish, version: u64) {
        for port in &wish.ports {
            self.remember((port.protocol, port.host), version);
        }
    }

    /// The ports that changed after `version`; `None` when that is too long ago to say.
    pub(crate) fn changed_since(&self, version: u64) -> Option<BTreeSet<(Protocol, Port)>> {
        if version < self.forgotten {
            return None;
        }
        let later = self.recent.iter().rev().take_while(|(changed, _)| *changed > version);
        Some(later.map(|(_, port)| *port).collect())
    }

    /// Every port that somebody asks for, in order, with the claims on it.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Protocol, Port, &[Claim])> {
        self.claims.iter().map(|(&(protocol, port), claims)| (protocol, port, claims.as_slice()))
    }

    /// How many ports somebody asks for.
    pub(crate) fn len(&self) -> usize {
        self.claims.len()
    }

    /// The claims on one host port.
    pub(crate) fn claims(&self, protocol: Protocol, port: Port) -> &[Claim] {
        self.claims.get(&(protocol, port)).map_or(&[], |it| it)
    }

    fn remember(&mut self, port: (Protocol, Port), version: u64) {
        if self.recent.len() == REMEMBERED
            && let Some((oldest, _)) = self.recent.pop_front()
        {
            self.forgotten = oldest;
        }
        self.recent.push_back((version, port));
    }
}
