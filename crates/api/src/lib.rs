//! What users say: kinds, annotations and the predecessors' objects, as types.
//!
//! Text that a person wrote becomes a type here or is refused here, with a message that names the
//! part that is wrong. No crate downstream parses user text again, so none of it reaches a rule,
//! a command line or a configuration file. Nothing here does I/O, and nothing here knows what
//! other objects exist.

pub mod annotation;
pub mod edge_gateway;
pub mod gateway_api;
pub mod host;
pub mod interface;
pub mod name;
pub mod object;
pub mod port;
pub mod port_range;
pub mod problem;
mod rule;
pub mod server_name;
pub mod source_range;
