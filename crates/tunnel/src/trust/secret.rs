//! One-time secrets: what a new gateway and the cluster know in common until it is adopted.
//!
//! The gateway's machine gets the hash alone, because what a machine is started with stays
//! readable there for ever.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use aws_lc_rs::{constant_time, hmac};

use super::TrustError;
use super::identity::{digest_from, hex, sha256, unhex};

const PREFIX: &str = "pcs1-";

/// A one-time secret; as text `pcs1-` and 64 hexadecimal digits. Never printed by accident.
#[derive(Clone, Eq, PartialEq)]
pub struct OneTimeSecret([u8; 32]);

impl OneTimeSecret {
    /// Makes a new one.
    ///
    /// # Errors
    ///
    /// When the system gives no randomness.
    pub fn generate() -> Result<Self, TrustError> {
        let mut bytes = [0; 32];
        aws_lc_rs::rand::fill(&mut bytes)
            .map_err(|_| TrustError::make("the system gives no randomness"))?;
        Ok(Self(bytes))
    }

    /// From the bytes that came over the wire.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its text, for the Secret that holds it.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}", hex(&self.0))
    }

    /// Its hash.
    #[must_use]
    pub fn hash(&self) -> SecretHash {
        SecretHash(sha256(&self.0))
    }
}

impl fmt::Debug for OneTimeSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OneTimeSecret(..)")
    }
}

impl FromStr for OneTimeSecret {
    type Err = TrustError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.trim().strip_prefix(PREFIX).ok_or(TrustError::Secret)?;
        unhex(digits).map(Self).ok_or(TrustError::Secret)
    }
}

/// The SHA-256 digest of a one-time secret: `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// From a digest that was read elsewhere.
    #[must_use]
    pub fn from_digest(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// Whether it is the hash of `secret`. Takes the same time for every wrong one.
    #[must_use]
    pub fn matches(&self, secret: &OneTimeSecret) -> bool {
        constant_time::verify_slices_are_equal(&self.0, &secret.hash().0).is_ok()
    }

    /// The key with which both sides show that they know it.
    pub(crate) fn key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.0)
    }

    /// The digits, as the name of a file.
    pub(super) fn digits(&self) -> String {
        hex(&self.0)
    }
}

impl fmt::Display for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex(&self.0))
    }
}

impl FromStr for SecretHash {
    type Err = TrustError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        digest_from(text).map(Self)
    }
}

/// What a gateway was started with: who presents the secret with this hash in time may adopt it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SecretOffer {
    /// The hash of the secret.
    pub hash: SecretHash,
    /// Until when it counts.
    pub expires: SystemTime,
    /// How often it counts on one machine. More than once serves machines that are started again
    /// from the same image.
    pub redemptions: u32,
}
