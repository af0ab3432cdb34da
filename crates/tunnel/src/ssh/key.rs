//! The two keys of a session, read from text and refused with a reason.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use russh::keys::{HashAlg, PrivateKey, PublicKey};

/// Why a key was refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The text is not one line of an OpenSSH public key.
    #[error("not an OpenSSH public key; expected `ssh-ed25519 AAAA...`")]
    PublicKey,
    /// The text is not a private key.
    #[error("not an OpenSSH private key")]
    PrivateKey,
    /// The private key can only be read with a passphrase, which nobody is there to type.
    #[error("the private key is protected by a passphrase; remove it with `ssh-keygen -p -N ''`")]
    Passphrase,
}

/// The public key that a server must have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostKey(PublicKey);

impl FromStr for HostKey {
    type Err = KeyError;

    /// Reads one line as in `/etc/ssh/ssh_host_ed25519_key.pub`; a comment at its end is ignored.
    fn from_str(line: &str) -> Result<Self, Self::Err> {
        PublicKey::from_openssh(line.trim()).map(Self).map_err(|_| KeyError::PublicKey)
    }
}

impl HostKey {
    /// The fingerprint as `ssh-keygen -l` prints it: `SHA256:...`.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.0.fingerprint(HashAlg::Sha256).to_string()
    }

    pub(super) fn key(&self) -> &PublicKey {
        &self.0
    }
}

/// The private key that we log in with. Never printed.
#[derive(Clone)]
pub struct ClientKey(Arc<PrivateKey>);

impl FromStr for ClientKey {
    type Err = KeyError;

    /// Reads the text of a private key file: OpenSSH's own form, PKCS#8 or PKCS#1.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let key = russh::keys::decode_secret_key(text, None).map_err(|source| {
            let encrypted = matches!(source, russh::keys::Error::KeyIsEncrypted);
            if encrypted { KeyError::Passphrase } else { KeyError::PrivateKey }
        })?;
        if key.is_encrypted() {
            return Err(KeyError::Passphrase);
        }
        Ok(Self(Arc::new(key)))
    }
}

impl ClientKey {
    pub(super) fn key(&self) -> Arc<PrivateKey> {
        Arc::clone(&self.0)
    }
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientKey({})", self.0.fingerprint(HashAlg::Sha256))
    }
}
