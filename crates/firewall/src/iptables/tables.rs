//! Our chains in the tables of both families: what is desired and what a listing shows.
//!
//! Rules are text in the spelling of `iptables-save`, so comparing them is comparing text.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::reading::may_stand;

/// The name of a chain.
pub(crate) type Name = Arc<str>;

/// Both families.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Families {
    pub(crate) ipv4: Family,
    pub(crate) ipv6: Family,
}

/// Our chains in one family: table -> its part. A table without anything of ours is absent.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Family {
    pub(crate) tables: BTreeMap<&'static str, Chains>,
}

/// Our chains in one table.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Chains {
    /// Our chains with their rules.
    pub(crate) chains: BTreeMap<Name, Vec<String>>,
    /// Rules of other chains that lead to ours, each with its chain, in ascending order. One that
    /// is there twice is in here twice.
    pub(crate) jumps: Vec<String>,
}

impl Chains {
    /// Whether the table has nothing of ours.
    pub(crate) fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.jumps.is_empty()
    }
}

impl Families {
    /// Whether the host has nothing of ours.
    pub(crate) fn is_empty(&self) -> bool {
        self.ipv4.tables.is_empty() && self.ipv6.tables.is_empty()
    }

    /// What of it we can write: without rules in our chains that are not ours.
    pub(crate) fn writable(&self) -> Self {
        Self { ipv4: self.ipv4.writable(), ipv6: self.ipv6.writable() }
    }

    /// Both families, and whether it is IPv6.
    pub(crate) fn each(&self) -> [(bool, &Family); 2] {
        [(false, &self.ipv4), (true, &self.ipv6)]
    }
}

impl Family {
    fn writable(&self) -> Self {
        let mut family = self.clone();
        for (table, part) in &mut family.tables {
            for (name, rules) in &mut part.chains {
                rules.retain(|it| may_stand(table, name, it));
            }
        }
        family
    }

    /// The rules of one of our chains.
    pub(crate) fn rules(&self, table: &str, chain: &str) -> &[String] {
        let rules = self.tables.get(table).and_then(|it| it.chains.get(chain));
        rules.map_or(&[], Vec::as_slice)
    }
}

/// The family as `iptables-restore --noflush` reads it on a host that has nothing of ours.
impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let document = super::plan::document(self, &Self::default());
        f.write_str(document.as_deref().unwrap_or_default())
    }
}
