//! The EdgeGateway and its one-time secret, in a cluster or in files.

use std::path::Path;
use std::time::SystemTime;

use anyhow::Context as _;
use api::edge_gateway::{AdoptionSecretRef, AdoptionSpec, EdgeGateway};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
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

/// The account of agents, as `install agent` makes it.
const AGENTS: &str = "portcullis-agent";

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
        noted.push(stays(&path, &secret));
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

/// What to say about a manifest that is there already: it is somebody's own, with comments, so it is
/// not written again.
fn stays(path: &Path, secret: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let object = serde_saphyr::from_str::<EdgeGateway>(&text).ok();
    let adoption = object.and_then(|it| it.spec.adoption).unwrap_or_default();
    let (path, wanted) = (path.display(), secret.display());
    let (wrong, remedy) = match (adoption.secret_ref, adoption.secret_file) {
        (None, Some(file)) if Path::new(&file) == secret => {
            return format!("{path} is there already and stays as it is");
        }
        (None, Some(file)) => (format!("names {file}"), format!("write {wanted} instead")),
        (Some(other), None) => (
            format!("names Secret {}/{} (secretRef)", other.namespace, other.name),
            format!("write secretFile: {wanted} instead of secretRef"),
        ),
        (Some(other), Some(file)) => (
            format!("names both Secret {}/{} and {file}", other.namespace, other.name),
            format!("take secretRef out and write secretFile: {wanted}"),
        ),
        (None, None) => ("names no secret".to_owned(), format!("write secretFile: {wanted}")),
    };
    format!(
        "{path} is there already and stays as it is, but its spec.adoption {wrong}: agents will not \
         find the new secret; {remedy}"
    )
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
    let_agents_read(client, &secret_name).await?;
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
            let before =
                gateways.get(&name).await.with_context(|| format!("EdgeGateway {name}"))?;
            let file = before.spec.adoption.and_then(|it| it.secret_file);
            // Of the two sources there must be one, and a merge alone would leave the other.
            let mut adoption = serde_json::json!({ "spec": { "adoption": object.spec.adoption } });
            adoption["spec"]["adoption"]["secretFile"] = serde_json::Value::Null;
            gateways
                .patch(&name, &PatchParams::default(), &Patch::Merge(&adoption))
                .await
                .with_context(|| format!("cannot change EdgeGateway {name}"))?;
            match file {
                Some(file) => format!(
                    "EdgeGateway {name} was there already: only its one-time secret is new; \
                     adoption.secretFile {file} is taken out, secretRef counts instead"
                ),
                None => {
                    format!("EdgeGateway {name} was there already: only its one-time secret is new")
                }
            }
        }
        Err(error) => {
            return Err(error).with_context(|| format!("cannot make EdgeGateway {name}"));
        }
    };
    Ok(vec![declared, format!("the one-time secret is in Secret {NAMESPACE}/{secret_name}")])
}

/// Lets agents read this Secret and count its uses there. They may read no other one-time secret, and
/// a role cannot name Secrets by pattern, so each gateway has a Role.
async fn let_agents_read(client: &Client, secret: &str) -> Result<()> {
    let metadata = serde_json::json!({ "name": secret, "namespace": NAMESPACE });
    let role: Role = serde_json::from_value(serde_json::json!({
        "metadata": metadata,
        "rules": [{
            "apiGroups": [""], "resources": ["secrets"], "resourceNames": [secret],
            "verbs": ["get", "patch"],
        }],
    }))?;
    let binding: RoleBinding = serde_json::from_value(serde_json::json!({
        "metadata": metadata,
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": secret },
        "subjects": [{ "kind": "ServiceAccount", "name": AGENTS, "namespace": NAMESPACE }],
    }))?;
    let parameters = PatchParams::apply(MANAGER).force();
    let roles = Api::<Role>::namespaced(client.clone(), NAMESPACE);
    let bindings = Api::<RoleBinding>::namespaced(client.clone(), NAMESPACE);
    let failed = || format!("cannot let agents read Secret {NAMESPACE}/{secret}");
    roles.patch(secret, &parameters, &Patch::Apply(&role)).await.with_context(failed)?;
    bindings.patch(secret, &parameters, &Patch::Apply(&binding)).await.with_context(failed)?;
    Ok(())
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
