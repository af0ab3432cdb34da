//! An agent with the shipped role on a real API server, and a gateway in this process: from objects
//! to the statuses of objects.

use std::net::TcpListener;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use agent::{AuthoritySource, Settings, SourceSettings};
use anyhow::{Context as _, Result, ensure};
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use serde_json::{Value, json};
use testkit::kubernetes::{Access, ControlPlane, ControlPlaneOptions};
use testkit::require;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tunnel::trust::{Authorities, OneTimeSecret};

/// How long anything may take that should happen at once. Generous: other builds run beside.
const LIMIT: Duration = Duration::from_secs(60);

const ROLE: &str = include_str!("../../../../deploy/agent/rbac.yaml");
const EDGE_GATEWAYS: &str =
    include_str!("../../../../deploy/crds/edgegateways.portcullis.dev.yaml");
const ACCOUNT: &str = "system:serviceaccount:portcullis-system:portcullis-agent";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_users_ask_for_is_listened_on_and_every_object_says_so() -> Result<()> {
    let Some(site) = Site::open().await? else { return Ok(()) };
    let public = free_port()?;
    site.apply(
        "gateway.networking.k8s.io/v1",
        "GatewayClass",
        None,
        "portcullis",
        json!({
            "spec": { "controllerName": "portcullis.dev/gateway-controller" },
        }),
    )
    .await?;
    site.apply(
        "gateway.networking.k8s.io/v1",
        "Gateway",
        Some("default"),
        "public",
        json!({
            "spec": { "gatewayClassName": "portcullis", "listeners": [
                { "name": "tcp", "protocol": "TCP", "port": public } ] },
        }),
    )
    .await?;
    let balanced = free_port()?;
    site.apply(
        "v1",
        "Service",
        Some("default"),
        "blog",
        json!({
            "spec": { "type": "LoadBalancer", "loadBalancerClass": "portcullis.dev/gateway",
                "allocateLoadBalancerNodePorts": false,
                "ports": [{ "name": "web", "port": balanced, "targetPort": 8080 }] },
        }),
    )
    .await?;
    site.apply(
        "gateway.networking.k8s.io/v1",
        "TCPRoute",
        Some("default"),
        "blog",
        json!({
            "spec": { "parentRefs": [{ "name": "public" }],
                "rules": [{ "backendRefs": [{ "name": "blog", "port": balanced }] }] },
        }),
    )
    .await?;
    site.slice("blog", &["10.77.0.1"]).await?;
    let _agent = site.start_agent("agent-0").await?;

    site.until("GatewayClass", None, "portcullis", |it| condition(it, "Accepted") == "True")
        .await?;
    let gateway = site
        .until("Gateway", Some("default"), "public", |it| condition(it, "Programmed") == "True")
        .await?;
    assert_eq!(gateway["addresses"][0]["value"], "127.0.0.1", "{gateway:#}");
    let route = site
        .until("TCPRoute", Some("default"), "blog", |it| {
            condition(&it["parents"][0], "Accepted") == "True"
        })
        .await?;
    assert_eq!(route["parents"][0]["controllerName"], "portcullis.dev/gateway-controller");
    let service = site
        .until("Service", Some("default"), "blog", |it| !it["loadBalancer"]["ingress"][0].is_null())
        .await?;
    let ingress = &service["loadBalancer"]["ingress"][0];
    assert_eq!((&ingress["ip"], &ingress["ipMode"]), (&json!("127.0.0.1"), &json!("Proxy")));
    let edge = site
        .until("EdgeGateway", None, "g1", |it| {
            condition(it, "Connected") == "True" && it["publishedPorts"] == 2
        })
        .await?;
    assert_eq!(condition(&edge, "Adopted"), "True", "{edge:#}");
    // And it listens.
    let visit = tokio::net::TcpStream::connect(("127.0.0.1", public)).await;
    ensure!(visit.is_ok(), "{visit:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_other_controllers_say_of_a_route_stays() -> Result<()> {
    let Some(site) = Site::open().await? else { return Ok(()) };
    let public = free_port()?;
    site.apply(
        "gateway.networking.k8s.io/v1",
        "GatewayClass",
        None,
        "portcullis",
        json!({
            "spec": { "controllerName": "portcullis.dev/gateway-controller" },
        }),
    )
    .await?;
    site.apply(
        "gateway.networking.k8s.io/v1",
        "Gateway",
        Some("default"),
        "shared",
        json!({
            "spec": { "gatewayClassName": "portcullis", "listeners": [
                { "name": "tcp", "protocol": "TCP", "port": public } ] },
        }),
    )
    .await?;
    let route = json!({
        "spec": { "parentRefs": [{ "name": "shared" }, { "name": "elsewhere" }],
            "rules": [{ "backendRefs": [{ "name": "nobody", "port": 80 }] }] },
    });
    site.apply("gateway.networking.k8s.io/v1", "TCPRoute", Some("default"), "both", route).await?;
    let theirs = json!({ "status": { "parents": [{
        "controllerName": "example.com/other", "parentRef": { "name": "elsewhere" },
        "conditions": [{ "type": "Accepted", "status": "True", "reason": "Accepted",
            "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z" }] }] } });
    let routes = site.api("TCPRoute", Some("default"));
    routes.patch_status("both", &PatchParams::default(), &Patch::Merge(&theirs)).await?;
    let _agent = site.start_agent("agent-0").await?;

    let both = site
        .until("TCPRoute", Some("default"), "both", |it| {
            it["parents"].as_array().is_some_and(|it| it.len() == 2)
        })
        .await?;
    let parents = both["parents"].as_array().context("a list")?;
    assert_eq!(parents[0]["controllerName"], "example.com/other");
    assert_eq!(parents[0]["conditions"][0]["lastTransitionTime"], "2026-01-01T00:00:00Z");
    assert_eq!(condition(&parents[1], "ResolvedRefs"), "False", "{both:#}");

    // Without the parent that is ours, what we said goes, and theirs stays.
    let spec = json!({ "spec": { "parentRefs": [{ "name": "elsewhere" }] } });
    routes.patch("both", &PatchParams::default(), &Patch::Merge(&spec)).await?;
    let left = site
        .until("TCPRoute", Some("default"), "both", |it| {
            it["parents"].as_array().is_some_and(|it| it.len() == 1)
        })
        .await?;
    assert_eq!(left["parents"][0]["controllerName"], "example.com/other");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_gateway_api_services_are_published_all_the_same() -> Result<()> {
    let Some(site) = Site::open_with(false).await? else { return Ok(()) };
    let port = free_port()?;
    site.apply(
        "v1",
        "Service",
        Some("default"),
        "plain",
        json!({
            "metadata": { "annotations": { "portcullis.dev/gateway": "*" } },
            "spec": { "ports": [{ "name": "web", "port": port, "targetPort": 8080 }] },
        }),
    )
    .await?;
    site.slice("plain", &["10.77.0.2"]).await?;
    let _agent = site.start_agent("agent-0").await?;
    site.until("Service", Some("default"), "plain", |it| {
        condition(it, "portcullis.dev/Published") == "True"
    })
    .await?;
    // Nobody asks any more: what was said is taken back.
    let asks_not = json!({ "metadata": { "annotations": { "portcullis.dev/gateway": null } } });
    let services = site.api("Service", Some("default"));
    services.patch("plain", &PatchParams::default(), &Patch::Merge(&asks_not)).await?;
    site.until("Service", Some("default"), "plain", |it| {
        condition(it, "portcullis.dev/Published").is_empty()
    })
    .await?;
    Ok(())
}

/// A control plane with the shipped role and an adopted-to-be gateway. Ends when dropped.
struct Site {
    plane: ControlPlane,
    admin: Client,
    agent: Access,
    _gateway: gateway::Gateway,
    _directory: tempfile::TempDir,
}

impl Site {
    async fn open() -> Result<Option<Self>> {
        Self::open_with(true).await
    }

    async fn open_with(gateway_api: bool) -> Result<Option<Self>> {
        let Some(()) = require(ControlPlane::available()) else { return Ok(None) };
        provide_cryptography();
        let plane = tokio::task::spawn_blocking(move || {
            let plane = ControlPlane::start(ControlPlaneOptions::default())?;
            if gateway_api {
                plane.define_gateway_api()?;
            }
            anyhow::Ok(plane)
        });
        let plane = plane.await??;
        plane.apply_manifest(EDGE_GATEWAYS).await?;
        plane.apply_manifest(ROLE).await?;
        let agent = plane.user(ACCOUNT, &[]).await?;
        let admin = plane.client().await?;

        let authorities = Authorities::create("home", SystemTime::now())?;
        let secret = OneTimeSecret::generate()?;
        let directory = tempfile::tempdir()?;
        let tunnel = free_port()?;
        let pin = authorities.signing(SystemTime::now()).pin();
        let hash = secret.hash().to_string();
        let gateway = start_gateway(directory.path(), tunnel, &pin.to_string(), &hash).await?;
        let site = Self { plane, admin, agent, _gateway: gateway, _directory: directory };
        let system = Some("portcullis-system");
        let file = tunnel::trust::AUTHORITY_FILE;
        let data = json!({ "stringData": { file: authorities.to_pem() } });
        site.apply("v1", "Secret", system, tunnel::trust::AUTHORITY_SECRET, data).await?;
        let data = json!({ "stringData": { "secret": secret.reveal() } });
        site.apply("v1", "Secret", system, "g1-adoption", data).await?;
        let spec = json!({ "spec": {
            "endpoints": [{ "host": "127.0.0.1", "port": tunnel }],
            "addresses": [{ "address": "127.0.0.1" }],
            "adoption": { "secretRef": { "namespace": "portcullis-system", "name": "g1-adoption",
                "key": "secret" } },
        }});
        site.apply("portcullis.dev/v1alpha1", "EdgeGateway", None, "g1", spec).await?;
        Ok(Some(site))
    }

    async fn start_agent(&self, name: &str) -> Result<AgentTask> {
        let client = self.agent.client().await?;
        let settings = Settings {
            source: SourceSettings::Kubernetes(client.clone()),
            name: name.to_owned(),
            node: None,
            cluster: None,
            authority: AuthoritySource::Secret(client),
            listen: None,
            drain: Duration::ZERO,
            leader_election: true,
        };
        Ok(AgentTask(tokio::spawn(async move {
            let _ended = agent::run(settings, std::future::pending()).await;
        })))
    }

    /// An EndpointSlice of a Service, with ready endpoints.
    async fn slice(&self, service: &str, addresses: &[&str]) -> Result<()> {
        let endpoints = addresses.iter().map(|it| json!({ "addresses": [it] }));
        let slice = json!({
            "metadata": { "labels": { "kubernetes.io/service-name": service } },
            "addressType": "IPv4", "endpoints": endpoints.collect::<Vec<_>>(),
            "ports": [{ "name": "web", "port": 8080, "protocol": "TCP" }],
        });
        let name = format!("{service}-1");
        self.apply("discovery.k8s.io/v1", "EndpointSlice", Some("default"), &name, slice).await
    }

    async fn apply(
        &self,
        version: &str,
        kind: &str,
        namespace: Option<&str>,
        name: &str,
        mut object: Value,
    ) -> Result<()> {
        object["apiVersion"] = json!(version);
        object["kind"] = json!(kind);
        object["metadata"]["name"] = json!(name);
        if let Some(namespace) = namespace {
            object["metadata"]["namespace"] = json!(namespace);
        }
        let parameters = PatchParams::apply("test").force();
        let api = self.api(kind, namespace);
        let applied = api.patch(name, &parameters, &Patch::Apply(&object)).await;
        applied.with_context(|| format!("{kind} {name}")).map(|_| ())
    }

    fn api(&self, kind: &str, namespace: Option<&str>) -> Api<DynamicObject> {
        let (group, version) = match kind {
            "Service" | "Secret" => ("", "v1"),
            "EndpointSlice" => ("discovery.k8s.io", "v1"),
            "EdgeGateway" => ("portcullis.dev", "v1alpha1"),
            _ => ("gateway.networking.k8s.io", "v1"),
        };
        let mut resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        if kind == "GatewayClass" {
            resource.plural = "gatewayclasses".to_owned();
        }
        match namespace {
            Some(namespace) => Api::namespaced_with(self.admin.clone(), namespace, &resource),
            None => Api::all_with(self.admin.clone(), &resource),
        }
    }

    /// Looks until the object's status is so, and returns it.
    async fn until(
        &self,
        kind: &str,
        namespace: Option<&str>,
        name: &str,
        is_so: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let api = self.api(kind, namespace);
        let begun = Instant::now();
        loop {
            let object = api.get(name).await?;
            let status = object.data.get("status").cloned().unwrap_or_default();
            if is_so(&status) {
                return Ok(status);
            }
            let log = self.plane.directory().display();
            ensure!(begun.elapsed() < LIMIT, "{kind} {name} says {status:#} ({log})");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

struct AgentTask(JoinHandle<()>);

impl Drop for AgentTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn start_gateway(
    directory: &Path,
    port: u16,
    pin: &str,
    hash: &str,
) -> Result<gateway::Gateway> {
    let path = directory.join("gateway.toml");
    let state = directory.join("state");
    let state = state.display();
    let text = format!(
        "name = \"g1\"\nlisten = [\"127.0.0.1:{port}\"]\naddresses = [\"127.0.0.1\"]\n\
         stateDirectory = \"{state}\"\nmetrics = \"off\"\n\n[[clusters]]\nname = \"home\"\n\
         caPin = \"{pin}\"\nsecretHash = \"{hash}\"\nexpires = \"2100-01-01T00:00:00Z\"\n"
    );
    std::fs::write(&path, text)?;
    let config = gateway::config::Config::read(&path)?;
    Ok(gateway::Gateway::start(config, "test").await?)
}

/// A port that is free now, of TCP and most likely of UDP.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// The status of a condition; empty when there is none.
fn condition(status: &Value, name: &str) -> String {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let found = conditions.into_iter().find(|it| it["type"] == name);
    found.and_then(|it| it["status"].as_str()).unwrap_or_default().to_owned()
}

/// Logs of all parts, for whoever sets `RUST_LOG`.
fn provide_cryptography() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        let _ours_or_theirs = tunnel::trust::provider().as_ref().clone().install_default();
    });
}
