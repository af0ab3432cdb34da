//! How a gateway that nobody knows yet becomes a cluster's own.
//!
//! The cluster dials out, so a new gateway cannot fetch anything: it is adopted over the first
//! connection. Its machine was started with the pin of the cluster's authority and the hash of a
//! one-time secret, which is nothing that could be stolen from there later. Then:
//!
//! 1. The agent dials with the protocol [`alpn::ADOPT`](crate::trust::alpn::ADOPT) and shows its
//!    certificate, which the gateway checks by the pin. The gateway shows one that proves nothing.
//! 2. Agent: `Adopt`, gateway: `Adopting`. Each proves that it knows the hash of the secret, on
//!    this very TLS session: an HMAC, keyed with the hash, over the session's exporter and the
//!    side's name. A man in the middle has two sessions, so two exporters, and neither proof is
//!    any good on the other one.
//! 3. Gateway: `CertificateWanted`, with a request for a key that it has just made and that stays
//!    with it. The agent burns a use of the secret where the cluster keeps it, so that of several
//!    agents and several machines no more get through than uses are left. Agent: `Reveal`, the
//!    secret itself, and `Certificate`.
//! 4. The gateway checks the secret by its hash, burns it on its disk, takes the certificate,
//!    says `Drain`, and closes. Every later session is mutually authenticated by certificates.
//!
//! Whoever reads the machine's start data during the minutes before that, and answers in the
//! gateway's place, can be adopted instead; the true gateway is then not adopted, which is seen,
//! and the secret is spent. [`AgentSide`] and [`GatewaySide`] decide; [`adopt`] and [`serve`] talk.

mod decide;
mod talk;

pub use decide::{AgentSide, AgentStep, GatewaySide, GatewayStep, proof};
pub use talk::{adopt, dial, serve};

use std::time::Duration;

use crate::dialler::DialError;
use crate::session::Ended;
use crate::trust::TrustError;

/// The label of the exporter (RFC 8446 section 7.5) that proofs are bound to; its context is
/// absent, its length 32 bytes.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-portcullis-adoption";

/// How long the whole conversation may take.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Why a gateway was not adopted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdoptionError {
    /// The other side does not know the secret, or somebody sits between both.
    #[error(
        "the other side did not prove that it knows the one-time secret on this connection: \
         another gateway answers there, or somebody sits in between"
    )]
    Unproven,
    /// There is no offer that could be taken.
    #[error(
        "no one-time secret of cluster {0} is open here: it has expired, was used, or the gateway \
         was set up without one"
    )]
    NoOffer(String),
    /// The secret that was revealed is not the one.
    #[error("the one-time secret is wrong, expired or already used")]
    Secret,
    /// The cluster's side has no use of the secret left for this gateway.
    #[error("the one-time secret cannot be used: {0}")]
    Unredeemed(String),
    /// A message came that does not belong there.
    #[error("expected {expected}, but the other side sent something else")]
    Unexpected {
        /// What should have come.
        expected: &'static str,
    },
    /// The gateway could not be dialled.
    #[error("cannot reach the gateway")]
    Dial(#[source] DialError),
    /// The TLS handshake failed.
    #[error("the handshake failed")]
    Handshake(#[source] std::io::Error),
    /// The conversation broke off.
    #[error("the other side ended the conversation: {0}")]
    Ended(Ended),
    /// It took too long.
    #[error("the adoption took longer than {PATIENCE:?}")]
    Late,
    /// A certificate could not be signed or was not accepted.
    #[error("no certificate came about")]
    Trust(#[source] TrustError),
}

/// Whether a gateway turned a session away because it has no certificate for this cluster, or one
/// that counts no more: it may be adopted if there is a secret for it.
#[must_use]
pub fn wants_adoption(error: &(dyn std::error::Error + 'static)) -> bool {
    use quinn::{ConnectionError, TransportErrorCode};
    use rustls::{AlertDescription, CertificateError, Error};
    /// RFC 8446 section 6.
    const ACCESS_DENIED: u8 = 49;
    let mut next = Some(error);
    while let Some(error) = next {
        let io = error.downcast_ref::<std::io::Error>();
        if let Some(inner) = io.and_then(std::io::Error::get_ref) {
            next = Some(inner);
            continue;
        }
        // Over QUIC the alert of TLS is part of the code (RFC 9001 section 4.8).
        if let Some(ConnectionError::ConnectionClosed(close)) = error.downcast_ref() {
            return close.error_code == TransportErrorCode::crypto(ACCESS_DENIED);
        }
        match error.downcast_ref::<Error>() {
            Some(Error::AlertReceived(AlertDescription::AccessDenied)) => return true,
            Some(Error::InvalidCertificate(CertificateError::Other(other))) => {
                return matches!(
                    other.0.downcast_ref::<TrustError>(),
                    Some(TrustError::WrongAuthority { .. })
                );
            }
            Some(_) | None => {}
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests;
