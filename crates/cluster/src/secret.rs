//! Reads what a Host keeps in a Secret: the key for its SSH account.

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};

use crate::trouble::status_code;

/// Why a Secret could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// There is no such Secret.
    #[error("there is no Secret {namespace}/{name}")]
    NoSecret {
        /// The namespace.
        namespace: String,
        /// The name.
        name: String,
    },
    /// The Secret has no such key.
    #[error("Secret {namespace}/{name} has no key `{key}`")]
    NoKey {
        /// The namespace.
        namespace: String,
        /// The name.
        name: String,
        /// The key.
        key: String,
    },
    /// The API server refuses to show it.
    #[error("the API server forbids to read Secret {namespace}/{name}; grant `get` on it by name")]
    Forbidden {
        /// The namespace.
        namespace: String,
        /// The name.
        name: String,
    },
    /// The API server could not be asked; trying again may help.
    #[error("cannot read Secret {namespace}/{name}")]
    Request {
        /// The namespace.
        namespace: String,
        /// The name.
        name: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
}

/// Reads one key of one Secret.
///
/// # Errors
///
/// See [`SecretError`]; no variant holds anything secret.
pub async fn read(
    client: &Client,
    namespace: &str,
    name: &str,
    key: &str,
) -> Result<Vec<u8>, SecretError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let (namespace, name) = (namespace.to_owned(), name.to_owned());
    let secret = match api.get(&name).await {
        Ok(secret) => secret,
        Err(error) => {
            return Err(match status_code(&error) {
                Some(404) => SecretError::NoSecret { namespace, name },
                Some(403) => SecretError::Forbidden { namespace, name },
                Some(_) | None => SecretError::Request { namespace, name, source: error.into() },
            });
        }
    };
    match secret.data.unwrap_or_default().remove(key) {
        Some(value) => Ok(value.0),
        None => Err(SecretError::NoKey { namespace, name, key: key.to_owned() }),
    }
}
