//! The shipped role: what it grants, and that it grants nothing else. That it is enough, every
//! other test here shows, because they have it.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::Result;
use expect_test::expect;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::Api;
use kube::api::PostParams;
use serde_json::Value;

use crate::site::{ROLE, Site};

#[test]
fn x_09_the_role_is_written_out_and_has_no_wildcard() {
    assert!(!ROLE.contains('*'), "a wildcard");
    let mut text = String::new();
    for document in ROLE.split("\n---\n") {
        let role: Value = serde_saphyr::from_str(document).expect("YAML");
        let Some(rules) = role["rules"].as_array() else { continue };
        for rule in rules {
            let list = |field: &str| {
                let values = rule[field].as_array().into_iter().flatten();
                values.filter_map(Value::as_str).collect::<Vec<_>>().join(",")
            };
            let names = list("resourceNames");
            let _ = writeln!(
                text,
                "{}: {} {} in {:?}{}{names}",
                role["kind"].as_str().unwrap_or_default(),
                list("verbs"),
                list("resources"),
                list("apiGroups"),
                if names.is_empty() { "" } else { " named " },
            );
        }
    }
    expect![[r#"
        ClusterRole: list,watch services,pods,nodes in ""
        ClusterRole: list,watch endpointslices in "discovery.k8s.io"
        ClusterRole: list,watch hosts in "portcullis.dev"
        ClusterRole: patch services/status in ""
        ClusterRole: patch hosts/status in "portcullis.dev"
        ClusterRole: create,patch events in "events.k8s.io"
        Role: create leases in "coordination.k8s.io"
        Role: get,update leases in "coordination.k8s.io" named portcullis
        Role: get secrets in "" named portcullis-ssh
    "#]]
    .assert_eq(&text);
}

#[tokio::test]
async fn x_09_the_role_grants_nothing_else() -> Result<()> {
    let Some(site) = Site::shared().await? else { return Ok(()) };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(site.controller.clone());
    let mut granted = BTreeSet::new();
    let own = "portcullis";
    for (group, resource_path, name) in [
        ("", "services", ""),
        ("", "services/status", ""),
        ("", "pods", ""),
        ("", "pods/exec", ""),
        ("", "nodes", ""),
        ("", "nodes/status", ""),
        ("", "secrets", ""),
        ("", "secrets", "portcullis-ssh"),
        ("", "configmaps", ""),
        ("", "events", ""),
        ("", "namespaces", ""),
        ("apps", "deployments", ""),
        ("coordination.k8s.io", "leases", ""),
        ("coordination.k8s.io", "leases", "portcullis"),
        ("discovery.k8s.io", "endpointslices", ""),
        ("events.k8s.io", "events", ""),
        ("portcullis.dev", "hosts", ""),
        ("portcullis.dev", "hosts/status", ""),
        ("rbac.authorization.k8s.io", "clusterroles", ""),
    ] {
        for verb in ["get", "list", "watch", "create", "update", "patch", "delete"] {
            for namespace in [own, "kube-system"] {
                let some = |it: &str| Some(it.to_owned()).filter(|it| !it.is_empty());
                let (resource, subresource) =
                    resource_path.split_once('/').unwrap_or((resource_path, ""));
                let attributes = ResourceAttributes {
                    group: Some(group.to_owned()),
                    resource: Some(resource.to_owned()),
                    subresource: some(subresource),
                    name: some(name),
                    namespace: Some(namespace.to_owned()),
                    verb: Some(verb.to_owned()),
                    ..Default::default()
                };
                let review = SelfSubjectAccessReview {
                    spec: SelfSubjectAccessReviewSpec {
                        resource_attributes: Some(attributes),
                        ..Default::default()
                    },
                    ..Default::default()
                };
                let review = reviews.create(&PostParams::default(), &review).await?;
                if review.status.is_some_and(|it| it.allowed) {
                    let place = if namespace == own { "at home" } else { "everywhere" };
                    let what = [group, resource_path, name].join(" ");
                    granted.insert((what.trim().to_owned(), verb, place));
                }
            }
        }
    }
    // What is granted everywhere is granted at home as well.
    let everywhere = granted.clone();
    granted.retain(|(what, verb, place)| {
        *place == "everywhere" || !everywhere.contains(&(what.clone(), verb, "everywhere"))
    });
    let text: String =
        granted.iter().map(|(what, verb, place)| format!("{what}: {verb} {place}\n")).collect();
    expect![[r#"
        coordination.k8s.io leases: create at home
        coordination.k8s.io leases portcullis: create at home
        coordination.k8s.io leases portcullis: get at home
        coordination.k8s.io leases portcullis: update at home
        discovery.k8s.io endpointslices: list everywhere
        discovery.k8s.io endpointslices: watch everywhere
        events.k8s.io events: create everywhere
        events.k8s.io events: patch everywhere
        nodes: list everywhere
        nodes: watch everywhere
        pods: list everywhere
        pods: watch everywhere
        portcullis.dev hosts: list everywhere
        portcullis.dev hosts: watch everywhere
        portcullis.dev hosts/status: patch everywhere
        secrets portcullis-ssh: get at home
        services: list everywhere
        services: watch everywhere
        services/status: patch everywhere
    "#]]
    .assert_eq(&text);
    Ok(())
}
