//! iptables: chains of our own, one jump to each from the built-in chains.

pub(crate) mod keep;
pub(crate) mod layout;
pub(crate) mod listing;
pub(crate) mod plan;
pub(crate) mod reading;
pub(crate) mod render;
pub(crate) mod tables;
pub(crate) mod words;
