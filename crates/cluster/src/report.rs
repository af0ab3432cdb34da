//! Says what happened, where the user looks for it.

mod seen;

pub use seen::Seen;

/// The type of the condition that tells whether a Service is forwarded.
pub const FORWARDED: &str = "portcullis.dev/Forwarded";
