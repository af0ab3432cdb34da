//! The compatibility carrier: a plain OpenSSH server with remote forwarding instead of a gateway of
//! our own.
//!
//! To its user it is a session as every other: it takes a wish, says what became of each port, and
//! hands out flows. Behind it stands what `ssh -R` does, done with care: the server's key is
//! pinned, silence of the server ends the session, and a port that the server refuses is asked for
//! again until it is free. It most often is not because the server has not noticed yet that an
//! earlier session of ours is dead.
//!
//! What SSH cannot do: UDP, limits, more than one connection for all flows (a slow one holds up the
//! others), and taking over the ports of an earlier session at once. Two agents on one server stand
//! in for each other: the second gets a port when the first is gone.

mod dial;
mod flow;
mod forwards;
mod key;
mod serve;

pub use dial::{SshError, dial};
pub use key::{ClientKey, HostKey, KeyError};

use std::time::Duration;

use crate::dialler::Endpoint;

/// An OpenSSH server that is to publish ports.
#[derive(Clone, Debug)]
pub struct SshServer {
    /// Where it is: any of these is the same machine.
    pub endpoints: Vec<Endpoint>,
    /// The account. It needs `AllowTcpForwarding remote` (or `yes`), and for ports that others than
    /// the server itself shall reach `GatewayPorts clientspecified`; no shell.
    pub user: String,
    /// The key that the server must have.
    pub host_key: HostKey,
    /// The key that we log in with.
    pub client_key: ClientKey,
    /// What time it is given.
    pub timing: Timing,
}

/// What time a server is given.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timing {
    /// To connect, check keys and log in.
    pub connect: Duration,
    /// Silence after which it is asked whether it lives.
    pub ping_after: Duration,
    /// Silence after which it is taken for dead; bytes that it sent alone count as life.
    pub dead_after: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            ping_after: Duration::from_secs(1),
            dead_after: Duration::from_secs(5),
        }
    }
}
