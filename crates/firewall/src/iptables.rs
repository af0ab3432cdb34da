//! iptables: chains of our own, one jump to each from the built-in chains.

pub(crate) mod plan;
pub(crate) mod tables;
