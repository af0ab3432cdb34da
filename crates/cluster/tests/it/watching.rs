//! Watching a real API server, with the shipped role.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use api::object::{ObjectKind, ObjectRef};
use cluster::kubernetes::watch;
use cluster::report::Seen;
use cluster::source::{Place, State};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use planner::cluster_view::Object;
use serde_json::{Value, json};
use testkit::kubernetes::{ControlPlane, ControlPlaneOptions};
use testkit::require;

use crate::site::{self, Follower, Site, quick};

#[tokio::test]
async fn the_first_list_is_complete_before_anything_is_delivered() -> Result<()> {
    let Some(site) = Site::shared().await? else { return Ok(()) };
    create_services(&site.admin, &site.namespace, 250).await?;

    let seen = Arc::new(Seen::default());
    let mut follower = Follower::new(watch(&site.controller, &quick(), &seen));
    follower.until("every kind is listed", |it| it.health().is_complete()).await?;
    follower.until("Services are there", |it| it.resets.contains_key(&ObjectKind::Service)).await?;

    // Three pages, one set; and nothing that asks nothing of us.
    assert_eq!(follower.count(ObjectKind::Service, &site.namespace), 250);
    assert_eq!(follower.resets[&ObjectKind::Service], 1);
    assert!(!follower.has(&ObjectRef::namespaced(ObjectKind::Service, "default", "kubernetes")));
    Ok(())
}

#[tokio::test]
async fn what_changes_afterwards_is_delivered_one_by_one() -> Result<()> {
    let Some(site) = Site::shared().await? else { return Ok(()) };
    let seen = Arc::new(Seen::default());
    let mut follower = Follower::new(watch(&site.controller, &quick(), &seen));
    follower.until("every kind is followed", |it| it.health().is_current()).await?;

    let services: Api<Service> = Api::namespaced(site.admin.clone(), &site.namespace);
    let blog = site.object(ObjectKind::Service, "blog");
    services.create(&PostParams::default(), &service("blog", &json!({}))?).await?;
    let asks = json!({ "metadata": { "annotations": { "portcullis.dev/host-ports": "443" } } });
    services.patch("blog", &PatchParams::default(), &Patch::Merge(&asks)).await?;
    follower.until("blog asks", |it| it.has(&blog)).await?;

    let asks_not = json!({ "metadata": { "annotations": { "portcullis.dev/host-ports": null } } });
    services.patch("blog", &PatchParams::default(), &Patch::Merge(&asks_not)).await?;
    follower.until("blog asks no more", |it| !it.has(&blog)).await?;

    services.patch("blog", &PatchParams::default(), &Patch::Merge(&asks)).await?;
    follower.until("blog asks again", |it| it.has(&blog)).await?;
    services.delete("blog", &DeleteParams::default()).await?;
    follower.until("blog is deleted", |it| !it.has(&blog)).await?;
    assert!(follower.resets.values().all(|it| *it == 1), "{:?}", follower.resets);
    Ok(())
}

#[tokio::test]
async fn of_each_object_only_what_planning_reads_is_kept() -> Result<()> {
    let Some(site) = Site::shared().await? else { return Ok(()) };
    let name = format!("node-{}", site.namespace);
    let nodes: Api<Node> = Api::all(site.admin.clone());
    let node = json!({ "metadata": { "name": name, "labels": { "a": "b", "epok_exclude": "" } } });
    nodes.create(&PostParams::default(), &serde_json::from_value(node)?).await?;
    let status = json!({ "status": {
        "addresses": [{ "type": "InternalIP", "address": "10.0.0.1" }],
        "conditions": [
            { "type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z" },
            { "type": "DiskPressure", "status": "False" },
        ],
        "images": [{ "names": ["x"], "sizeBytes": 1 }],
    }});
    nodes.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await?;
    let pods: Api<Pod> = Api::namespaced(site.admin.clone(), &site.namespace);
    let pod = |name: &str, annotations: Value| {
        let metadata = json!({ "name": name, "annotations": annotations });
        let spec = json!({ "containers": [{ "name": "c", "image": "i" }] });
        serde_json::from_value::<Pod>(json!({ "metadata": metadata, "spec": spec }))
    };
    let post = PostParams::default();
    pods.create(&post, &pod("plain", json!({ "a": "b" }))?).await?;
    let epok = json!({ "epok.getbetter.ro/externalports": "22:22", "a": "b" });
    pods.create(&post, &pod("asks", epok)?).await?;

    let seen = Arc::new(Seen::default());
    let mut follower = Follower::new(watch(&site.controller, &quick(), &seen));
    follower.until("every kind is followed", |it| it.health().is_current()).await?;
    let asks = site.object(ObjectKind::Pod, "asks");
    follower.until("the Pod is there", |it| it.has(&asks)).await?;
    assert!(!follower.has(&site.object(ObjectKind::Pod, "plain")));

    let Some(Object::Pod(pod)) = follower.objects.get(&asks) else { panic!("a Pod") };
    let kept: Vec<_> = pod.metadata.annotations.iter().flatten().map(|it| it.0.as_str()).collect();
    assert_eq!(kept, ["epok.getbetter.ro/externalports"]);
    assert!(pod.spec.is_none() && pod.metadata.managed_fields.is_none());

    let reference = ObjectRef::cluster(ObjectKind::Node, &name);
    let Some(Object::Node(node)) = follower.objects.get(&reference) else { panic!("a Node") };
    let status = node.status.as_ref().context("a Node without status")?;
    assert_eq!(status.addresses.as_ref().map(Vec::len), Some(1));
    assert_eq!(status.conditions.as_ref().map(Vec::len), Some(1));
    assert_eq!(status.images, None);
    let labels = node.metadata.labels.clone().unwrap_or_default();
    assert_eq!(labels, BTreeMap::from([("epok_exclude".to_owned(), String::new())]));
    nodes.delete(&name, &DeleteParams::default()).await?;
    Ok(())
}

#[tokio::test]
async fn a_forbidden_kind_is_reported_while_the_others_go_on() -> Result<()> {
    let Some(site) = Site::shared().await? else { return Ok(()) };
    // What the predecessor's own role grants.
    let role = format!("epok-{}", site.namespace);
    let rules = "rules: [{apiGroups: [''], resources: [nodes, services], verbs: [list, watch]}]";
    let kind = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole";
    site.plane.apply_manifest(&format!("{kind}\nmetadata: {{name: {role}}}\n{rules}\n")).await?;
    let client = site.plane.user(&role, &[&role]).await?.client().await?;
    create_services(&site.admin, &site.namespace, 1).await?;

    let mut follower = Follower::new(watch(&client, &quick(), &Arc::new(Seen::default())));
    let state = |it: &Follower, kind| it.health().kinds[&kind].state;
    follower
        .until("Pods are forbidden and Services followed", |it| {
            state(it, ObjectKind::Pod) == State::Forbidden
                && state(it, ObjectKind::Service) == State::Watching
        })
        .await?;
    follower.until("the Service", |it| it.count(ObjectKind::Service, &site.namespace) == 1).await?;
    let health = follower.health();
    assert!(!health.is_complete(), "a kind that was never listed may have any object");
    assert!(!follower.resets.contains_key(&ObjectKind::Pod));
    let problem = health.problems.iter().find(|it| it.place == Place::Kind(ObjectKind::Pod));
    let problem = problem.context("no problem with Pods")?.to_string();
    assert!(problem.contains("grant `list` and `watch` on `pods`"), "{problem}");

    // Granted after all, it goes on by itself.
    let rules = "rules: [{apiGroups: ['', discovery.k8s.io, portcullis.dev], \
                 resources: [nodes, services, pods, endpointslices, hosts], verbs: [list, watch]}]";
    site.plane.apply_manifest(&format!("{kind}\nmetadata: {{name: {role}}}\n{rules}\n")).await?;
    follower.until("every kind is followed", |it| it.health().is_current()).await?;
    assert_eq!(follower.health().problems.len(), 0);
    Ok(())
}

#[tokio::test]
async fn hosts_without_a_definition_are_known_to_be_none_until_there_is_one() -> Result<()> {
    let Some(()) = require(ControlPlane::available()) else { return Ok(()) };
    let plane = ControlPlane::start(ControlPlaneOptions::default())?;
    let client = site::install_role(&plane).await?.client().await?;
    let mut follower = Follower::new(watch(&client, &quick(), &Arc::new(Seen::default())));

    follower.until("every kind is listed", |it| it.health().is_complete()).await?;
    assert_eq!(follower.health().kinds[&ObjectKind::Host].state, State::Absent);
    follower.until("no Hosts", |it| it.resets.get(&ObjectKind::Host) == Some(&1)).await?;

    plane.apply_manifest(include_str!("../../../../deploy/crds/hosts.portcullis.dev.yaml")).await?;
    let host = "apiVersion: portcullis.dev/v1alpha1\nkind: Host\nmetadata: {name: edge-a}\n\
                spec: {interfaces: [eth0]}\n";
    plane.apply_manifest(host).await?;
    let edge = ObjectRef::cluster(ObjectKind::Host, "edge-a");
    follower.until("the Host", |it| it.has(&edge)).await?;
    follower.until("all is well", |it| it.health().problems.is_empty()).await?;
    assert!(follower.health().is_current());
    Ok(())
}

pub(crate) fn service(name: &str, annotations: &Value) -> Result<Service> {
    Ok(serde_json::from_value(json!({
        "metadata": { "name": name, "annotations": annotations },
        "spec": { "type": "ClusterIP", "ports": [{ "port": 443 }] },
    }))?)
}

pub(crate) async fn create_services(client: &Client, namespace: &str, count: usize) -> Result<()> {
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    let create = |index: usize| {
        let services = services.clone();
        async move {
            let asks = json!({ "portcullis.dev/host-ports": "443" });
            let service = service(&format!("s{index}"), &asks)?;
            services.create(&PostParams::default(), &service).await?;
            anyhow::Ok(())
        }
    };
    stream::iter(0..count).map(create).buffer_unordered(16).try_collect().await
}
