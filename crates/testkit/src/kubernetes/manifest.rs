//! Manifests: YAML with any number of objects, applied as `kubectl apply --server-side` does.

use std::time::Duration;

use anyhow::Context as _;
use kube::api::{Patch, PatchParams};
use kube::core::{DynamicObject, GroupVersionKind};
use kube::discovery::{ApiCapabilities, ApiResource, Scope};
use kube::{Api, Client, ResourceExt as _};

use super::deadline::until_ok;

/// How long a kind may take to be served after its definition was applied.
const KIND_SERVED_LIMIT: Duration = Duration::from_secs(10);

/// Applies every object of `text`, in its order, and returns them as the server stored them.
pub(super) async fn apply(client: &Client, text: &str) -> anyhow::Result<Vec<DynamicObject>> {
    let mut applied = Vec::new();
    for object in parse(text)? {
        let types = object.types.as_ref().context("an object without apiVersion and kind")?;
        let kind =
            GroupVersionKind::try_from(types).context("an apiVersion that cannot be read")?;
        let (resource, capabilities) = served(client, &kind).await?;
        let api = scoped(client, &object, &resource, &capabilities);
        let name = object.name_any();
        let stored =
            api.patch(&name, &PatchParams::apply("testkit").force(), &Patch::Apply(&object)).await;
        applied.push(stored.with_context(|| format!("cannot apply {} {name}", kind.kind))?);
    }
    Ok(applied)
}

fn parse(text: &str) -> anyhow::Result<Vec<DynamicObject>> {
    let documents: Vec<serde_json::Value> =
        serde_saphyr::from_multiple(text).context("the manifest is not YAML")?;
    let documents = documents.into_iter().filter(|it| !it.is_null());
    let objects: Vec<DynamicObject> = documents
        .map(|it| serde_json::from_value(it).context("a document is not a Kubernetes object"))
        .collect::<Result<_, _>>()?;
    anyhow::ensure!(!objects.is_empty(), "the manifest holds no object");
    Ok(objects)
}

/// Asks the server for a kind, and waits for it: a definition is served a moment after it was created.
async fn served(
    client: &Client,
    kind: &GroupVersionKind,
) -> anyhow::Result<(ApiResource, ApiCapabilities)> {
    let what = format!("the kind {} {} to be served", kind.api_version(), kind.kind);
    until_ok(&what, KIND_SERVED_LIMIT, async || {
        Ok(kube::discovery::pinned_kind(client, kind).await.ok())
    })
    .await
}

fn scoped(
    client: &Client,
    object: &DynamicObject,
    resource: &ApiResource,
    capabilities: &ApiCapabilities,
) -> Api<DynamicObject> {
    match capabilities.scope {
        Scope::Cluster => Api::all_with(client.clone(), resource),
        Scope::Namespaced => {
            let namespace = object.namespace().unwrap_or_else(|| "default".to_owned());
            Api::namespaced_with(client.clone(), &namespace, resource)
        }
    }
}
