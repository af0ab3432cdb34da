//! A gateway before the stage's host, and agents as the pods that are shipped.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use testkit::kubernetes::pack_image;
use testkit::lab::Daemon;
use testkit::probe::{Answer, Probe, Prober};
use testkit::{Machine, Protocol, wait};

use crate::scene::{PROGRAM, Scene};
use crate::stage::{PATIENCE, Stage};

/// The gateway's address, on a wire of its own to the host, which routes between all.
pub(crate) const GATEWAY: &str = "203.0.113.1";

const NAMESPACE: &str = "portcullis-system";
const IMAGE: [&str; 2] =
    [concat!("portcullis:", env!("CARGO_PKG_VERSION")), "localhost/portcullis:test"];
const KIND: &str = include_str!("../../../../deploy/crds/edgegateways.portcullis.dev.yaml");
const ROLE: &str = include_str!("../../../../deploy/agent/rbac.yaml");
const CERTIFICATES: &str = include_str!("../../../../deploy/agent/certificates.yaml");
const AGENTS: &str = include_str!("../../../../deploy/agent/deployment.yaml");

/// A scene with a gateway and agents. Its end removes what the test made.
pub(crate) struct Published {
    scene: Scene,
    gateway: &'static Gateway,
}

/// Made by the first test that needs it; it stays with the stage.
struct Gateway {
    machine: Machine,
    daemon: Daemon,
}

impl std::ops::Deref for Published {
    type Target = Scene;

    fn deref(&self) -> &Scene {
        &self.scene
    }
}

impl Published {
    /// Waits for its turn. `None` where nodes cannot run.
    pub(crate) fn set() -> anyhow::Result<Option<Self>> {
        static MADE: OnceLock<Result<Gateway, String>> = OnceLock::new();
        let Some(scene) = Scene::set(&[])? else { return Ok(None) };
        let made = MADE.get_or_init(|| Gateway::make(&scene).map_err(|it| format!("{it:#}")));
        let gateway = made.as_ref().map_err(|it| anyhow::anyhow!("{it}"))?;
        let published = Self { scene, gateway };
        published.until(
            "two agents to be linked",
            || published.stored("edgegateway/g1"),
            |it| it["status"]["connectedAgents"] == 2,
        )?;
        Ok(Some(published))
    }

    /// As [`Scene::until`], with what everybody logged.
    pub(crate) fn until(
        &self,
        what: &str,
        ask: impl FnMut() -> anyhow::Result<Value>,
        satisfies: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        self.scene.until(what, ask, satisfies).with_context(|| self.logs())
    }

    /// Connects from outside until there is an answer.
    pub(crate) fn reached(&self, port: u16, protocol: Protocol) -> anyhow::Result<Answer> {
        let outside = &self.edge.outside;
        self.reached_from(outside, at(port)?, protocol).with_context(|| self.logs())
    }

    /// Connects from outside until nobody answers.
    pub(crate) fn closed(&self, port: u16) -> anyhow::Result<()> {
        let to = at(port)?;
        wait::until_ok(&format!("{port} is closed"), PATIENCE, || {
            let outcome = self.dial(&self.edge.outside, to, Protocol::Tcp)?;
            Ok(outcome.answer().is_none().then_some(()))
        })
    }

    /// Connects from outside every 20 ms until it is stopped.
    pub(crate) fn prober(&self, port: u16) -> anyhow::Result<Prober> {
        self.reached(port, Protocol::Tcp)?;
        let probe = Probe::new(at(port)?, Protocol::Tcp);
        self.edge.outside.prober(probe, std::time::Duration::from_millis(20))
    }

    /// The names of the agents' pods that are not on their way out.
    pub(crate) fn agents(&self) -> anyhow::Result<Vec<String>> {
        let said = self.kubectl(&["get", "pods", "-n", NAMESPACE, "-o", "json"])?;
        let pods: Value = serde_json::from_str(&said)?;
        let items = pods["items"].as_array().into_iter().flatten();
        let staying = items.filter(|it| it["metadata"]["deletionTimestamp"].is_null());
        Ok(staying.filter_map(|it| it["metadata"]["name"].as_str().map(str::to_owned)).collect())
    }

    /// the shipped role was enough for everything so far.
    pub(crate) fn nothing_was_forbidden(&self) -> anyhow::Result<()> {
        let logs = self.agents_log().to_lowercase();
        let refused = logs.lines().find(|it| it.contains("forbidden") || it.contains(" 403 "));
        ensure!(refused.is_none(), "forbidden to the shipped role: {refused:?}");
        self.gateway.daemon.check_alive()
    }

    fn agents_log(&self) -> String {
        let selector = "app.kubernetes.io/name=portcullis-agent";
        let arguments = ["logs", "-n", NAMESPACE, "-l", selector, "--prefix", "--tail=-1"];
        self.kubectl(&arguments).unwrap_or_else(|it| format!("{it:#}"))
    }

    fn logs(&self) -> String {
        let pods = self.kubectl(&["get", "pods", "-n", NAMESPACE, "-o", "wide"]);
        let name = self.gateway.machine.name();
        let (agents, gateway) = (self.agents_log(), self.gateway.daemon.log());
        format!("{pods:?}\n{agents}\n--- {name}\n{gateway}")
    }
}

impl Gateway {
    fn make(stage: &Stage) -> anyhow::Result<Self> {
        let machine = stage.lab.machine("g1")?;
        let address = format!("{GATEWAY}/24");
        stage.lab.link(
            &machine,
            "wan0",
            &[&address],
            &stage.edge.host,
            "inet0",
            &["203.0.113.254/24"],
        )?;
        machine.route("default", "203.0.113.254")?;

        let directory = stage.cluster.control_plane().directory();
        let archive = directory.join("portcullis.tar");
        pack_image(IMAGE[1], PROGRAM.as_ref(), &archive)?;
        stage.cluster.load_image(&archive)?;
        stage.cluster.control_plane().define_gateway_api()?;
        stage.apply(KIND)?;
        stage.kubectl(&[
            "wait",
            "--for=condition=Established",
            "crd/edgegateways.portcullis.dev",
        ])?;

        let mut create = Command::new(PROGRAM);
        create.args(["gateway", "create", "g1", "--endpoint", GATEWAY, "--address", GATEWAY]);
        create.args(["--cluster", "test", "--format", "config", "--kubeconfig"]);
        create.arg(stage.cluster.control_plane().admin().kubeconfig());
        let output = create.output().context("run gateway create")?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "gateway create: {said}");
        let text = String::from_utf8(output.stdout)?;
        let own: Vec<_> = text.lines().filter(|it| !it.starts_with("stateDirectory")).collect();
        let state = directory.join("g1-state");
        let path = directory.join("g1.toml");
        std::fs::write(&path, format!("stateDirectory = {state:?}\n{}\n", own.join("\n")))?;
        let path = path.display().to_string();
        let daemon = machine.spawn(PROGRAM, &["gateway", "run", "--config", &path])?;
        let agents = AGENTS.replace(IMAGE[0], IMAGE[1]);
        stage.apply(&format!("{ROLE}\n---\n{CERTIFICATES}\n---\n{agents}"))?;
        Ok(Self { machine, daemon })
    }
}

fn at(port: u16) -> anyhow::Result<SocketAddr> {
    Ok(SocketAddr::new(GATEWAY.parse()?, port))
}
