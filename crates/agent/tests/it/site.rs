//! A real API server with the shipped role, an adopted-to-be gateway in this process, and agents.

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

/// What `portcullis gateway create` allows agents, for the Secret of these tests.
const ADOPTION: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: { name: g1-adoption, namespace: portcullis-system }
rules:
  - { apiGroups: [''], resources: [secrets], resourceNames: [g1-adoption], verbs: [get, patch] }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: { name: g1-adoption, namespace: portcullis-system }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: Role, name: g1-adoption }
subjects:
  - { kind: ServiceAccount, name: portcullis-agent, namespace: portcullis-system }
";
const ROLE: &str = include_str!("../../../../deploy/agent/rbac.yaml");
const EDGE_GATEWAYS: &str =
    include_str!("../../../../deploy/crds/edgegateways.portcullis.dev.yaml");
const ACCOUNT: &str = "system:serviceaccount:portcullis-system:portcullis-agent";

/// A control plane with the shipped role and an adopted-to-be gateway. Ends when dropped.
pub(crate) struct Site {
    plane: ControlPlane,
    admin: Client,
    agent: Access,
    _gateway: gateway::Gateway,
    _directory: tempfile::TempDir,
}

impl Site {
    pub(crate) async fn open() -> Result<Option<Self>> {
        Self::open_with(true).await
    }

    pub(crate) async fn open_with(gateway_api: bool) -> Result<Option<Self>> {
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
        site.plane.apply_manifest(ADOPTION).await?;
        let spec = json!({ "spec": {
            "endpoints": [{ "host": "127.0.0.1", "port": tunnel }],
            "addresses": [{ "address": "127.0.0.1" }],
            "adoption": { "secretRef": { "namespace": "portcullis-system", "name": "g1-adoption",
                "key": "secret" } },
        }});
        site.apply("portcullis.dev/v1alpha1", "EdgeGateway", None, "g1", spec).await?;
        Ok(Some(site))
    }

    pub(crate) async fn start_agent(&self, name: &str) -> Result<AgentTask> {
        let client = self.agent.client().await?;
        self.start_agent_trusting(name, AuthoritySource::Secret(client)).await
    }

    /// Starts an agent with an authority from elsewhere.
    pub(crate) async fn start_agent_trusting(
        &self,
        name: &str,
        authority: AuthoritySource,
    ) -> Result<AgentTask> {
        let client = self.agent.client().await?;
        let settings = Settings {
            source: SourceSettings::Kubernetes(client),
            name: name.to_owned(),
            node: None,
            cluster: None,
            authority,
            listen: None,
            drain: Duration::ZERO,
            leader_election: true,
            host_targets: false,
        };
        Ok(AgentTask(tokio::spawn(async move {
            let _ended = agent::run(settings, std::future::pending()).await;
        })))
    }

    /// An EndpointSlice of a Service, with ready endpoints.
    pub(crate) async fn slice(&self, service: &str, addresses: &[&str]) -> Result<()> {
        let endpoints = addresses.iter().map(|it| json!({ "addresses": [it] }));
        let slice = json!({
            "metadata": { "labels": { "kubernetes.io/service-name": service } },
            "addressType": "IPv4", "endpoints": endpoints.collect::<Vec<_>>(),
            "ports": [{ "name": "web", "port": 8080, "protocol": "TCP" }],
        });
        let name = format!("{service}-1");
        self.apply("discovery.k8s.io/v1", "EndpointSlice", Some("default"), &name, slice).await
    }

    pub(crate) async fn apply(
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

    pub(crate) fn api(&self, kind: &str, namespace: Option<&str>) -> Api<DynamicObject> {
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
    pub(crate) async fn until(
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

pub(crate) struct AgentTask(JoinHandle<()>);

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
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// The status of a condition; empty when there is none.
pub(crate) fn condition(status: &Value, name: &str) -> String {
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
