//! A gateway in a lab: a public machine, a visitor's machine, and a home whose agent dials out.
//!
//! Kernel, sockets, TLS and certificates are real; the agent is a small one of these tests.

#[path = "it/agent.rs"]
mod agent;
#[path = "it/place.rs"]
mod place;

#[path = "it/limits.rs"]
mod limits;
#[path = "it/publishing.rs"]
mod publishing;
#[path = "it/quota.rs"]
mod quota;
#[path = "it/sessions.rs"]
mod sessions;
#[path = "it/upgrade.rs"]
mod upgrade;
