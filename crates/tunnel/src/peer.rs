//! What handshakes need to know whom they are with.
//!
//! How certificates are made, kept, renewed and verified stands in [`crate::trust`], which fills
//! these in; a test can do with less.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ServerConfig};

/// What somebody is in a cluster.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Role {
    /// The cluster's side of a tunnel; dials.
    Agent,
    /// The public side; accepts.
    Gateway,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agent => "agent",
            Self::Gateway => "gateway",
        })
    }
}

/// Who somebody is, as a verified certificate says.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Identity {
    cluster: String,
    role: Role,
    name: String,
}

impl Identity {
    /// Puts an identity together.
    #[must_use]
    pub fn of(cluster: &str, role: Role, name: &str) -> Self {
        Self { cluster: cluster.to_owned(), role, name: name.to_owned() }
    }

    /// The cluster whose authority vouches for it.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// What it is there.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "portcullis://{}/{}/{}", self.cluster, self.role, self.name)
    }
}

/// What a gateway's handshakes need. Asked anew for each handshake, so that renewed certificates
/// and authorities count at once and sessions in being stay as they are.
pub trait ServerHandshakes: Send + Sync {
    /// The configuration, which must demand client certificates unless it is for adoption alone.
    /// The same value as long as nothing has changed. Its own list of ALPN names says what it may
    /// be used for; an empty list stands for sessions.
    fn config(&self) -> Arc<ServerConfig>;

    /// Who the holder of a verified chain is; the leaf comes first.
    fn peer(&self, chain: &[CertificateDer<'_>]) -> Option<Identity>;
}

/// What an agent's handshakes with one gateway need. Asked anew for each handshake.
pub trait ClientHandshakes: Send + Sync {
    /// The configuration, with the agent's certificate; ALPN is set by the carrier. The same value
    /// as long as nothing has changed.
    fn config(&self) -> Arc<ClientConfig>;

    /// The name for the greeting and for the configuration's verifier.
    fn server_name(&self) -> ServerName<'static>;

    /// Who the holder of a verified chain is, when it is the gateway that is dialled; the leaf
    /// comes first.
    fn peer(&self, chain: &[CertificateDer<'_>]) -> Option<Identity>;
}
