//! Our chains in the tables of one family: what is desired and what a listing shows.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Our chains in one family.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Family {
    /// Table -> its part.
    pub(crate) tables: BTreeMap<&'static str, Chains>,
}

/// Our chains in one table.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Chains {
    /// Our chains with their rules.
    pub(crate) chains: BTreeMap<Arc<str>, Vec<String>>,
    /// Rules of foreign chains that lead to ours, in order, each with its chain.
    pub(crate) jumps: Vec<String>,
}

/// Both families.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Families {
    pub(crate) ipv4: Family,
    pub(crate) ipv6: Family,
}
