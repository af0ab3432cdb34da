//! Watches, writes and announces: the Kubernetes API, or a directory of manifests.
//!
//! Two sources fill the same channel with the same [changes](planner::cluster_view::Change):
//! [`kubernetes`] watches the API, [`manifests`] watches a directory. [`report`] writes back what
//! happened, where the user looks for it. [`leader`] decides which replica may write.
//!
//! Relied upon by everything behind the channel: a `Reset` holds the complete set of its kind, or
//! it is not sent; a source never ends by itself; an error of one kind or one file costs nothing
//! to the others; what is wrong stands in the source's [health](source::Health) until it is right.
//!
//! Deliberately not here: what the objects mean (`planner`), and what follows on a host.

pub mod backoff;
pub mod kubernetes;
pub mod leader;
pub mod manifests;
pub mod report;
pub mod secret;
pub mod source;
mod trouble;
