//! The machines of the demo, the place where objects are written, and the controller on the host.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use testkit::Lab;
use testkit::border::{self, Edge};
use testkit::lab::Daemon;

use crate::place::{Directory, Kubernetes, Place};

/// How long the controller may take to be ready.
const READY_LIMIT: Duration = Duration::from_secs(20);

/// A host with two nodes behind it, a client outside and a client on the VPN.
pub(crate) struct Border {
    // In the order in which they must end.
    controller: Mutex<Option<Daemon>>,
    /// Where objects are written and nodes live.
    pub(crate) place: Box<dyn Place>,
    /// The host and its clients.
    pub(crate) edge: Edge,
    /// Where the nodes are part of the lab, the place has it.
    _lab: Option<Lab>,
    program: PathBuf,
}

impl Border {
    /// Builds everything from a directory of manifests below `scratch`.
    pub(crate) fn on_directory(program: &Path, scratch: &Path) -> Result<Self> {
        let machines = border::Border::build(Lab::new("demo").map_err(|it| anyhow!("{it}"))?)?;
        let edge = Edge {
            host: machines.host.clone(),
            outside: machines.outside.clone(),
            vpn: machines.vpn.clone(),
        };
        let place = Box::new(Directory::build(machines, scratch, program)?);
        Ok(Self {
            controller: Mutex::default(),
            place,
            edge,
            _lab: None,
            program: program.to_owned(),
        })
    }

    /// Builds everything around a real cluster.
    pub(crate) fn on_kubernetes(program: &Path) -> Result<Self> {
        let lab = Lab::as_root("demo").map_err(|it| anyhow!("{it}"))?;
        let edge = Edge::build(&lab)?;
        let place = Box::new(Kubernetes::build(&edge.host)?);
        Ok(Self {
            controller: Mutex::default(),
            place,
            edge,
            _lab: Some(lab),
            program: program.to_owned(),
        })
    }

    /// Starts `portcullis controller` on the host, and returns when it says that all is applied.
    pub(crate) fn start_controller(&self) -> Result<()> {
        let [flag, value] = self.place.source();
        let arguments = ["controller", &flag, &value, "--host", "edge", "--resync", "5"];
        let controller = self.edge.host.spawn(&self.program, &arguments)?;
        *self.controller()? = Some(controller);
        self.until("the controller to be ready", READY_LIMIT, || {
            let Ok(said) = self.portcullis(&["status", "-o", "json"]) else { return Ok(false) };
            let status: serde_json::Value = serde_json::from_str(&said)?;
            Ok(status["hosts"]["edge"]["revision"].as_u64().is_some_and(|it| it > 0))
        })?;
        Ok(())
    }

    fn controller(&self) -> Result<MutexGuard<'_, Option<Daemon>>> {
        self.controller.lock().map_err(|_| anyhow!("the demo panicked"))
    }

    /// Kills the controller without a warning, as a crash would.
    pub(crate) fn kill_controller(&self) -> Result<()> {
        *self.controller()? = None;
        Ok(())
    }

    /// Runs one command of `portcullis` on the host and returns what it printed.
    pub(crate) fn portcullis(&self, arguments: &[&str]) -> Result<String> {
        let program = self.program.to_str().context("the program's path is no UTF-8")?;
        self.edge.host.run(program, arguments)
    }

    /// Everything that the controller logged so far.
    pub(crate) fn controller_log(&self) -> String {
        let controller = self.controller.lock().ok();
        controller.and_then(|it| it.as_ref().map(Daemon::log)).unwrap_or_default()
    }

    /// How a person looks around.
    pub(crate) fn look_around(&self) -> String {
        let mut text = String::from("  A shell on a machine (add a command to run only that):\n");
        let Edge { host, outside, vpn } = &self.edge;
        for machine in [host, outside, vpn] {
            text += &format!("  {:<9} {}\n", machine.name(), machine.enter_by_hand());
        }
        let enter = host.enter_by_hand();
        let program = self.program.display();
        text += &self.place.look_around();
        text + &format!(
            "  What the controller says:\n    {enter} {program} status\n  \
             What the kernel has:\n    {enter} nft list table inet portcullis\n  \
             Ask from outside:\n    {} nc -w 1 {} 443\n",
            outside.enter_by_hand(),
            border::HOST
        )
    }

    /// Waits until `reached` is true and returns how long that took.
    pub(crate) fn until(
        &self,
        what: &str,
        patience: Duration,
        mut reached: impl FnMut() -> Result<bool>,
    ) -> Result<Duration> {
        let start = Instant::now();
        while !reached()? {
            if let Some(controller) = &*self.controller()? {
                controller.check_alive()?;
            }
            ensure!(start.elapsed() < patience, "{what}: not within {} s", patience.as_secs());
        }
        Ok(start.elapsed())
    }
}
