//! The EdgeGateway and its one-time secret, in a cluster or in files.

use std::path::Path;
use std::time::SystemTime;

use anyhow::Context as _;
use api::edge_gateway::{AdoptionSecretRef, AdoptionSpec, EdgeGateway};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use tunnel::trust::{NAMESPACE, OneTimeSecret};

use super::super::authority::{MANAGER, namespace, write_secret};
use super::super::list::UNKNOWN;
use super::{absolute, timestamp};
use crate::ending::Result;
use crate::manifest;

/// The key in the Secret's data.
const KEY: &str = "secret";

/// What the cluster keeps for the adoption.
pub(super) struct Kept<'a> {
    pub(super) secret: &'a OneTimeSecret,
    pub(super) expires: SystemTime,
    pub(super) redemptions: u32,
}

/// Writes manifest and secret; a manifest that is there stays. Returns what to say about it.
pub(super) fn write(
    object: &mut EdgeGateway,
    manifests: &Path,
    secrets: &Path,
    kept: &Kept<'_>,
) -> Result<Vec<String>> {
    let name = object.name_any();
    let secret = absolute(secrets)?.join(format!("{name}.secret"));
    let terms =
        format!("expires: {}\nredemptions: {}\n", timestamp(kept.expires), kept.redemptions);
    write_secret(&secret, &format!("{}\n{terms}", kept.secret.reveal()))?;
    object.spec.adoption = Some(AdoptionSpec {
        secret_file: Some(secret.display().to_string()),
        ..AdoptionSpec::default()
    });
    let path = manifests.join(format!("{name}.yaml"));
    let mut noted = vec![format!("the one-time secret is in {}", secret.display())];
    if path.exists() {
        noted.push(format!(
            "{} is there already and stays as it is; its adoption.secretFile should name that file",
            path.display()
        ));
        return Ok(noted);
    }
    let draft = manifests.join(format!(".{name}.yaml.new"));
    let text = manifest::yaml(object)?;
    std::fs::write(&draft, text)
        .and_then(|()| std::fs::rename(&draft, &path))
        .with_context(|| format!("cannot write {}", path.display()))?;
    noted.push(format!("the gateway is declared in {}", path.display()));
    Ok(noted)
}

/// Fails when the cluster does not know the kind: then nothing should be written there.
pub(super) async fn must_be_known(client: &Client) -> Result<()> {
    let gateways = Api::<EdgeGateway>::all(client.clone());
    gateways.list(&ListParams::default().limit(1)).await.context(UNKNOWN)?;
    Ok(())
}

/// Applies secret and object; of an object that is there only the adoption changes. Returns what to
/// say about it.
pub(super) async fn apply(
    object: &mut EdgeGateway,
    client: &Client,
    kept: &Kept<'_>,
) -> Result<Vec<String>> {
    let name = object.name_any();
    let gateways = Api::<EdgeGateway>::all(client.clone());
    namespace(client).await?;
    let secret_name = format!("portcullis-gateway-{name}");
    let secret = secret(&secret_name, kept);
    let secrets = Api::<Secret>::namespaced(client.clone(), NAMESPACE);
    secrets
        .patch(&secret_name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&secret))
        .await
        .with_context(|| format!("cannot write Secret {NAMESPACE}/{secret_name}"))?;
    object.spec.adoption = Some(AdoptionSpec {
        secret_ref: Some(AdoptionSecretRef {
            namespace: NAMESPACE.to_owned(),
            name: secret_name.clone(),
            key: KEY.to_owned(),
        }),
        ..AdoptionSpec::default()
    });
    let declared = match gateways.create(&PostParams::default(), object).await {
        Ok(_) => format!("EdgeGateway {name} is declared"),
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let adoption = serde_json::json!({ "spec": { "adoption": object.spec.adoption } });
            gateways
                .patch(&name, &PatchParams::default(), &Patch::Merge(&adoption))
                .await
                .with_context(|| format!("cannot change EdgeGateway {name}"))?;
            format!("EdgeGateway {name} was there already: only its one-time secret is new")
        }
        Err(error) => {
            return Err(error).with_context(|| format!("cannot make EdgeGateway {name}"));
        }
    };
    Ok(vec![declared, format!("the one-time secret is in Secret {NAMESPACE}/{secret_name}")])
}

fn secret(name: &str, kept: &Kept<'_>) -> Secret {
    // Agents count `redemptions` down. That a use of the secret before this one is under way must
    // hold nobody up.
    let values = [
        (KEY, kept.secret.reveal()),
        ("expires", timestamp(kept.expires)),
        ("redemptions", kept.redemptions.to_string()),
        ("redeemedBy", String::new()),
        ("redeemedAt", String::new()),
    ];
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        data: Some(
            values.map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes()))).into(),
        ),
        ..Secret::default()
    }
}
