//! Asks an SSH server for its host key, as `ssh-keyscan` does. It logs in nowhere and trusts
//! nothing: what it returns is what answered.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use russh::client;
use russh::keys::{Algorithm, PublicKey, PublicKeyOrCertificate};

use crate::ending::Result;

const LIMIT: Duration = Duration::from_secs(5);

/// Returns the Ed25519 host key of the server at `address`.
///
/// # Errors
///
/// Fails when nothing answers within five seconds, or what answers has no such key.
pub(crate) async fn ed25519_key(address: &str, port: u16) -> Result<PublicKey> {
    let shown = Arc::new(Mutex::new(None));
    let preferred =
        russh::Preferred { key: Cow::Owned(vec![Algorithm::Ed25519]), ..Default::default() };
    let config = Arc::new(client::Config { preferred, ..Default::default() });
    let listener = Listener { shown: Arc::clone(&shown) };
    let connected =
        tokio::time::timeout(LIMIT, client::connect(config, (address, port), listener)).await;
    let key = shown.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (key, connected) {
        (Some(key), _) => Ok(key),
        (None, Err(_)) => Err(anyhow!("no answer within {LIMIT:?}")),
        (None, Ok(Err(error))) => Err(error).context("no ssh-ed25519 key was shown"),
        (None, Ok(Ok(_))) => Err(anyhow!("no ssh-ed25519 key was shown")),
    }
}

/// Remembers the key and refuses it, so that the connection ends there.
struct Listener {
    shown: Arc<Mutex<Option<PublicKey>>>,
}

impl client::Handler for Listener {
    type Error = russh::Error;

    fn check_server_key(
        &mut self,
        key: &PublicKeyOrCertificate,
    ) -> impl Future<Output = Result<bool, Self::Error>> + Send {
        if let PublicKeyOrCertificate::PublicKey { key, .. } = key {
            *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(key.clone());
        }
        std::future::ready(Ok(false))
    }
}
