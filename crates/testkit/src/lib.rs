//! What tests, benches and the demo share: network namespaces, probes, real components and packet
//! tables.
//!
//! Start with [`lab::Lab`]. Nothing here knows what Portcullis decides: a lab gives machines and
//! wires, the probes say what really happened to a packet.

pub mod border;
pub mod corpus;
pub mod internet;
pub mod kubernetes;
pub mod lab;
pub mod packet_table;
pub mod probe;
pub mod requirement;
pub mod sshd;
pub mod tunnels;
pub mod wait;

#[path = "../agent/message.rs"]
mod message;

pub use lab::{Lab, Machine};
pub use message::Protocol;
pub use requirement::{Missing, require};
