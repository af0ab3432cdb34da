//! The other end of a session: what the forced command `portcullis host-apply` does.
//!
//! [`serve`] answers requests on standard input and output until the connection ends. It runs only
//! what the caller's check permits, and it never looks at what the client asked sshd for, so that
//! the account's key is good for this and nothing else.
//!
//! A change with confirmation is watched by a second process, [`rollback_main`], which no longer
//! belongs to the session: when the confirmation does not come in time, it takes the change back,
//! whatever has become of the connection, of `serve` and of the client.

mod pending;
pub(crate) mod protocol;
mod rollback;
mod serving;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

pub use rollback::rollback_main;
pub use serving::serve;

use crate::Local;

/// What [`serve`] and [`rollback_main`] must agree on.
#[derive(Clone, Debug)]
pub struct HostApply {
    /// Where unconfirmed changes are noted: a directory that only we can enter and that is empty
    /// after a reboot. Created when missing.
    pub runtime_dir: PathBuf,
    /// The program and arguments that lead to [`rollback_main`], usually this very program with a
    /// hidden option.
    pub rollback_program: Vec<OsString>,
    /// How commands are run.
    pub local: Local,
}

/// Why serving ended before the connection did.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Reading requests or writing answers failed.
    #[error("cannot talk to the client")]
    Connection(#[source] io::Error),
    /// The client does not speak as agreed.
    #[error("the client does not speak as agreed: {0}")]
    Protocol(String),
    /// The directory for unconfirmed changes cannot be used.
    #[error("cannot use the runtime directory {}: {reason}", path.display())]
    RuntimeDir {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A change was not confirmed, and taking it back failed as well.
    #[error("an unconfirmed change could not be rolled back: {0}")]
    Rollback(String),
}
