//! Who is at one place, and who has a mind to be: indexed by name, because hundreds may share one.

use std::collections::BTreeMap;

use api::server_name::ServerName;

use super::{Entry, ItemId};
use crate::publish::claim::Item;

/// Who is at one place: one who has the whole of it, or several with names of their own.
#[derive(Debug, Default)]
pub(super) struct Cell {
    /// Best claim first; those who share all have the same allow list and the same limits.
    pub(super) entries: Vec<Entry>,
    names: BTreeMap<ServerName, (ItemId, Use)>,
}

/// What somebody does with a name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Use {
    /// It is one that it shares the place by.
    Claims,
    /// It is covered by one of those, and leads somewhere.
    Leads,
}

impl Cell {
    /// Lets somebody in.
    pub(super) fn insert(&mut self, entry: Entry, item: &Item) {
        for claimed in entry.names.iter().flatten() {
            self.names.insert(claimed.clone(), (entry.item, Use::Claims));
            for led in item.routes.keys().filter(|it| claimed.covers(it)) {
                self.names.entry(led.clone()).or_insert((entry.item, Use::Leads));
            }
        }
        self.entries.push(entry);
    }

    /// Who has a name, as far as another claim is concerned. What a better claim leads somewhere
    /// stays its own, whatever the hostname of its listener; within one claim, the Gateway API
    /// says whose it is.
    pub(super) fn holder(&self, name: &ServerName, claim: usize) -> Option<ItemId> {
        let (holder, how) = self.names.get(name)?;
        (*how == Use::Claims || holder.0 != claim).then_some(*holder)
    }
}

/// Which claims have a mind to be at one place: each by its index, the last one counts.
#[derive(Debug, Default)]
pub(super) struct Reserved {
    any: usize,
    whole: Option<usize>,
    names: BTreeMap<ServerName, usize>,
}

impl Reserved {
    /// Notes a claim; those that come later are noted later.
    pub(super) fn insert(&mut self, claim: usize, names: Option<&[ServerName]>) {
        self.any = claim;
        match names {
            None => self.whole = Some(claim),
            Some(names) => self.names.extend(names.iter().map(|it| (it.clone(), claim))),
        }
    }

    /// Whether any claim after `claim` has a mind to be here.
    pub(super) fn any_after(&self, claim: usize) -> bool {
        self.any > claim
    }

    /// Whether such a claim could not be here besides these names.
    pub(super) fn clashes_after(&self, claim: usize, names: Option<&[ServerName]>) -> bool {
        let after = |it: Option<&usize>| it.is_some_and(|it| *it > claim);
        match names {
            None => self.any_after(claim),
            Some(names) => {
                after(self.whole.as_ref()) || names.iter().any(|it| after(self.names.get(it)))
            }
        }
    }
}
