//! Portcullis on the stage: a gateway on the internet, and agents as the pods that are shipped.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use testkit::kubernetes::pack_image;
use testkit::lab::Daemon;
use testkit::{internet, wait};

use crate::stage::Stage;

const GATEWAY: &str = "g1";
const NAMESPACE: &str = "portcullis-system";
const LIMIT: Duration = Duration::from_secs(90);

/// What the image is called here. It must not look like one that could be fetched.
const IMAGE: &str = "localhost/portcullis:conformance";

/// What is shipped and used here as it is, in the order in which it is applied.
const SHIPPED: [&str; 4] = [
    "crds/edgegateways.portcullis.dev.yaml",
    "agent/rbac.yaml",
    "agent/certificates.yaml",
    "agent/deployment.yaml",
];

/// The gateway's program. It ends when this is dropped; the pods end with the cluster.
pub(crate) struct Portcullis<'a> {
    stage: &'a Stage,
    gateway: Daemon,
}

impl<'a> Portcullis<'a> {
    /// Declares the gateway, starts it, and installs agents in the cluster.
    pub(crate) fn start(program: &Path, tree: &Path, stage: &'a Stage) -> anyhow::Result<Self> {
        let archive = stage.cluster.control_plane().directory().join("portcullis.tar");
        pack_image(IMAGE, program, &archive)?;
        stage.cluster.load_image(&archive)?;
        let [kind, others @ ..] = SHIPPED.map(|it| tree.join("deploy").join(it));
        stage.apply(&read(&kind)?)?;
        let established = "--for=condition=Established";
        stage.kubectl(&["wait", established, "crd/edgegateways.portcullis.dev"])?;
        let configuration = declare(program, stage)?;
        let text = configuration.display().to_string();
        let gateway = stage.gateway.spawn(program, &["gateway", "run", "--config", &text])?;
        for path in others {
            stage.apply(&with_own_image(&read(&path)?))?;
        }
        let portcullis = Self { stage, gateway };
        let ready = "--for=condition=Connected=true";
        wait::until_ok("the gateway to be connected", LIMIT, || {
            portcullis.gateway.check_alive()?;
            let gateway = format!("edgegateway/{GATEWAY}");
            Ok(stage.kubectl(&["wait", ready, &gateway, "--timeout=1s"]).ok())
        })
        .with_context(|| portcullis.logs())?;
        Ok(portcullis)
    }

    /// What everybody logged, and how the pods are.
    pub(crate) fn logs(&self) -> String {
        let selector = "app.kubernetes.io/name=portcullis-agent";
        let ask = |arguments: &[&str]| match self.stage.kubectl(arguments) {
            Ok(said) => said,
            Err(error) => format!("{error:#}\n"),
        };
        let pods = ask(&["get", "pods", "-n", NAMESPACE, "-o", "wide"]);
        let events = ask(&["get", "events", "-n", NAMESPACE]);
        let agents = ask(&["logs", "-n", NAMESPACE, "-l", selector, "--prefix", "--tail=-1"]);
        format!("{pods}\n{events}\n{agents}\n--- {GATEWAY}\n{}", self.gateway.log())
    }

    /// Keeps what everybody logged.
    pub(crate) fn keep_logs(&self, path: &Path) -> anyhow::Result<()> {
        std::fs::write(path, self.logs())
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// A manifest whose containers run the image that is here.
fn with_own_image(manifest: &str) -> String {
    let line = |it: &str| match it.split_once("image: portcullis:") {
        Some((before, _)) => format!("{before}image: {IMAGE}\n"),
        None => format!("{it}\n"),
    };
    manifest.lines().map(line).collect()
}

/// Declares the gateway as an administrator does, and writes its configuration.
fn declare(program: &Path, stage: &Stage) -> anyhow::Result<PathBuf> {
    let control_plane = stage.cluster.control_plane();
    let path = control_plane.directory().join("gateway.toml");
    let mut create = Command::new(program);
    create.args(["gateway", "create", GATEWAY, "--cluster", "conformance"]);
    create.args(["--endpoint", &internet::public(1).to_string(), "--format", "config"]);
    for address in stage.offered() {
        create.args(["--address", &address.to_string()]);
    }
    create.arg("--kubeconfig").arg(control_plane.admin().kubeconfig());
    let output = create.output().context("cannot run the program")?;
    if !output.status.success() {
        bail!("gateway create: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8(output.stdout).context("a configuration that is no text")?;
    let own: Vec<_> = text.lines().filter(|it| !it.starts_with("stateDirectory")).collect();
    let state = control_plane.directory().join("gateway-state");
    let text = format!("stateDirectory = {state:?}\n{}\n", own.join("\n"));
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
