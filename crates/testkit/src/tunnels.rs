//! Gateways and agents of the program under test: declared as a user declares them, started where
//! a test wants them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::Machine;
use crate::lab::Daemon;

/// The name of the cluster that the agents belong to.
pub const CLUSTER: &str = "home";

/// Where each gateway tells about itself, on its own machine.
pub const PAGES: &str = "127.0.0.1:9464";

/// The same of each agent.
pub const AGENT_PAGES: &str = "127.0.0.1:9465";

/// A program, and the files that gateways and agents share or keep.
///
/// ```text
/// DIRECTORY/manifests/          what agents watch
/// DIRECTORY/authority/          the cluster's authority
/// DIRECTORY/NAME.toml           a gateway's configuration
/// DIRECTORY/NAME-state/         what it keeps
/// ```
#[derive(Clone, Debug)]
pub struct Tunnels {
    program: PathBuf,
    directory: PathBuf,
}

impl Tunnels {
    /// Uses an empty directory.
    ///
    /// # Errors
    ///
    /// When it cannot be written to.
    pub fn new(program: &Path, directory: &Path) -> anyhow::Result<Self> {
        let it = Self { program: program.to_owned(), directory: directory.to_owned() };
        for name in ["manifests", "authority"] {
            let path = it.path(name);
            std::fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        }
        Ok(it)
    }

    /// A path below the directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Writes or replaces the manifest of this name in one step, as ConfigMaps and careful editors
    /// do.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let draft = self.path("manifests").join(format!(".{name}"));
        let path = self.manifest(name);
        std::fs::write(&draft, text)
            .and_then(|()| std::fs::rename(&draft, &path))
            .with_context(|| format!("write {}", path.display()))
    }

    /// Removes the manifest of this name.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn remove(&self, name: &str) -> anyhow::Result<()> {
        let path = self.manifest(name);
        std::fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))
    }

    /// The file of the manifest of this name.
    #[must_use]
    pub fn manifest(&self, name: &str) -> PathBuf {
        self.path("manifests").join(format!("{name}.yaml"))
    }

    /// Declares a gateway that is dialled at `host` with `portcullis gateway create`, and keeps the
    /// configuration for its machine; `more` are further arguments.
    ///
    /// # Errors
    ///
    /// What the program said.
    pub fn declare(&self, name: &str, host: &str, more: &[&str]) -> anyhow::Result<()> {
        let mut create = Command::new(&self.program);
        create.args(["gateway", "create", name, "--endpoint", host, "--cluster", CLUSTER]);
        create.args(["--format", "config"]).args(more);
        create.arg("--manifests").arg(self.path("manifests"));
        create.arg("--ca-dir").arg(self.path("authority"));
        let output = create.output().context("run `portcullis gateway create`")?;
        if !output.status.success() {
            bail!("gateway create: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let text = String::from_utf8(output.stdout).context("a configuration that is no text")?;
        let state = self.path(&format!("{name}-state"));
        let ours = |it: &&str| !["stateDirectory", "metrics"].iter().any(|key| it.starts_with(key));
        let own: Vec<_> = text.lines().filter(ours).collect();
        let text = format!("stateDirectory = {state:?}\nmetrics = {PAGES:?}\n{}\n", own.join("\n"));
        let path = self.path(&format!("{name}.toml"));
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }

    /// Starts the gateway of this name on a machine.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn gateway(&self, machine: &Machine, name: &str) -> anyhow::Result<Daemon> {
        let configuration = self.path(&format!("{name}.toml")).display().to_string();
        machine.spawn(&self.program, &["gateway", "run", "--config", &configuration])
    }

    /// What the gateway on a machine tells about itself.
    ///
    /// # Errors
    ///
    /// When none runs there.
    pub fn gateway_status(&self, machine: &Machine) -> anyhow::Result<serde_json::Value> {
        Ok(serde_json::from_str(&machine.page(PAGES, "/status")?)?)
    }

    /// What the agent on a machine tells about itself.
    ///
    /// # Errors
    ///
    /// When none runs there.
    pub fn agent_status(&self, machine: &Machine) -> anyhow::Result<serde_json::Value> {
        Ok(serde_json::from_str(&machine.page(AGENT_PAGES, "/status")?)?)
    }

    /// Starts an agent of this name on a machine, with further arguments.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn agent(&self, machine: &Machine, name: &str, more: &[&str]) -> anyhow::Result<Daemon> {
        let manifests = self.path("manifests").display().to_string();
        let authority = self.path("authority").display().to_string();
        let mut arguments = vec!["agent", "--manifests", &manifests, "--ca-dir", &authority];
        arguments.extend(["--cluster", CLUSTER, "--name", name]);
        if !more.contains(&"--listen") {
            arguments.extend(["--listen", AGENT_PAGES]);
        }
        arguments.extend(more);
        machine.spawn(&self.program, &arguments)
    }
}
