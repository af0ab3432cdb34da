//! Everything that publishing needs in a cluster: the custom resource, permissions, agents.

use clap::Args;

use super::manifests::{IMAGE, image};
use super::{Document, replace};
use crate::ending::Result;

const CUSTOM_RESOURCE: &str =
    include_str!("../../../../deploy/crds/edgegateways.portcullis.dev.yaml");
const PERMISSIONS: &str = include_str!("../../../../deploy/agent/rbac.yaml");
const CERTIFICATES: &str = include_str!("../../../../deploy/agent/certificates.yaml");
const DEPLOYMENT: &str = include_str!("../../../../deploy/agent/deployment.yaml");
const GATEWAY_CLASS: &str = include_str!("../../../../deploy/agent/gateway-class.yaml");
const HOST_NETWORK: &str = include_str!("../../../../deploy/agent/host-network.yaml");

/// What to fill in.
#[derive(Args, Debug)]
pub(crate) struct AgentArguments {
    /// The container image
    #[arg(long, value_name = "IMAGE", default_value = IMAGE, value_parser = image)]
    image: String,

    /// How many agents; all of them work
    #[arg(long, value_name = "COUNT", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=99), conflicts_with = "host_network")]
    replicas: u8,

    /// One agent on each node, in the node's own network: for backends that see visitors' own
    /// addresses, and with --allow-host-target for programs on the node itself
    #[arg(long)]
    host_network: bool,

    /// Let Services lead to programs on the nodes' own 127.0.0.1 (portcullis.dev/target: host)
    #[arg(long, requires = "host_network")]
    allow_host_target: bool,

    /// Leave the pods' kernel settings as they are, for Kubernetes before 1.32, which refuses the pods
    /// otherwise; connections over long paths are slower then
    #[arg(long, conflicts_with = "host_network")]
    no_sysctls: bool,

    /// Let agents read certificates, for listeners that end TLS: allows to read every Secret of the
    /// cluster
    #[arg(long)]
    certificates: bool,

    /// Leave out the GatewayClass portcullis: for a cluster without the Gateway API, which has no such
    /// kind, or with classes of your own
    #[arg(long)]
    no_gateway_class: bool,
}

/// Returns all manifests as one stream of documents.
pub(super) fn document(arguments: &AgentArguments) -> Result<Document> {
    let agents = if arguments.host_network {
        HOST_NETWORK.to_owned()
    } else {
        let replicas = format!("replicas: {}\n", arguments.replicas);
        let deployment = replace(DEPLOYMENT, "replicas: 2\n", &replicas)?;
        if arguments.no_sysctls { without_sysctls(&deployment)? } else { deployment }
    };
    let mut agents = replace(&agents, IMAGE, &arguments.image)?;
    if arguments.allow_host_target {
        agents = replace(&agents, "[\"agent\", ", "[\"agent\", \"--allow-host-target\", ")?;
    }
    let certificates = arguments.certificates.then_some(CERTIFICATES);
    // Last, so that a cluster that does not know the kind takes all the others.
    let class = (!arguments.no_gateway_class).then_some(GATEWAY_CLASS);
    let parts = [Some(CUSTOM_RESOURCE), Some(PERMISSIONS), certificates, Some(&*agents), class];
    let parts: Vec<_> =
        parts.into_iter().flatten().map(|it| it.trim_start_matches("---\n").trim_end()).collect();
    let mut steps = vec![
        "apply them: portcullis install agent | kubectl apply -f -".to_owned(),
        "declare a gateway: portcullis gateway create NAME --endpoint HOST > user-data".to_owned(),
        "publish: spec.loadBalancerClass: portcullis.dev/gateway, or a Gateway of class portcullis"
            .to_owned(),
    ];
    if arguments.host_network {
        let allow = "allow it: kubectl label namespace portcullis-system \
                     pod-security.kubernetes.io/enforce=privileged --overwrite";
        steps.insert(1, allow.to_owned());
        let windows = "for long paths, on each node: save `portcullis install gateway --format sysctl` \
                       as /etc/sysctl.d/60-portcullis.conf, then sysctl --system";
        steps.insert(2, windows.to_owned());
    }
    Ok(Document {
        kind: "agent",
        place: "the cluster".to_owned(),
        text: format!("{}\n", parts.join("\n---\n")),
        steps,
    })
}

/// Takes out of the Deployment what sets windows, with its comment.
fn without_sysctls(deployment: &str) -> Result<String> {
    const BEGIN: &str = "        # One connection over";
    const END: &str = "      containers:\n";
    let part = deployment.find(BEGIN).zip(deployment.find(END));
    let part = part.and_then(|(begin, end)| deployment.get(begin..end)).unwrap_or(BEGIN);
    replace(deployment, part, "")
}
