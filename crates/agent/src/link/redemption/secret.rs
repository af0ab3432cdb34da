//! A one-time secret in a Secret.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use super::{Kept, Place, Terms, one_time_secret};

const EXPIRES: &str = "expires";
const REDEMPTIONS: &str = "redemptions";
const REDEEMED_BY: &str = "redeemedBy";
const REDEEMED_AT: &str = "redeemedAt";

/// A Secret at the version that was read.
pub(super) struct Found {
    api: Api<Secret>,
    namespace: String,
    name: String,
    version: Option<String>,
}

/// Reads the secret and how often it may still be used.
pub(super) async fn read(
    client: Option<&Client>,
    [namespace, name, key]: [&str; 3],
) -> Result<Kept, String> {
    let Some(client) = client else {
        return Err("there are no Secrets without a cluster; name a file".to_owned());
    };
    let api = Api::<Secret>::namespaced(client.clone(), namespace);
    let secret = api.get(name).await;
    let secret = secret.map_err(|error| {
        format!("cannot read Secret {namespace}/{name}: {}", super::super::dial::chain(&error))
    })?;
    let data = secret.data.unwrap_or_default();
    let value = |key: &str| text(&data, key);
    let Some(text) = value(key) else {
        return Err(format!("Secret {namespace}/{name} has no text under the key `{key}`"));
    };
    let place = |error| format!("Secret {namespace}/{name}: {error}");
    let one_time = one_time_secret(text).map_err(place)?;
    let mut terms = Terms::parse(value(EXPIRES), value(REDEMPTIONS)).map_err(place)?;
    let at = value(REDEEMED_AT).and_then(|it| it.parse::<Timestamp>().ok());
    terms.last = value(REDEEMED_BY).map(str::to_owned).zip(at);
    let found = Found {
        api,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        version: secret.metadata.resource_version,
    };
    Ok(Kept { secret: one_time, terms, place: Place::Secret(Box::new(found)) })
}

fn text<'a>(data: &'a BTreeMap<String, ByteString>, key: &str) -> Option<&'a str> {
    data.get(key).and_then(|it| std::str::from_utf8(&it.0).ok())
}

impl Found {
    /// Burns one of the uses that were `left`, unless anybody has changed the Secret since.
    pub(super) async fn burn(&self, left: u32, agent: &str, now: Timestamp) -> Result<(), String> {
        let patch = json!({
            "metadata": { "resourceVersion": self.version },
            "stringData": {
                REDEMPTIONS: left.saturating_sub(1).to_string(),
                REDEEMED_BY: agent,
                REDEEMED_AT: now.to_string(),
            },
        });
        let (parameters, patch) = (PatchParams::default(), Patch::Merge(&patch));
        match self.api.patch(&self.name, &parameters, &patch).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                Err(format!("somebody else has just used {self}"))
            }
            Err(error) => {
                Err(format!("cannot note it in {self}: {}", super::super::dial::chain(&error)))
            }
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret {}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use testkit::kubernetes::ControlPlane;
    use tunnel::trust::OneTimeSecret;

    use super::*;

    #[tokio::test]
    async fn of_agents_that_burn_the_last_use_at_the_same_moment_one_succeeds() {
        let Some(()) = testkit::require(ControlPlane::available()) else { return };
        let _ours_or_theirs = tunnel::trust::provider().as_ref().clone().install_default();
        let plane = tokio::task::spawn_blocking(ControlPlane::shared).await.expect("no panic");
        let plane = plane.expect("a control plane");
        let namespace = plane.namespace().await.expect("a namespace");
        let client = plane.client().await.expect("a client");
        let secret = OneTimeSecret::generate().expect("randomness");
        let object = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "fra1" },
            "stringData": { "secret": secret.reveal(), "redemptions": "2" },
        });
        let object: Secret = serde_json::from_value(object).expect("a Secret");
        let api = Api::<Secret>::namespaced(client.clone(), &namespace);
        api.create(&kube::api::PostParams::default(), &object).await.expect("created");

        for left in [2, 1] {
            let mut found = Vec::new();
            for _ in 0..8 {
                let kept = read(Some(&client), [&namespace, "fra1", "secret"]).await;
                let kept = kept.expect("a secret");
                assert_eq!(kept.terms.left, left);
                found.push(kept);
            }
            let burns = found
                .iter()
                .enumerate()
                .map(|(number, it)| async move { it.burn(&format!("agent-{number}")).await });
            let burnt = futures::future::join_all(burns).await;
            assert_eq!(burnt.iter().filter(|it| it.is_ok()).count(), 1, "{left} left: {burnt:?}");
        }
        let kept = read(Some(&client), [&namespace, "fra1", "secret"]).await.expect("a secret");
        assert_eq!(kept.terms.left, 0);
        assert!(kept.terms.last.is_some_and(|it| it.0.starts_with("agent-")));
        assert_eq!(kept.secret, secret, "nothing else has changed");
    }
}
