//! The public side of tunnels.
//!
//! A gateway listens where its clusters wish it and its own configuration grants it, admits
//! visitors, asks an agent to take each, and carries bytes. It dials nobody.
//!
//! - What is listened on belongs to the wish, not to a session: agents come and go, listening
//!   sockets stay, also over a restart and an upgrade.
//! - What a cluster may do is in the gateway's own [`config`]; a stolen agent key can do no more.
//! - Gateways share nothing and need no coordinator.
//!
//! [`run`] is a whole gateway process; [`Gateway`] is one inside of another program.

pub mod config;

mod addresses;
mod admission;
mod clock;
mod cluster;
mod descriptors;
mod error;
mod filter;
mod gateway;
mod handover;
mod inner;
mod keeper;
mod kernel;
mod listener;
mod metrics;
mod opening;
mod pages;
mod port;
mod probe;
mod rate;
mod run;
mod session;
mod socket;
mod state;
mod table;
mod traffic;
mod tunnels;

pub use error::GatewayError;
pub use gateway::Gateway;
pub use run::run;
