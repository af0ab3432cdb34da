//! The machines of the demo, the wires between them, and the controller on the host.

use std::path::Path;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;
use testkit::border::Border as Machines;
use testkit::lab::Daemon;
use testkit::probe::EchoServer;
use testkit::{Lab, Protocol};

/// What every node serves: a name for the table, the node port, the protocol.
const BACKENDS: [(u16, Protocol); 4] = [
    (30443, Protocol::Tcp),
    (30053, Protocol::Udp),
    (30022, Protocol::Tcp),
    (30080, Protocol::Tcp),
];

/// The objects that the story begins with.
const MANIFESTS: [(&str, &str); 7] = [
    ("host.yaml", include_str!("../manifests/host.yaml")),
    ("n1.yaml", include_str!("../manifests/n1.yaml")),
    ("n2.yaml", include_str!("../manifests/n2.yaml")),
    ("blog.yaml", include_str!("../manifests/blog.yaml")),
    ("dns.yaml", include_str!("../manifests/dns.yaml")),
    ("admin.yaml", include_str!("../manifests/admin.yaml")),
    ("shop.yaml", include_str!("../manifests/shop.yaml")),
];

/// A host with two nodes behind it, a client outside and a client on the VPN.
pub(crate) struct Border {
    /// The host, the clients and the nodes.
    pub(crate) machines: Machines,
    servers: Mutex<[Vec<EchoServer>; 2]>,
    manifests: TempDir,
    program: std::path::PathBuf,
    controller: Mutex<Option<Daemon>>,
}

impl Border {
    /// Builds everything and starts the controller.
    pub(crate) fn build(program: &Path) -> Result<Self> {
        let lab = Lab::new("demo").map_err(|it| anyhow::anyhow!("{it}"))?;
        let machines = Machines::build(lab)?;
        let manifests = TempDir::with_prefix("portcullis-demo-")?;
        let servers = Mutex::default();
        let (program, controller) = (program.to_owned(), Mutex::default());
        let border = Self { machines, servers, manifests, program, controller };
        for number in [1, 2] {
            border.start_node(number)?;
        }
        for (name, content) in MANIFESTS {
            border.write(name, content)?;
        }
        border.start_controller()?;
        Ok(border)
    }

    /// Writes or replaces one manifest, in one step, as an editor or a ConfigMap does.
    pub(crate) fn write(&self, name: &str, content: &str) -> Result<()> {
        let path = self.manifests.path().join(name);
        let draft = self.manifests.path().join(format!(".{name}.draft"));
        std::fs::write(&draft, content).with_context(|| format!("write {}", draft.display()))?;
        std::fs::rename(&draft, &path).with_context(|| format!("write {}", path.display()))
    }

    /// The text of a manifest as the story began.
    pub(crate) fn original(name: &str) -> Result<&'static str> {
        let found = MANIFESTS.iter().find(|(it, _)| *it == name);
        found.map(|(_, content)| *content).with_context(|| format!("no manifest {name}"))
    }

    /// Opens the backends of node 1 or 2.
    pub(crate) fn start_node(&self, number: usize) -> Result<()> {
        let mut servers = Vec::new();
        for (port, protocol) in BACKENDS {
            servers.push(self.machines.serve(number, port, protocol)?);
        }
        self.servers.lock().map_err(|_| anyhow::anyhow!("a server panicked"))?[number - 1] =
            servers;
        Ok(())
    }

    /// Closes the backends of node 1 or 2 and takes its cable out.
    pub(crate) fn stop_node(&self, number: usize) -> Result<()> {
        self.servers.lock().map_err(|_| anyhow::anyhow!("a server panicked"))?[number - 1].clear();
        Ok(())
    }

    /// Starts `portcullis controller` on the host.
    pub(crate) fn start_controller(&self) -> Result<()> {
        let manifests = self.manifests.path().display().to_string();
        let arguments = [
            "controller",
            "--manifests",
            &manifests,
            "--host",
            "edge",
            "--listen",
            "127.0.0.1:9180",
            "--resync",
            "5",
        ];
        let controller = self.machines.host.spawn(&self.program, &arguments)?;
        *self.controller()? = Some(controller);
        Ok(())
    }

    fn controller(&self) -> Result<MutexGuard<'_, Option<Daemon>>> {
        self.controller.lock().map_err(|_| anyhow::anyhow!("the demo panicked"))
    }

    /// Kills the controller without a warning, as a crash would.
    pub(crate) fn kill_controller(&self) -> Result<()> {
        *self.controller()? = None;
        Ok(())
    }

    /// Runs one command of `portcullis` on the host and returns what it printed.
    pub(crate) fn portcullis(&self, arguments: &[&str]) -> Result<String> {
        let program = self.program.to_str().context("the program's path is no UTF-8")?;
        self.machines.host.run(program, arguments)
    }

    /// Everything that the controller logged so far.
    pub(crate) fn controller_log(&self) -> String {
        let controller = self.controller.lock().ok();
        controller.and_then(|it| it.as_ref().map(Daemon::log)).unwrap_or_default()
    }

    /// Lets everything live on and says how to look around.
    pub(crate) fn keep(self) -> String {
        use std::fmt::Write as _;
        let mut text = format!(
            "\nStill running. Manifests: {}\n{}",
            self.manifests.path().display(),
            self.machines.lab
        );
        let _ = self.manifests.keep();
        std::mem::forget(self.servers);
        std::mem::forget(self.controller);
        match self.machines.lab.detach() {
            Ok(kept) => {
                let pids: Vec<_> = kept.iter().map(|(_, pid)| pid.to_string()).collect();
                let _ = writeln!(text, "Stop it with: kill {}", pids.join(" "));
            }
            Err(error) => {
                let _ = writeln!(text, "cannot be kept: {error:#}");
            }
        }
        text
    }

    /// Waits until `reached` is true and returns how long that took.
    pub(crate) fn until(
        &self,
        what: &str,
        mut reached: impl FnMut() -> Result<bool>,
    ) -> Result<Duration> {
        let start = std::time::Instant::now();
        while !reached()? {
            if let Some(controller) = &*self.controller()? {
                controller.check_alive()?;
            }
            anyhow::ensure!(start.elapsed() < Duration::from_secs(20), "{what}: not within 20 s");
        }
        Ok(start.elapsed())
    }
}
