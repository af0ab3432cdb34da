//! The thin shell around one host: it runs [`command::Command`] values and asks not what for.
//!
//! [`Local`] runs them on this machine and [`Ssh`] on another one, over a single standing session.
//! [`host_apply`] is the other end of that session: what the forced command of a restricted account
//! runs. [`LocalChanges`] tells when somebody else changed this machine's firewall or addresses.
//!
//! What a command means, whether it should run and what its output says is decided elsewhere. A
//! program that ends with a status other than zero is an [`Output`](command::Output) like any
//! other here; only what kept it from running to its end is an [`ExecuteError`].

mod changes;
mod error;
mod executor;
mod local;
mod scripted;
mod ssh;

pub mod host_apply;

pub use changes::{ChangedBy, LocalChange, LocalChanges};
pub use error::{Blame, ExecuteError};
pub use executor::{ConfirmedChange, Executor};
pub use local::{Limits, Local, OwnProcesses};
pub use scripted::Scripted;
pub use ssh::{ClientKey, HostKey, KeyError, LinkState, LinkWatch, Mode, Ssh, SshHost, Timing};
