//! Desired forwarding to packet filter text, listings back to what was observed, and the steps
//! between the two.
//!
//! Everything here returns [`command::Command`] values and reads their outputs as text; running
//! them is the business of others. The kernel's view of a ruleset is never guessed: what it lists
//! is compared with what we would write, rule by rule and element by element.

mod backend;
pub mod conntrack;
pub mod epok;
pub mod guard;
mod iptables;
mod label;
mod nftables;
pub mod observe;
mod owners;
mod reach;
mod span;
mod standing;
pub mod trace;

pub use backend::{Backend, ListingError, Observed, Plan, Ruleset};
pub use nftables::listing::NotAListing;
pub use standing::StandingRuleset;
