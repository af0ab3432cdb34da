//! Job 1 from the outside: the real program on a host in a lab, manifests, real connections.
//!
//! Tests carry the acceptance id that they hold (`ep07_…`). What needs a real Kubernetes is in
//! `kubernetes.rs`, what needs no controller in `it.rs`.

#[path = "forward/changes.rs"]
mod changes;
#[path = "forward/crashes.rs"]
mod crashes;
#[path = "forward/equivalence.rs"]
mod equivalence;
#[path = "forward/healing.rs"]
mod healing;
#[path = "forward/objects.rs"]
mod objects;
#[path = "forward/options.rs"]
mod options;
#[path = "forward/place.rs"]
mod place;
#[path = "forward/predecessor.rs"]
mod predecessor;
#[path = "forward/remote.rs"]
mod remote;
