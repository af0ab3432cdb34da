//! What all tests share: one cluster, the host before it and its clients. Tests take turns.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use testkit::border::Edge;
use testkit::kubernetes::{AddressPlan, Cluster, ClusterOptions};
use testkit::{Lab, require, wait};

use crate::objects::{NAMESPACE, pod};

/// How long anything may take on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

const KIND: &str = include_str!("../../../../deploy/crds/hosts.portcullis.dev.yaml");

/// What the controller may do.
pub(crate) const ROLE: &str = include_str!("../../../../deploy/rbac/controller.yaml");

/// The account of the shipped role.
const ACCOUNT: &str = "system:serviceaccount:portcullis:portcullis";

/// The cluster, with Portcullis' kind, role and account, and echo pods on both nodes.
pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    pub(crate) lab: Lab,
    /// The host is the nodes' gateway, so that pods see true sources and can answer.
    pub(crate) edge: Edge,
    /// The shipped role, for programs on the host.
    pub(crate) kubeconfig: PathBuf,
}

/// The stage, for the test that calls this and nobody else. `None` where nodes cannot run.
pub(crate) fn take() -> anyhow::Result<Option<MutexGuard<'static, Stage>>> {
    static STAGE: OnceLock<Result<Mutex<Stage>, String>> = OnceLock::new();
    let Some(()) = require(Cluster::available()) else { return Ok(None) };
    let stage = STAGE.get_or_init(|| match Stage::build() {
        Ok(stage) => Ok(Mutex::new(stage)),
        Err(error) => Err(format!("{error:#}")),
    });
    let stage = stage.as_ref().map_err(|it| anyhow::anyhow!("{it}"))?;
    // A test that failed cleaned up as far as it could.
    Ok(Some(stage.lock().unwrap_or_else(PoisonError::into_inner)))
}

impl Stage {
    fn build() -> anyhow::Result<Self> {
        let lab = Lab::as_root("kubernetes")?;
        let edge = Edge::build(&lab)?;
        let cluster = Cluster::start(ClusterOptions::default())?;
        let gateway = format!("{}/{}", AddressPlan::GATEWAY, AddressPlan::PREFIX);
        let gateway6 = format!("{}/{}", AddressPlan::GATEWAY6, AddressPlan::PREFIX6);
        cluster.underlay().attach(&edge.host, "nodes0", &[&gateway, &gateway6])?;
        for number in (1..).take(cluster.nodes().len()) {
            let (node, node6) = (AddressPlan::node(number), AddressPlan::node6(number));
            edge.host.route(&AddressPlan::pods(number), &node.to_string())?;
            edge.host.route(&AddressPlan::pods6(number), &node6.to_string())?;
        }
        let mut stage = Self { cluster, lab, edge, kubeconfig: PathBuf::new() };
        stage.kubeconfig = stage.account(ACCOUNT)?;
        stage.apply(&format!("{KIND}\n---\n{ROLE}"))?;
        stage.kubectl(&["wait", "--for=condition=Established", "crd/hosts.portcullis.dev"])?;
        stage.kubectl(&["create", "namespace", NAMESPACE])?;
        let account = ["get", "serviceaccount", "default", "-n", NAMESPACE];
        wait::until("a new namespace", PATIENCE, || stage.kubectl(&account).ok())?;
        for node in stage.cluster.nodes() {
            stage.apply(&pod(node.name()))?;
        }
        let ready = ["wait", "--for=condition=Ready", "pod", "--all", "-n", NAMESPACE];
        stage.kubectl(&ready)?;
        Ok(stage)
    }

    /// A kubeconfig for a user on a machine that is attached to the nodes' wire.
    pub(crate) fn account(&self, name: &str) -> anyhow::Result<PathBuf> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let account = self.cluster.control_plane().user_on_underlay(name, &[]);
        Ok(runtime.block_on(account)?.kubeconfig().to_owned())
    }

    /// Applies YAML as whoever may do everything.
    pub(crate) fn apply(&self, text: &str) -> anyhow::Result<String> {
        let arguments = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        self.run(&arguments, text)
    }

    /// Runs `kubectl` as whoever may do everything.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.run(arguments, "")
    }

    fn run(&self, arguments: &[&str], input: &str) -> anyhow::Result<String> {
        let mut command = self.cluster.control_plane().kubectl()?;
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("start kubectl")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).context("give kubectl its input")?;
        }
        let output = child.wait_with_output().context("wait for kubectl")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("kubectl {}: {}", arguments.join(" "), said.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
