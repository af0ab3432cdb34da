//! What the cluster allows and has: the API, the CRD, our permissions.

use api::host::Host;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};

use super::Check;
use crate::connection::ConnectionOptions;

const AREA: &str = "cluster";
const INSTALL: &str = "portcullis install manifests | kubectl apply -f -";

/// The name of the lease and of the namespace that it is in.
const LEASE: &str = "portcullis";

/// What the controller does in a cluster: group, resource, subresource, verbs.
const NEEDS: [(&str, &str, Option<&str>, &[&str]); 9] = [
    ("", "services", None, &["list", "watch"]),
    ("", "nodes", None, &["list", "watch"]),
    ("", "pods", None, &["list", "watch"]),
    ("discovery.k8s.io", "endpointslices", None, &["list", "watch"]),
    ("portcullis.dev", "hosts", None, &["list", "watch"]),
    ("portcullis.dev", "hosts", Some("status"), &["patch"]),
    ("", "services", Some("status"), &["patch"]),
    ("events.k8s.io", "events", None, &["create", "patch"]),
    ("coordination.k8s.io", "leases", None, &["create", "get", "update"]),
];

/// Looks at the API server, the CRD and the permissions of the account that runs this.
pub(super) async fn look(connection: &ConnectionOptions) -> Vec<Check> {
    let client = match connection.client().await {
        Ok(client) => client,
        Err(error) => {
            let remedy = "name a kubeconfig with --kubeconfig";
            return vec![Check::failure(AREA, "kubeconfig", format!("{error:#}"), remedy)];
        }
    };
    let mut checks = Vec::new();
    match client.apiserver_version().await {
        Ok(version) => {
            checks.push(version_check(&version.major, &version.minor, &version.git_version))
        }
        Err(error) => {
            let remedy = "see that `kubectl version` works with the same kubeconfig";
            checks.push(Check::failure(AREA, "API server", error.to_string(), remedy));
            return checks;
        }
    }
    checks.push(custom_resource(&client).await);
    checks.extend(permissions(&client).await);
    checks
}

fn version_check(major: &str, minor: &str, version: &str) -> Check {
    const NAME: &str = "API server";
    let minor = minor.trim_end_matches(|it: char| !it.is_ascii_digit());
    match (major, minor.parse::<u32>()) {
        ("1", Ok(minor)) if minor < 31 => Check::warning(
            AREA,
            NAME,
            format!("{version} is older than 1.31"),
            "the rules of the Host CRD need 1.31; update the cluster, or declare hosts by flags",
        ),
        _ => Check::ok(AREA, NAME, version),
    }
}

async fn custom_resource(client: &Client) -> Check {
    const NAME: &str = "Host objects";
    let hosts: Api<Host> = Api::all(client.clone());
    match hosts.list(&ListParams::default().limit(1)).await {
        Ok(_) => Check::ok(AREA, NAME, "the CRD is installed"),
        Err(kube::Error::Api(status)) if status.code == 404 => {
            Check::failure(AREA, NAME, "the CRD hosts.portcullis.dev is not installed", INSTALL)
        }
        Err(error) => Check::warning(AREA, NAME, error.to_string(), INSTALL),
    }
}

async fn permissions(client: &Client) -> Vec<Check> {
    const NAME: &str = "permissions";
    let mut denied = Vec::new();
    for (group, resource, subresource, verbs) in NEEDS {
        for verb in verbs {
            let name = match subresource {
                Some(subresource) => format!("{verb} {resource}/{subresource}"),
                None => format!("{verb} {resource}"),
            };
            match allowed(client, group, resource, subresource, verb).await {
                Ok(true) => {}
                Ok(false) => denied.push(name),
                Err(error) => {
                    let remedy = "see that the API server answers";
                    return vec![Check::warning(AREA, NAME, error.to_string(), remedy)];
                }
            }
        }
    }
    if denied.is_empty() {
        return vec![Check::ok(AREA, NAME, "everything that the controller does is allowed")];
    }
    vec![Check::failure(
        AREA,
        NAME,
        format!("this account may not: {}", denied.join(", ")),
        format!("{INSTALL}; or run this with the controller's own account"),
    )]
}

async fn allowed(
    client: &Client,
    group: &str,
    resource: &str,
    subresource: Option<&str>,
    verb: &str,
) -> kube::Result<bool> {
    // The controller keeps one lease; a rule about creation cannot name it.
    let lease = (resource == "leases").then(|| LEASE.to_owned());
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                group: Some(group.to_owned()),
                resource: Some(resource.to_owned()),
                subresource: subresource.map(str::to_owned),
                verb: Some(verb.to_owned()),
                name: lease.clone().filter(|_| verb != "create"),
                namespace: lease,
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let answer = reviews.create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|it| it.allowed))
}
