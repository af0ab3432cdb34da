//! The tunnel between an agent and a gateway, without sockets and without a clock.
//!
//! An agent dials a gateway and keeps a *session*: one control channel for [`message`]s, and a way
//! for the gateway to open *flows*, one for each visitor. What goes over a flow's own channel is
//! in [`frame`]. Whoever asks these types for a decision says what time it is; time is a
//! [`std::time::Duration`] since a start that the asker chose and keeps.

pub mod backoff;
pub mod carrier_choice;
pub mod choice;
pub mod control;
pub mod desired;
pub mod first_carrier;
pub mod flow_table;
pub mod frame;
pub mod liveness;
pub mod message;
pub mod proxy_header;
pub mod quota;
pub mod server_name;
pub mod sessions;
pub mod spare;
