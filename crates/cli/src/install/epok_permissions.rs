//! What Epok's account lacks: its role knew Nodes and Services, and so Epok never saw a Pod.

use api::name::ObjectName;
use clap::Args;

use super::{Document, replace};
use crate::ending::Result;

const CUSTOM_RESOURCES: &str = include_str!("../../../../deploy/crds/hosts.portcullis.dev.yaml");
const PERMISSIONS: &str = include_str!("../../../../deploy/kubernetes/epok-permissions.yaml");

/// Whose permissions.
#[derive(Args, Debug)]
pub(crate) struct EpokPermissionsArguments {
    /// The account that Epok's Deployment runs with, as NAMESPACE/NAME
    #[arg(long, value_name = "ACCOUNT", default_value = "epok/epok", value_parser = account)]
    account: (String, String),
}

/// Returns the role and its binding.
pub(super) fn document(arguments: &EpokPermissionsArguments) -> Result<Document> {
    let (namespace, name) = &arguments.account;
    let subject = format!("    name: {name}\n    namespace: {namespace}\n");
    let text = replace(PERMISSIONS, "    name: epok\n    namespace: epok\n", &subject)?;
    Ok(Document {
        kind: "epokPermissions",
        place: "the cluster".to_owned(),
        text: format!("{}\n---\n{text}", CUSTOM_RESOURCES.trim_end()),
        steps: vec![
            "apply them: portcullis install epok-permissions | kubectl apply -f -".to_owned(),
            "then put this program's image into Epok's Deployment; arguments and environment stay, \
             and EPOK_SSH_HOST_KEY has to be added"
                .to_owned(),
        ],
    })
}

fn account(text: &str) -> Result<(String, String), String> {
    let name = |it: &str| it.parse::<ObjectName>().map(|it| it.to_string());
    let parts = text.split_once('/').and_then(|(a, b)| Some((name(a).ok()?, name(b).ok()?)));
    parts.ok_or_else(|| "expected NAMESPACE/NAME, as in epok/epok".to_owned())
}
