//! Who is who: identities in certificates, the cluster's authority that signs them, and the TLS
//! configurations of both sides.
//!
//! Every cluster has an authority of its own. Agents and gateways have certificates that live for
//! [`LIFETIME`] and name them in a URI ([`Identity`]); both ends of every connection show one, and
//! nothing but TLS 1.3 is spoken. A gateway that serves several clusters trusts each cluster's
//! authority for that cluster alone. How a gateway gets its first certificate stands in
//! [`crate::adoption`]; how authorities follow one another, at [`Authorities`].
//!
//! An agent holds an [`AgentTrust`], a gateway a [`GatewayTrust`]. Both hand out configurations
//! and replace certificates and authorities while connections go on.

mod agent;
mod authority;
mod credentials;
mod directory;
mod error;
mod gateway;
mod identity;
mod provider;
mod secret;
mod signer;
mod verify;

pub use agent::{AgentTrust, Dial};
pub use authority::{Authorities, Authority, Issued};
pub use directory::StateDirectory;
pub use error::TrustError;
pub use gateway::{ClusterTrust, GatewayTrust, Standing};
pub use identity::{Lifespan, Pin, identity_of, lifespan_of};
pub use provider::{provider, system_clock};
pub use secret::{OneTimeSecret, SecretHash, SecretOffer};
pub use signer::{LocalSigner, Signer};

use std::time::Duration;

pub use crate::peer::{Identity, Role};

/// Protocols of ALPN (RFC 7301): what a connection is for.
pub mod alpn {
    /// Everything that a gateway accepts.
    pub const ALL: [&[u8]; 4] = [CONTROL, FLOW, QUIC, ADOPT];
    /// The control channel of a session, over TLS and TCP.
    pub const CONTROL: &[u8] = b"portcullis-control/1";
    /// A connection that carries one flow after another.
    pub const FLOW: &[u8] = b"portcullis-flow/1";
    /// A whole session over QUIC.
    pub const QUIC: &[u8] = b"portcullis/1";
    /// The adoption of a gateway.
    pub const ADOPT: &[u8] = b"portcullis-adopt/1";
}

/// How long a certificate of an agent or a gateway lives. It is renewed after two thirds.
pub const LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// What the cluster's authorities are kept as: a file in a directory, or a key of the Secret
/// [`AUTHORITY_SECRET`] in the namespace [`NAMESPACE`].
pub const AUTHORITY_FILE: &str = "authority.pem";

/// The Secret with the cluster's authorities.
pub const AUTHORITY_SECRET: &str = "portcullis-ca";

/// The namespace of Secrets that belong to the program and not to a user's Service.
pub const NAMESPACE: &str = "portcullis-system";

#[cfg(test)]
mod tests;
