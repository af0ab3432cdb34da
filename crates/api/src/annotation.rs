//! What the annotations and labels of Services, Pods and Nodes ask for.
//!
//! Two vocabularies are read: `portcullis.dev/...` and the predecessor's `epok.getbetter.ro/...`.
//! Key by key, ours counts where both speak, and a difference is reported. An object with one
//! value that cannot be understood is refused whole, so that a half-understood object never
//! opens a port, and never opens it to more sources than were meant.
//!
//! The predecessor's keys keep their meaning. What differs, beside the differences in the lists
//! of ports ([`host_ports`]):
//!
//! - `allow-range` was any text and was handed to a shell. Here it is a list of addresses and
//!   ranges ([`crate::source_range`]); host names, which iptables looked up once, are refused;
//! - `externalports` on an object together with `externalport`: the plural counts;
//! - `internal` together with `external` on a Pod left no interface; it is refused.

pub mod exposure;
pub mod gateway_ports;
pub mod host_ports;
pub mod key;
mod node;
mod pod;
mod published;
mod service;
mod vocabulary;

pub use node::{NodeWish, read_node};
pub use pod::{PodWish, read_pod};
pub use published::{ClientAddress, ClientAddresses, Gateways, PublishWish, read_published};
pub use service::{ServiceWish, read_service};

use crate::problem::Problem;

/// What one object asks for, and what is wrong with how it asks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reading<T> {
    /// What it asks for; `None` when a problem [refuses](crate::problem::Reason::refuses) it.
    pub wish: Option<T>,
    /// Everything that is wrong or should be known, in the order of the keys.
    pub problems: Vec<Problem>,
}

impl<T> Reading<T> {
    fn new(wish: T, mut problems: Vec<Problem>) -> Self {
        problems.sort_by(|a, b| a.field.cmp(&b.field));
        let refused = problems.iter().any(|it| it.reason.refuses());
        Self { wish: (!refused).then_some(wish), problems }
    }
}

#[cfg(test)]
mod tests;
