//! nftables: one table of our own, static rules over maps.

pub(crate) mod describe;
pub(crate) mod expression;
pub(crate) mod keep;
pub(crate) mod layout;
pub(crate) mod listing;
pub(crate) mod plan;
pub(crate) mod reading;
pub(crate) mod render;
pub(crate) mod rule;
pub(crate) mod scope;
pub(crate) mod table;
