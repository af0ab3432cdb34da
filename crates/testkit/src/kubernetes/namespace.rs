//! Namespaces of the kernel, held by a process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::daemon::{Daemon, bound_command, first_child, run};
use super::programs::Programs;
use crate::wait::until_ok;

const START_LIMIT: Duration = Duration::from_secs(5);

/// A process that does nothing but hold namespaces. They, and every process in its process
/// namespace, end with it; it ends with this process.
#[derive(Debug)]
pub struct Holder {
    /// Ends first, and with it what it holds.
    _process: Daemon,
    pid: u32,
    everything: bool,
}

impl Holder {
    /// Holds a new network namespace, in which only the loopback interface exists, and is up.
    pub(super) fn network(name: &str, log: PathBuf) -> anyhow::Result<Self> {
        let mut command = bound_command("unshare");
        command.args(["--net", "--"]).arg(Programs::find()?.image("pause"));
        let process = Daemon::start(name, command, log)?;
        let pid = process.pid();
        Self::ready(process, pid, false)
    }

    /// Holds a new network, mount, process and control group namespace: all that makes a machine.
    pub(super) fn machine(name: &str, log: PathBuf) -> anyhow::Result<Self> {
        let mut command = bound_command("unshare");
        command.args([
            "--net",
            "--mount",
            "--cgroup",
            "--pid",
            "--fork",
            "--kill-child=KILL",
            "--mount-proc",
            "--",
        ]);
        command.arg(Programs::find()?.image("pause"));
        let mut process = Daemon::start(name, command, log)?;
        // The first process of the namespace is a child of the one that made it.
        let parent = process.pid();
        let pid = until_ok(name, START_LIMIT, || {
            process.ensure_running()?;
            Ok(first_child(parent))
        })?;
        Self::ready(process, pid, true)
    }

    fn ready(mut process: Daemon, pid: u32, everything: bool) -> anyhow::Result<Self> {
        let executable = PathBuf::from(format!("/proc/{pid}/exe"));
        until_ok("new namespaces", START_LIMIT, || {
            process.ensure_running()?;
            // Once it is the pause program, everything before it was done.
            Ok(std::fs::read_link(&executable).ok().filter(|it| it.ends_with("pause")))
        })?;
        let holder = Self { _process: process, pid, everything };
        holder.run("ip", &["link", "set", "lo", "up"])?;
        Ok(holder)
    }

    /// The process that holds the namespaces; `/proc/PID/ns/net` is the network namespace.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The network namespace as a file, for `setns` or `nsenter --net=`.
    #[must_use]
    pub fn network_namespace(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.pid))
    }

    /// A command that runs inside; add arguments to it.
    #[must_use]
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        self.enter(&mut command, program.as_ref());
        command
    }

    /// As [`Self::command`], and killed when this process ends.
    pub(super) fn bound_command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = bound_command("nsenter");
        self.enter(&mut command, program.as_ref());
        command
    }

    fn enter(&self, command: &mut Command, program: &Path) {
        command.arg("--target").arg(self.pid.to_string()).arg("--net");
        if self.everything {
            command.args(["--mount", "--pid", "--cgroup"]);
            // `nsenter` forks to enter a process namespace; what it started then ends with it.
            command.args(["--", "setpriv", "--pdeathsig", "KILL"]);
        }
        command.arg("--").arg(program);
    }

    /// Runs a short command inside, to its end.
    ///
    /// # Errors
    ///
    /// Fails when the command does, with what it said.
    pub fn run(&self, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
        run(self.command(program).args(arguments))
    }
}
