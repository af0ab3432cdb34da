//! What can be wrong with keys, certificates and where they are kept.

use std::io;
use std::path::PathBuf;

use super::Identity;

/// Why something about trust did not work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// A text is no identity.
    #[error("`{text}` is no identity: {why}")]
    Identity {
        /// The text.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A text is no SHA-256 digest.
    #[error("`{0}` is no digest; expected `sha256:` and 64 hexadecimal digits")]
    Digest(String),
    /// A text is no one-time secret.
    #[error("the text is no one-time secret; expected `pcs1-` and 64 hexadecimal digits")]
    Secret,
    /// A certificate cannot be read, or says something that it must not say.
    #[error("the certificate is unusable: {0}")]
    Certificate(String),
    /// A certificate is somebody else's.
    #[error("the certificate is for {found}, expected {expected}")]
    WrongIdentity {
        /// Whose was expected.
        expected: String,
        /// Whose it is.
        found: Identity,
    },
    /// A certificate was not signed by an authority that counts.
    #[error("no trusted authority of cluster {cluster} has signed the certificate: {why}")]
    WrongAuthority {
        /// The cluster.
        cluster: String,
        /// What the check said.
        why: String,
    },
    /// A certificate request cannot be read, is not signed by its own key, or has a key of a kind
    /// that is not used here.
    #[error("the certificate request is unusable: {0}")]
    Request(String),
    /// Text that should hold certificates and keys does not.
    #[error("{place} holds no usable keys and certificates: {why}")]
    Pem {
        /// Where the text is.
        place: String,
        /// What is wrong with it.
        why: String,
    },
    /// A key or a certificate could not be made.
    #[error("cannot make a key or a certificate: {0}")]
    Make(String),
    /// A new authority cannot be made while one waits.
    #[error("a new authority already waits for its time to sign")]
    Rotating,
    /// Nobody serves a cluster of that name here.
    #[error("cluster {0} is not in this gateway's configuration")]
    UnknownCluster(String),
    /// There is no certificate request that the certificate could answer.
    #[error("nobody asked for the certificate")]
    NotWanted,
    /// The signer does not sign.
    #[error("cannot get a certificate signed: {0}")]
    Signer(String),
    /// A file could not be read or written.
    #[error("cannot {verb} {}", .path.display())]
    File {
        /// What was tried.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl TrustError {
    pub(super) fn make(error: impl std::fmt::Display) -> Self {
        Self::Make(error.to_string())
    }

    pub(super) fn certificate(error: impl std::fmt::Display) -> Self {
        Self::Certificate(error.to_string())
    }
}
