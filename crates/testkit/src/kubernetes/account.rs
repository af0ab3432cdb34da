//! Who a client is: a kubeconfig and what is made of it.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;

use super::certificates::Pair;

/// How somebody reaches the API server: a kubeconfig file that stands alone.
#[derive(Clone, Debug)]
pub struct Access {
    kubeconfig: PathBuf,
}

impl Access {
    pub(super) fn new(kubeconfig: PathBuf) -> Self {
        Self { kubeconfig }
    }

    /// The kubeconfig file; certificates and tokens are inside it.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A new client.
    ///
    /// It belongs to the async runtime that calls this: each test makes its own.
    ///
    /// # Errors
    ///
    /// Fails when the kubeconfig is not readable.
    pub async fn client(&self) -> anyhow::Result<kube::Client> {
        let file = Kubeconfig::read_from(&self.kubeconfig).context("cannot read the kubeconfig")?;
        let config =
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
        kube::Client::try_from(config.context("the kubeconfig does not name a cluster")?)
            .context("cannot make a client of the kubeconfig")
    }
}

/// What proves who one is.
pub(super) enum Credential<'a> {
    Certificate(&'a Pair),
    Token(&'a str),
}

/// The text of a kubeconfig. It is JSON, which is YAML too.
pub(super) fn kubeconfig(server: &str, authority: &str, credential: &Credential<'_>) -> String {
    let user = match credential {
        Credential::Certificate(pair) => json!({
            "client-certificate-data": base64(pair.public.as_bytes()),
            "client-key-data": base64(pair.key.as_bytes()),
        }),
        Credential::Token(token) => json!({ "token": token }),
    };
    let file = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "testbed", "cluster": {
            "server": server, "certificate-authority-data": base64(authority.as_bytes()),
        }}],
        "users": [{ "name": "testbed", "user": user }],
        "contexts": [{ "name": "testbed", "context": { "cluster": "testbed", "user": "testbed" } }],
        "current-context": "testbed",
    });
    format!("{file:#}\n")
}

/// RFC 4648 section 4, with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let [first, second, third] = [0, 1, 2].map(|it| chunk.get(it).copied().unwrap_or(0));
        let word = u32::from_be_bytes([0, first, second, third]);
        for index in 0..4 {
            if index <= chunk.len() {
                let six_bits = (word >> (18 - 6 * index)) & 0x3f;
                text.push(char::from(ALPHABET[six_bits as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_agrees_with_the_examples_of_rfc_4648() {
        let examples = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (plain, encoded) in examples {
            assert_eq!(base64(plain.as_bytes()), encoded, "{plain}");
        }
    }
}
