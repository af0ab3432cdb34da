//! Cluster view and host view to desired state and findings.
//!
//! Everything is decided here and nothing is done here: no I/O, no clock. Planning cannot fail on
//! user input; what a user got wrong becomes a [`finding::Finding`], and costs only its own effect.

pub mod check;
pub mod cluster_view;
pub mod desired;
pub mod finding;
pub mod forward;
pub mod host_view;
pub mod object;
mod port_list;
pub mod publish;
pub mod status;
