//! Reads one value of one Secret, when it is needed. Secrets are not watched and not kept.

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};

use crate::trouble::Trouble;

/// Why a value of a Secret cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The API server did not give the Secret.
    #[error(
        "cannot read Secret {namespace}/{name}: {why}; allow `get` on it in the Role of the \
         controller"
    )]
    Read {
        /// The Secret's namespace.
        namespace: String,
        /// The Secret's name.
        name: String,
        /// What the API server said.
        why: String,
    },
    /// The Secret has no such key.
    #[error("Secret {namespace}/{name} has no key `{key}`")]
    NoKey {
        /// The Secret's namespace.
        namespace: String,
        /// The Secret's name.
        name: String,
        /// The key that is missing.
        key: String,
    },
    /// The value is no text.
    #[error("the key `{key}` of Secret {namespace}/{name} is not UTF-8 text")]
    NotText {
        /// The Secret's namespace.
        namespace: String,
        /// The Secret's name.
        name: String,
        /// The key.
        key: String,
    },
}

/// Returns the text below `key`.
///
/// # Errors
///
/// When the Secret or the key is missing, or may not be read.
pub async fn read(
    client: &Client,
    namespace: &str,
    name: &str,
    key: &str,
) -> Result<String, SecretError> {
    let [namespace, name, key] = [namespace, name, key].map(str::to_owned);
    let secrets = Api::<Secret>::namespaced(client.clone(), &namespace);
    let secret = match secrets.get(&name).await {
        Ok(secret) => secret,
        Err(error) => {
            let why = Trouble::from(error).chain();
            return Err(SecretError::Read { namespace, name, why });
        }
    };
    let value = secret.data.and_then(|mut it| it.remove(&key));
    let Some(value) = value else { return Err(SecretError::NoKey { namespace, name, key }) };
    String::from_utf8(value.0).map_err(|_| SecretError::NotText { namespace, name, key })
}
