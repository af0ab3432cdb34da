//! A real API server on which Portcullis is installed, and nodes that are nothing but heartbeats.

use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use testkit::Machine;
use testkit::kubernetes::{Access, ControlPlane, ControlPlaneOptions};
use tokio::runtime::Runtime;

use crate::objects::{self, ANNOTATION, NAMESPACE, node_name};
use crate::witness::Seen;

const ROLE: &str = include_str!("../../../deploy/rbac/controller.yaml");
const HOSTS: &str = include_str!("../../../deploy/crds/hosts.portcullis.dev.yaml");

/// The account that the shipped role is bound to.
const ACCOUNT: &str = "system:serviceaccount:portcullis:portcullis";

/// How often a node renews its lease. Kubelets do so every ten seconds; the control plane of the
/// test kit takes a node for dead after ten, so here it is four. Nobody but the control plane reads
/// leases of nodes.
const LEASE: Duration = Duration::from_secs(4);

/// How often a node writes its status although nothing happened, as kubelets do.
const STATUS: Duration = Duration::from_secs(300);

/// How many requests may be under way at a time while a bench fills the API server.
const REQUESTS: usize = 16;

/// A control plane, the account of the controller, and a client that may do everything.
pub(crate) struct Site {
    runtime: Runtime,
    client: Client,
    access: Access,
    plane: ControlPlane,
}

impl Site {
    /// Starts a control plane and installs the shipped role and kinds.
    pub(crate) fn start() -> Result<Self> {
        ControlPlane::available()?;
        let plane = ControlPlane::start(ControlPlaneOptions::default())?;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (client, access) = runtime.block_on(async {
            plane.apply_manifest(HOSTS).await?;
            plane.apply_manifest(ROLE).await?;
            let access = plane.user(ACCOUNT, &[]).await?;
            anyhow::Ok((plane.client().await?, access))
        })?;
        Ok(Self { runtime, client, access, plane })
    }

    /// The kubeconfig of the controller; it works in machines with an [`Entrance`].
    pub(crate) fn kubeconfig(&self) -> Result<&str> {
        self.access.kubeconfig().to_str().context("a path of text")
    }

    /// Opens the API server to a machine, at the address that it has here.
    pub(crate) fn entrance(&self, machine: &Machine) -> Result<Entrance> {
        let url = self.plane.url();
        let (_, port) = url.rsplit_once(':').context("an address with a port")?;
        Entrance::open(machine, port.parse()?)
    }

    /// Creates objects, many at a time.
    pub(crate) fn create(&self, objects: Vec<Value>) -> Result<()> {
        let create = |object: Value| async move {
            let object: DynamicObject = serde_json::from_value(object)?;
            let api = self.api(&object)?;
            let name = object.metadata.name.clone().unwrap_or_default();
            let created = api.create(&PostParams::default(), &object).await;
            created.map(drop).with_context(|| format!("create {name}"))
        };
        let all = stream::iter(objects).map(create).buffer_unordered(REQUESTS);
        self.runtime.block_on(all.try_collect::<()>())
    }

    fn api(&self, object: &DynamicObject) -> Result<Api<DynamicObject>> {
        let types = object.types.as_ref().context("an object with a kind")?;
        let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(types)?);
        let client = self.client.clone();
        Ok(match &object.metadata.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &resource),
            None => Api::all_with(client, &resource),
        })
    }

    /// Sets the host ports of a Service with one PATCH, or takes them away; returns when the API
    /// server has answered.
    pub(crate) fn set_host_ports(&self, service: &str, host_ports: Option<&str>) -> Result<()> {
        let patch =
            Patch::Merge(json!({ "metadata": { "annotations": { ANNOTATION: host_ports } } }));
        let parameters = PatchParams::default();
        let services: Api<k8s_openapi::api::core::v1::Service> =
            Api::namespaced(self.client.clone(), NAMESPACE);
        let patched = services.patch(service, &parameters, &patch);
        self.runtime.block_on(patched).map(drop).context("patch a Service")
    }

    /// Watches the annotation of a Service, as the controller does beside.
    pub(crate) fn annotations(&self, service: &str) -> Seen<Option<String>> {
        let (sender, receiver) = std::sync::mpsc::channel();
        let services: Api<k8s_openapi::api::core::v1::Service> =
            Api::namespaced(self.client.clone(), NAMESPACE);
        let parameters = WatchParams::default().fields(&format!("metadata.name={service}"));
        self.runtime.spawn(async move {
            // The API server ends a watch after some minutes; whoever waits then sees the state again.
            while let Ok(events) = services.watch(&parameters, "0").await {
                let mut events = std::pin::pin!(events);
                while let Some(Ok(event)) = events.next().await {
                    let now = Instant::now();
                    let (WatchEvent::Added(service) | WatchEvent::Modified(service)) = event else {
                        continue;
                    };
                    let annotations = service.metadata.annotations.unwrap_or_default();
                    if sender.send((annotations.get(ANNOTATION).cloned(), now)).is_err() {
                        return;
                    }
                }
            }
        });
        Seen(receiver)
    }

    /// Makes `count` nodes that stay Ready until the returned value is dropped.
    pub(crate) fn nodes(&self, count: usize) -> Result<Heartbeats> {
        self.create((1..=count).map(objects::node).collect())?;
        let leases = |number| {
            json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": { "name": node_name(number), "namespace": "kube-node-lease" },
                "spec": {
                    "holderIdentity": node_name(number), "leaseDurationSeconds": 40,
                    "renewTime": now(),
                },
            })
        };
        self.create((1..=count).map(leases).collect())?;
        let first = stream::iter(1..=count)
            .map(|it| status(self.client.clone(), it))
            .buffer_unordered(REQUESTS);
        self.runtime.block_on(first.try_collect::<()>())?;
        let renewals = self.runtime.spawn(renew(self.client.clone(), count));
        let statuses = self.runtime.spawn(report(self.client.clone(), count));
        Ok(Heartbeats([renewals, statuses]))
    }
}

/// Keeps nodes Ready; dropping it lets them die.
pub(crate) struct Heartbeats([tokio::task::JoinHandle<()>; 2]);

impl Drop for Heartbeats {
    fn drop(&mut self) {
        self.0.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// Renews the lease of each node in turn, evenly spread in time.
async fn renew(client: Client, count: usize) {
    let leases: Api<k8s_openapi::api::coordination::v1::Lease> =
        Api::namespaced(client, "kube-node-lease");
    let mut turn = tokio::time::interval(LEASE.div_f64(count as f64));
    for number in (1..=count).cycle() {
        turn.tick().await;
        let patch = Patch::Merge(json!({ "spec": { "renewTime": now() } }));
        // One that is lost is made up for by the next.
        let _lost = leases.patch(&node_name(number), &PatchParams::default(), &patch).await;
    }
}

/// Writes the status of each node in turn, evenly spread in time.
async fn report(client: Client, count: usize) {
    let mut turn = tokio::time::interval(STATUS.div_f64(count as f64));
    for number in (1..=count).cycle() {
        turn.tick().await;
        let _lost = status(client.clone(), number).await;
    }
}

async fn status(client: Client, number: usize) -> Result<()> {
    let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(client);
    let patch = Patch::Merge(json!({ "status": objects::node_status(number, &now()) }));
    let patched = nodes.patch_status(&node_name(number), &PatchParams::default(), &patch).await;
    patched.map(drop).context("write the status of a Node")
}

/// Now, with microseconds, as leases want it.
fn now() -> String {
    let now = Timestamp::try_from(SystemTime::now()).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{now:.6}")
}

/// A port on a machine's loopback interface that leads to the same port of this process's.
pub(crate) struct Entrance {
    machine: Machine,
    address: SocketAddr,
    over: Arc<AtomicBool>,
    listening: Option<JoinHandle<()>>,
}

impl Entrance {
    fn open(machine: &Machine, port: u16) -> Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        // A socket stays where it was opened, whoever accepts its connections.
        let listener = machine.enter(|| TcpListener::bind(address))??;
        let over = Arc::new(AtomicBool::new(false));
        let seen_over = Arc::clone(&over);
        let listening = std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                if seen_over.load(Ordering::Acquire) {
                    return;
                }
                std::thread::spawn(move || forward(&near, address));
            }
        });
        Ok(Self { machine: machine.clone(), address, over, listening: Some(listening) })
    }
}

impl Drop for Entrance {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        // One more connection lets the listener notice.
        let _machine_gone = self.machine.enter(|| TcpStream::connect(self.address));
        if let Some(listening) = self.listening.take() {
            let _panicked = listening.join();
        }
    }
}

fn forward(near: &TcpStream, to: SocketAddr) -> std::io::Result<()> {
    let far = TcpStream::connect(to)?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (near_in, far_out) = (near.try_clone()?, far.try_clone()?);
    std::thread::spawn(move || carry(&near_in, &far_out));
    carry(&far, near);
    Ok(())
}

fn carry(mut from: &TcpStream, mut to: &TcpStream) {
    let _either_way_over = std::io::copy(&mut from, &mut to);
    let _already_closed = to.shutdown(Shutdown::Write);
    let _already_closed = from.shutdown(Shutdown::Read);
}
