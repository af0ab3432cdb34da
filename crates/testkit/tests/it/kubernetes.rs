//! The real control plane and the real nodes.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::Api;
use kube::api::{ListParams, PostParams};
use testkit::kubernetes::{
    AddressPlan, Cluster, ClusterOptions, ControlPlane, ControlPlaneOptions, ECHO_IMAGE,
};
use testkit::probe::Probe;
use testkit::wait::until;
use testkit::{Lab, Protocol, require};

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
    let processes = pids.iter().map(|it| PathBuf::from(format!("/proc/{it}")));
    let traces: Vec<_> = processes.chain([directory]).collect();
    assert!(traces.iter().all(|it| is_there(it)), "{traces:?}");
    drop(own);
    let left: Vec<_> = traces.iter().filter(|it| is_there(it)).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}

#[tokio::test]
async fn an_outside_client_reaches_pods_on_two_real_nodes_through_an_attached_host()
-> anyhow::Result<()> {
    let Some(()) = require(Cluster::available()) else { return Ok(()) };
    let Some(lab) = require(Lab::as_root("nodes")) else { return Ok(()) };
    let cluster = Cluster::start(ClusterOptions::default())?;
    let control_plane = cluster.control_plane();
    let namespace = control_plane.namespace().await?;
    control_plane.apply_manifest(&echo_on_every_node(&namespace)).await?;

    // The host is the nodes' gateway to the world, as a hypervisor is; behind it is a client.
    let (host, client) = (lab.machine("host")?, lab.machine("client")?);
    let gateway = (format!("{}/24", AddressPlan::GATEWAY), format!("{}/64", AddressPlan::GATEWAY6));
    cluster.underlay().attach(&host, "inside", &[&gateway.0, &gateway.1])?;
    lab.link(
        &host,
        "outside",
        &["203.0.113.1/24", "2001:db8::1/64"],
        &client,
        "eth0",
        &["203.0.113.2/24", "2001:db8::2/64"],
    )?;
    host.forwarding(true)?;
    client.route("10.200.0.0/24", "203.0.113.1")?;
    client.route("fd00:200::/64", "2001:db8::1")?;

    until_pods_run(&control_plane.client().await?, &namespace, 2).await?;
    for (number, node) in cluster.nodes().iter().enumerate() {
        for (address, source) in
            [(IpAddr::from(node.address()), "203.0.113.2"), (node.address6().into(), "2001:db8::2")]
        {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let probe = Probe::new(SocketAddr::new(address, 30900), protocol);
                // kube-proxy learns of endpoints by a watch.
                let what = format!("{address}/{protocol} to answer");
                let answer = until(&what, LIMIT, || client.probe(probe).ok()?.answer().cloned())?;
                // externalTrafficPolicy: Local: the pod of this very node, and the client's own address.
                assert_eq!(answer.server, format!("echo-{}", number + 1), "{what}");
                assert_eq!(answer.source_seen.ip(), source.parse::<IpAddr>()?, "{what}");
            }
        }
        // externalTrafficPolicy: Cluster: every node leads to every pod, so also across the wire between them.
        let everywhere = Probe::new(SocketAddr::new(node.address().into(), 30901), Protocol::Tcp);
        let mut unseen = BTreeSet::from(["echo-1".to_owned(), "echo-2".to_owned()]);
        until("both pods to answer through one node", LIMIT, || {
            unseen.remove(client.probe(everywhere).ok()?.server()?);
            unseen.is_empty().then_some(())
        })?;
    }

    let executed = control_plane
        .kubectl()?
        .args(["exec", "-n", &namespace, "echo-2", "--", "/echo", "-h"])
        .output()?;
    let said = String::from_utf8_lossy(&executed.stderr);
    assert!(said.contains("Usage of /echo"), "kubectl exec: {said}");

    // A silent node is noticed, and taken back.
    let silent = &cluster.nodes()[0];
    silent.stop_kubelet()?;
    until_ready_is(&control_plane.client().await?, silent.name(), "Unknown").await?;
    silent.start_kubelet(control_plane)?;
    until_ready_is(&control_plane.client().await?, silent.name(), "True").await?;

    let left = cluster.traces();
    assert!(left.iter().all(|it| is_there(it)), "not there to begin with: {left:?}");
    drop(cluster);
    let left: Vec<_> = left.into_iter().filter(|it| is_there(it)).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}

#[test]
fn a_killed_test_leaves_no_process_no_file_and_no_control_group() -> anyhow::Result<()> {
    let Some(()) = require(Cluster::available()) else { return Ok(()) };
    let mut killed = Command::new(std::env::current_exe()?)
        .args(["--exact", "kubernetes::holds_a_cluster_until_killed", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()?;
    let said = BufReader::new(killed.stdout.take().expect("a pipe was asked for"));
    let said = said.lines().map_while(Result::ok).skip_while(|it| it != "traces:").skip(1);
    let traces: Vec<_> = said.take_while(|it| it != "end").map(PathBuf::from).collect();
    assert!(traces.len() > 10 && traces.iter().all(|it| is_there(it)), "{traces:?}");

    // SIGKILL: no destructor runs.
    killed.kill()?;
    killed.wait()?;

    until(&format!("all of {traces:?} to be gone"), LIMIT, || {
        traces.iter().all(|it| !is_there(it)).then_some(())
    })
}

#[test]
#[ignore = "only the test of a killed test runs this"]
#[expect(clippy::print_stdout, reason = "its parent reads this")]
fn holds_a_cluster_until_killed() -> anyhow::Result<()> {
    let cluster = Cluster::start(ClusterOptions { nodes: 1, ..ClusterOptions::default() })?;
    println!("traces:");
    for trace in cluster.traces() {
        println!("{}", trace.display());
    }
    println!("end");
    std::thread::sleep(LIMIT);
    anyhow::bail!("nobody killed this within {LIMIT:?}")
}

/// Whether a file or a process exists. A process that has ended stays listed until its parent asks how.
fn is_there(trace: &Path) -> bool {
    match std::fs::read_to_string(trace.join("stat")) {
        Ok(stat) => !stat.rsplit(") ").next().is_some_and(|it| it.starts_with('Z')),
        Err(_) => trace.exists(),
    }
}

fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403)
}

async fn until_pods_run(
    client: &kube::Client,
    namespace: &str,
    count: usize,
) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let begin = Instant::now();
    loop {
        let states: Vec<_> = pods
            .list(&ListParams::default())
            .await?
            .items
            .into_iter()
            .filter_map(|it| it.status)
            .collect();
        if states.iter().filter(|it| it.phase.as_deref() == Some("Running")).count() == count {
            return Ok(());
        }
        anyhow::ensure!(begin.elapsed() < LIMIT, "pods that do not run: {states:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn until_ready_is(client: &kube::Client, node: &str, wanted: &str) -> anyhow::Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let begin = Instant::now();
    loop {
        let conditions =
            nodes.get_status(node).await?.status.and_then(|it| it.conditions).unwrap_or_default();
        if conditions.iter().any(|it| it.type_ == "Ready" && it.status == wanted) {
            return Ok(());
        }
        anyhow::ensure!(
            begin.elapsed() < LIMIT,
            "{node} does not become Ready={wanted}: {conditions:#?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
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

/// One pod on each node, and two Services over both.
fn echo_on_every_node(namespace: &str) -> String {
    let pods = [1, 2].map(|number| {
        format!(
            "
apiVersion: v1
kind: Pod
metadata: {{ name: echo-{number}, namespace: {namespace}, labels: {{ app: echo }} }}
spec:
  nodeSelector: {{ kubernetes.io/hostname: node-{number} }}
  terminationGracePeriodSeconds: 0
  containers: [{{ name: echo, image: {ECHO_IMAGE} }}]
---"
        )
    });
    let services = [("local", "Local", 30900), ("everywhere", "Cluster", 30901)].map(
        |(name, policy, port)| {
            format!(
                "
apiVersion: v1
kind: Service
metadata: {{ name: {name}, namespace: {namespace} }}
spec:
  type: NodePort
  ipFamilyPolicy: RequireDualStack
  externalTrafficPolicy: {policy}
  selector: {{ app: echo }}
  ports:
  - {{ name: tcp, port: 9000, protocol: TCP, nodePort: {port} }}
  - {{ name: udp, port: 9000, protocol: UDP, nodePort: {port} }}
---"
            )
        },
    );
    pods.concat() + &services.concat()
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
