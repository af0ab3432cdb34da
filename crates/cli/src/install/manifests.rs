//! Everything that a cluster needs: custom resources, permissions, Deployment.

use clap::Args;

use super::{Document, replace};
use crate::ending::Result;

const CUSTOM_RESOURCES: [&str; 2] = [
    include_str!("../../../../deploy/crds/hosts.portcullis.dev.yaml"),
    include_str!("../../../../deploy/crds/edgegateways.portcullis.dev.yaml"),
];
const PERMISSIONS: &str = include_str!("../../../../deploy/rbac/controller.yaml");
const DEPLOYMENT: &str = include_str!("../../../../deploy/kubernetes/deployment.yaml");

/// The image of this very version, as the documents name it.
pub(super) const IMAGE: &str = concat!("portcullis:", env!("CARGO_PKG_VERSION"));

/// What to fill in.
#[derive(Args, Debug)]
pub(crate) struct ManifestsArguments {
    /// The container image
    #[arg(long, value_name = "IMAGE", default_value = IMAGE, value_parser = image)]
    image: String,

    /// How many replicas; one leads, the others stand by
    #[arg(long, value_name = "COUNT", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=9))]
    replicas: u8,
}

/// Returns all manifests as one stream of documents.
pub(super) fn document(arguments: &ManifestsArguments) -> Result<Document> {
    let deployment = replace(DEPLOYMENT, IMAGE, &arguments.image)?;
    let replicas = format!("replicas: {}\n", arguments.replicas);
    let deployment = replace(&deployment, "replicas: 2\n", &replicas)?;
    let [hosts, gateways] = CUSTOM_RESOURCES;
    let parts = [hosts, gateways, PERMISSIONS, &deployment];
    let parts = parts.map(|it| it.trim_start_matches("---\n").trim_end());
    Ok(Document {
        kind: "manifests",
        place: "the cluster".to_owned(),
        text: format!("{}\n", parts.join("\n---\n")),
        steps: vec![
            "apply them: portcullis install manifests | kubectl apply -f -".to_owned(),
            "for Hosts over SSH: kubectl create secret generic portcullis-ssh -n portcullis \
             --from-file=ssh-privatekey=KEY"
                .to_owned(),
            "write a Host object for each machine that forwards: kubectl explain host.spec"
                .to_owned(),
        ],
    })
}

/// Accepts the reference of an image: what needs no quoting in YAML.
pub(super) fn image(text: &str) -> Result<String, String> {
    let known = |it: char| it.is_ascii_alphanumeric() || "/-_.:@".contains(it);
    let begins = text.starts_with(|it: char| it.is_ascii_alphanumeric());
    if begins && text.len() <= 255 && text.chars().all(known) && !text.ends_with(':') {
        return Ok(text.to_owned());
    }
    Err("expected an image, as in registry.example.com/portcullis:1.0".to_owned())
}
