//! The loop: observe, plan, apply, report.
//!
//! This crate joins the half that decides with the half that does. What should be is decided in
//! `planner`, how it is spelled in `firewall`; how to reach a host stands in `host`, how to reach the
//! cluster in `cluster`. What remains here is *when*: when to plan, when to look again, when to try again.
//!
//! Promises: nothing is changed before every kind of object was listed completely; a change is
//! planned at once after a quiet time and never waits longer than 5 ms; a failed pass is tried
//! again for ever; a host that does not answer delays no other; when the program ends, rules stay.

mod backoff;
mod door;
mod driver;
mod engine;
mod hand;
mod host_task;
mod http;
mod metrics;
mod pace;
pub mod reach;
mod report;
mod run;
pub mod status;
mod wish;

pub use run::{RunError, Settings, SourceSettings, run};
