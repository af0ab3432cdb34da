//! The cluster side of tunnels.
//!
//! An agent knows the cluster (or a directory of manifests), dials every gateway that is declared
//! there, says what each shall listen on, and answers the gateways' visitors from ready endpoints
//! of the backends. One of several agents writes statuses; nothing else needs a leader.
//!
//! Promises: nothing is said to a gateway before every kind of object was listed completely; a
//! gateway that does not answer delays no other and is dialled for ever; without the API server the
//! last good state stays; a backend that trusts visitors' addresses is never shown a false one.

mod authority;
mod board;
mod certificates;
mod flow;
mod http;
mod link;
mod metrics;
mod publication;
mod quota;
mod run;
mod sightings;
pub mod status;
mod statuses;
pub mod transparent;

pub use authority::AuthoritySource;
pub use run::{RunError, Settings, SourceSettings, run};
