//! The real control plane and the real nodes.

use std::path::Path;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Api;
use kube::api::{ListParams, PostParams};
use testkit::kubernetes::{Cluster, ClusterOptions, ControlPlane, ControlPlaneOptions};
use testkit::wait::until;
use testkit::{Lab, require};

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn the_shared_control_plane_is_ready_and_keeps_tests_apart() -> anyhow::Result<()> {
    let Some(()) = require(ControlPlane::available()) else { return Ok(()) };
    let shared = ControlPlane::shared()?;
    let version = shared.client().await?.apiserver_version().await?;
    assert!(version.git_version.starts_with("v1.36."), "{}", version.git_version);

    let (one, other) = (shared.namespace().await?, shared.namespace().await?);
    assert_ne!(one, other);
    assert!(std::ptr::eq(shared, ControlPlane::shared()?), "a second control plane was started");
    Ok(())
}

#[tokio::test]
async fn a_manifest_may_define_a_kind_and_use_it() -> anyhow::Result<()> {
    let Some(()) = require(ControlPlane::available()) else { return Ok(()) };
    let applied = ControlPlane::shared()?.apply_manifest(NEW_KIND).await?;
    let names: Vec<_> = applied.iter().filter_map(|it| it.metadata.name.as_deref()).collect();
    assert_eq!(names, ["lamps.testbed.portcullis.dev", "desk"]);
    Ok(())
}

#[tokio::test]
async fn an_account_may_do_what_its_cluster_role_says_and_nothing_else() -> anyhow::Result<()> {
    let Some(()) = require(ControlPlane::available()) else { return Ok(()) };
    let shared = ControlPlane::shared()?;
    let namespace = shared.namespace().await?;
    shared.apply_manifest(READS_PODS).await?;
    let accesses = [
        ("user", shared.user("reader", &["testkit-reads-pods"]).await?),
        (
            "service account",
            shared.service_account(&namespace, "reader", &["testkit-reads-pods"]).await?,
        ),
    ];
    for (kind, access) in accesses {
        let client = access.client().await?;
        let pods: Api<Pod> = Api::all(client.clone());
        // The authorizer learns of a binding by a watch.
        until_allowed(kind, async || pods.list(&ListParams::default()).await.map(|_| ())).await?;

        let maps: Api<ConfigMap> = Api::namespaced(client, &namespace);
        let refused = maps
            .list(&ListParams::default())
            .await
            .expect_err("a role that does not name ConfigMaps");
        assert!(is_forbidden(&refused), "{kind}: {refused}");
    }
    let stranger = shared.user("stranger", &[]).await?.client().await?;
    let refused = Api::<Pod>::all(stranger)
        .list(&ListParams::default())
        .await
        .expect_err("a user without a role");
    assert!(is_forbidden(&refused), "{refused}");
    Ok(())
}

#[tokio::test]
async fn an_outage_of_the_api_server_loses_no_object() -> anyhow::Result<()> {
    let Some(()) = require(ControlPlane::available()) else { return Ok(()) };
    let own = ControlPlane::start(ControlPlaneOptions::default())?;
    let namespace = own.namespace().await?;
    let maps: Api<ConfigMap> = Api::namespaced(own.client().await?, &namespace);
    let map = ConfigMap {
        metadata: kube::api::ObjectMeta { name: Some("kept".into()), ..Default::default() },
        ..Default::default()
    };
    maps.create(&PostParams::default(), &map).await?;

    own.stop_api_server()?;
    maps.get("kept").await.expect_err("the API server is stopped");

    own.start_api_server()?;
    // The client from before goes on: same address, same certificates.
    maps.get("kept").await?;
    Ok(())
}

#[test]
fn a_dropped_control_plane_leaves_no_process_and_no_file() -> anyhow::Result<()> {
    let Some(()) = require(ControlPlane::available()) else { return Ok(()) };
    let own = ControlPlane::start(ControlPlaneOptions::default())?;
    let (pids, directory) = (own.pids(), own.directory().to_owned());
    assert_eq!(pids.len(), 3, "etcd, API server, controller-manager");
    assert!(pids.iter().all(|it| is_alive(*it)) && directory.exists());
    drop(own);
    assert_eq!(pids.iter().filter(|it| is_alive(**it)).count(), 0);
    assert!(!directory.exists(), "{} is still there", directory.display());
    Ok(())
}

#[test]
fn two_nodes_run_pods_that_reach_each_other_and_are_reached_from_outside() -> anyhow::Result<()> {
    let Some(()) = require(Cluster::available()) else { return Ok(()) };
    let begin = Instant::now();
    let cluster = Cluster::start(ClusterOptions::default())?;
    eprintln!("two nodes Ready after {:?}", begin.elapsed());
    drop(cluster);
    eprintln!("all over after {:?}", begin.elapsed());
    Ok(())
}

fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403)
}

fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

async fn until_allowed(
    kind: &str,
    mut ask: impl AsyncFnMut() -> kube::Result<()>,
) -> anyhow::Result<()> {
    let begin = Instant::now();
    while let Err(error) = ask().await {
        anyhow::ensure!(is_forbidden(&error) && begin.elapsed() < LIMIT, "{kind}: {error}");
        tokio::task::yield_now().await;
    }
    Ok(())
}

const READS_PODS: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: { name: testkit-reads-pods }
rules:
- { apiGroups: [''], resources: [pods], verbs: [get, list, watch] }
";

const NEW_KIND: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: { name: lamps.testbed.portcullis.dev }
spec:
  group: testbed.portcullis.dev
  scope: Cluster
  names: { kind: Lamp, plural: lamps, singular: lamp }
  versions:
  - name: v1
    served: true
    storage: true
    schema: { openAPIV3Schema: { type: object, properties: { spec: { type: object, properties: { on: { type: boolean } } } } } }
---
apiVersion: testbed.portcullis.dev/v1
kind: Lamp
metadata: { name: desk }
spec: { on: true }
";
