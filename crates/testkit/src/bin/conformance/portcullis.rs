//! Portcullis on the stage: a gateway on the internet, an agent on every node.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use testkit::lab::Daemon;
use testkit::{internet, wait};

use crate::stage::Stage;

const GATEWAY: &str = "g1";
const LIMIT: Duration = Duration::from_secs(60);

/// The account that the shipped role is for.
const ACCOUNT: &str = "system:serviceaccount:portcullis-system:portcullis-agent";

/// The programs. They end when this is dropped.
pub(crate) struct Portcullis {
    agents: Vec<Daemon>,
    gateway: Daemon,
}

impl Portcullis {
    /// Installs the kinds and the role, declares the gateway, and starts everything.
    pub(crate) fn start(program: &Path, tree: &Path, stage: &Stage) -> anyhow::Result<Self> {
        for file in ["crds/edgegateways.portcullis.dev.yaml", "rbac/agent.yaml"] {
            let path = tree.join("deploy").join(file);
            let text = std::fs::read_to_string(&path);
            stage.apply(&text.with_context(|| format!("cannot read {}", path.display()))?)?;
        }
        let established = "--for=condition=Established";
        stage.kubectl(&["wait", established, "crd/edgegateways.portcullis.dev"])?;
        let configuration = declare(program, stage)?;
        let text = configuration.display().to_string();
        let gateway = stage.gateway.spawn(program, &["gateway", "run", "--config", &text])?;
        let kubeconfig = stage.account(ACCOUNT, &[])?;
        let mut agents = Vec::new();
        for node in stage.cluster.nodes() {
            let mut command = node.holder().command(program);
            command.arg("agent").arg("--kubeconfig").arg(&kubeconfig);
            command.args(["--name", &format!("agent-{}", node.name()), "--node", node.name()]);
            agents.push(Daemon::start(format!("agent on {}", node.name()), command)?);
        }
        let portcullis = Self { agents, gateway };
        let ready = "--for=condition=Connected=true";
        wait::until_ok("the gateway to be connected", LIMIT, || {
            portcullis.check_alive()?;
            let kind = format!("edgegateway/{GATEWAY}");
            Ok(stage.kubectl(&["wait", ready, &kind, "--timeout=1s"]).ok())
        })
        .with_context(|| portcullis.logs())?;
        Ok(portcullis)
    }

    fn check_alive(&self) -> anyhow::Result<()> {
        self.agents.iter().chain([&self.gateway]).try_for_each(Daemon::check_alive)
    }

    /// What everybody logged.
    pub(crate) fn logs(&self) -> String {
        let log = |(name, daemon): (String, &Daemon)| format!("--- {name}\n{}\n", daemon.log());
        let agents = self.agents.iter().enumerate();
        let agents = agents.map(|(number, it)| (format!("agent {}", number + 1), it));
        agents.chain([(GATEWAY.to_owned(), &self.gateway)]).map(log).collect()
    }

    /// Keeps what everybody logged.
    pub(crate) fn keep_logs(&self, path: &Path) -> anyhow::Result<()> {
        std::fs::write(path, self.logs())
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Declares the gateway as an administrator does, and writes its configuration.
fn declare(program: &Path, stage: &Stage) -> anyhow::Result<PathBuf> {
    let directory = stage.cluster.control_plane().directory();
    let path = directory.join("gateway.toml");
    let mut create = Command::new(program);
    create.args(["gateway", "create", GATEWAY, "--cluster", "conformance"]);
    create.args(["--endpoint", &internet::public(1).to_string(), "--format", "config"]);
    for address in stage.offered() {
        create.args(["--address", &address.to_string()]);
    }
    create.arg("--kubeconfig").arg(stage.cluster.control_plane().admin().kubeconfig());
    let errors = File::create(directory.join("gateway-create.log"))?;
    let output = create.stderr(Stdio::from(errors)).output().context("cannot run the program")?;
    if !output.status.success() {
        let said = std::fs::read_to_string(directory.join("gateway-create.log"));
        bail!("gateway create: {}", said.unwrap_or_default().trim());
    }
    let text = String::from_utf8(output.stdout).context("a configuration that is no text")?;
    let own: Vec<_> = text.lines().filter(|it| !it.starts_with("stateDirectory")).collect();
    let state = directory.join("gateway-state");
    std::fs::write(&path, format!("stateDirectory = {state:?}\n{}\n", own.join("\n")))?;
    Ok(path)
}
