//! A control plane and nodes, on a wire of their own.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Node as NodeObject;
use kube::Api;
use serde_json::json;

use super::control_groups::ControlGroups;
use super::control_plane::{ControlPlane, ControlPlaneOptions, Place, blocking};
use super::deadline::until_ok;
use super::node::Node;
use super::programs::Programs;
use super::underlay::{AddressPlan, Underlay};
use super::workspace::Workspace;
use crate::Missing;

/// The image of the echo server, which is on every node; see `testbed/images/echo`.
pub const ECHO_IMAGE: &str = "localhost/echo:1";

/// Long, because a machine may be building beside; it takes some seconds.
const READY_LIMIT: Duration = Duration::from_secs(120);

/// What a cluster consists of.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// How many nodes, 1 to 9.
    pub nodes: u8,
    /// Further arguments of kube-apiserver, each with its leading dashes.
    pub api_server_arguments: Vec<String>,
}

impl Default for ClusterOptions {
    /// Two nodes.
    fn default() -> Self {
        Self { nodes: 2, api_server_arguments: Vec::new() }
    }
}

/// A running cluster. It ends when it is dropped, or with this process, whatever ends it.
#[derive(Debug)]
pub struct Cluster {
    // In the order in which they must end.
    nodes: Vec<Node>,
    control_plane: ControlPlane,
    underlay: Underlay,
    groups: ControlGroups,
}

impl Cluster {
    /// Whether a cluster can run here; for [`require`](crate::require).
    ///
    /// # Errors
    ///
    /// Says what is missing, and what to do.
    pub fn available() -> Result<(), Missing> {
        if !nix::unistd::geteuid().is_root() {
            return Err(Missing::new("real nodes need root", "run as root"));
        }
        Programs::find()?;
        ControlGroups::find("", 0)?;
        // Root of a container often is not.
        let tried = Command::new("unshare")
            .args(["--net", "--mount", "--pid", "--cgroup", "--fork", "true"])
            .output();
        match tried {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(Missing::new(
                format!(
                    "no namespaces for nodes: {}",
                    String::from_utf8_lossy(&output.stderr).trim()
                ),
                "run as root with all capabilities",
            )),
            Err(error) => Err(Missing::new(
                format!("cannot run unshare: {error}"),
                "apt-get install util-linux",
            )),
        }
    }

    /// The cluster of two nodes that all tests of this process share, started by the first that asks.
    ///
    /// Tests keep apart by working in a [fresh namespace](ControlPlane::namespace) each and by letting Kubernetes choose
    /// node ports. A test that stops something, or attaches a machine, starts its own.
    ///
    /// # Errors
    ///
    /// As [`Self::start`]; every later call fails in the same way.
    pub fn shared() -> anyhow::Result<&'static Self> {
        static SHARED: OnceLock<Result<Cluster, String>> = OnceLock::new();
        let started = SHARED
            .get_or_init(|| Self::start(ClusterOptions::default()).map_err(|it| format!("{it:#}")));
        started.as_ref().map_err(|it| anyhow::anyhow!("{it}"))
    }

    /// Starts a cluster, and returns when every node is Ready.
    ///
    /// Blocks; call it from anywhere, inside or outside of an async runtime.
    ///
    /// # Errors
    ///
    /// [`Missing`] when this machine cannot, otherwise what kept a program from starting, with the end of its log.
    pub fn start(options: ClusterOptions) -> anyhow::Result<Self> {
        anyhow::ensure!(
            (1..=9).contains(&options.nodes),
            "a test cluster has 1 to 9 nodes, not {}",
            options.nodes
        );
        Self::available()?;
        let name = Workspace::fresh_name();
        let groups = ControlGroups::find(&name, options.nodes)?;
        let workspace = Workspace::new(std::env::temp_dir().join(&name), &groups.directories())?;
        groups.make()?;
        let underlay = Underlay::new(workspace.path().join("underlay.log"))?;
        underlay.route_pods(options.nodes)?;
        let place = Place::Inside {
            holder: underlay.holder().clone(),
            address: AddressPlan::BRIDGE,
            address6: AddressPlan::BRIDGE6,
        };
        let options_of_control_plane = ControlPlaneOptions {
            api_server_arguments: options.api_server_arguments,
            scheduler: true,
        };
        let control_plane = ControlPlane::start_in(place, workspace, options_of_control_plane)?;
        blocking(async || register(&control_plane, options.nodes).await)?;
        let nodes = std::thread::scope(|scope| {
            let starts: Vec<_> = (1..=options.nodes)
                .map(|number| {
                    let (control_plane, underlay, groups) = (&control_plane, &underlay, &groups);
                    scope.spawn(move || {
                        Node::start(number, control_plane, underlay, groups, options.nodes)
                    })
                })
                .collect();
            let joined = starts
                .into_iter()
                .map(|it| it.join().unwrap_or_else(|_| anyhow::bail!("starting a node panicked")));
            joined.collect::<anyhow::Result<Vec<_>>>()
        })?;
        let cluster = Self { nodes, control_plane, underlay, groups };
        cluster.control_plane.wait_for_controllers()?;
        cluster.wait_ready()?;
        Ok(cluster)
    }

    /// The control plane: clients, kubeconfigs, manifests.
    #[must_use]
    pub fn control_plane(&self) -> &ControlPlane {
        &self.control_plane
    }

    /// The nodes, in the order of their numbers.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The wire between the nodes; attach machines to it.
    #[must_use]
    pub fn underlay(&self) -> &Underlay {
        &self.underlay
    }

    /// What exists on this machine because of the cluster: its directory, control groups and
    /// processes. All of it is gone when the cluster is.
    #[must_use]
    pub fn traces(&self) -> Vec<PathBuf> {
        let processes = [self.underlay.holder().pid()].into_iter().chain(self.control_plane.pids());
        let processes = processes.chain(self.nodes.iter().flat_map(Node::pids));
        let processes = processes.map(|it| PathBuf::from(format!("/proc/{it}")));
        let mut traces = self.groups.directories();
        traces.push(self.control_plane.directory().to_owned());
        traces.extend(processes);
        traces
    }

    /// Makes an image available on every node; see [`Node::load_image`].
    ///
    /// # Errors
    ///
    /// Names the first node that refused.
    pub fn load_image(&self, archive: &std::path::Path) -> anyhow::Result<()> {
        self.nodes.iter().try_for_each(|it| {
            it.load_image(archive).with_context(|| format!("cannot load an image on {}", it.name()))
        })
    }

    /// Waits until every node is Ready.
    ///
    /// # Errors
    ///
    /// Fails when a program of a node has ended, or after two minutes.
    pub fn wait_ready(&self) -> anyhow::Result<()> {
        blocking(async || {
            let api: Api<NodeObject> = Api::all(self.control_plane.client().await?);
            until_ok("every node to be Ready", READY_LIMIT, async || {
                self.nodes.iter().try_for_each(Node::ensure_running)?;
                let nodes = api.list(&kube::api::ListParams::default()).await?;
                Ok((nodes.items.iter().filter(|it| is_ready(it)).count() == self.nodes.len())
                    .then_some(()))
            })
            .await
        })
    }
}

/// Makes the node objects with their pod ranges before the nodes exist, so that routes and the
/// pods' network are settled when they start. The controller-manager keeps ranges that are there.
async fn register(control_plane: &ControlPlane, nodes: u8) -> anyhow::Result<()> {
    let api: Api<NodeObject> = Api::all(control_plane.client().await?);
    for number in 1..=nodes {
        let node = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": { "name": Node::name_of(number) },
            "spec": {
                "podCIDR": AddressPlan::pods(number),
                "podCIDRs": [AddressPlan::pods(number), AddressPlan::pods6(number)],
            },
        });
        let node = serde_json::from_value(node).context("a node object that is none")?;
        api.create(&kube::api::PostParams::default(), &node)
            .await
            .context("cannot make a node object")?;
    }
    Ok(())
}

fn is_ready(node: &NodeObject) -> bool {
    let conditions = node.status.iter().flat_map(|it| it.conditions.iter().flatten());
    conditions.into_iter().any(|it| it.type_ == "Ready" && it.status == "True")
}
