//! The `Host` object: a machine outside the cluster's control that forwards ports to it.
//!
//! [`HostSpec`] is the object as written. It takes any text, so that one bad object in a list
//! never hides the good ones. [`Host::settings`] turns it into [`HostSettings`], which hold only
//! checked values, or names every problem at once. The API server refuses the same things by
//! schema and CEL rules, with the same words; the rules are written once, in `rule.rs`.

mod manifest;
mod rule;
mod settings;
mod spec;
mod ssh;
mod status;

pub use manifest::read_manifest;
pub use settings::{Backend, Executor, HostSettings};
pub use spec::{ExecutorSpec, Host, HostSpec, LocalSpec, SecretKeyRef, SshSpec};
pub(crate) use ssh::read_ip;
pub use ssh::{
    HostKey, KeyFile, KeySource, NetworkAddress, ParseSshValueError, SshMode, SshSettings, UserName,
};
pub use status::{CONDITIONS, Condition, HostStatus, NodeTarget};
