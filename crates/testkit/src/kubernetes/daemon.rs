//! Child processes that never outlive this process.
//!
//! The kernel's parent-death signal is the bond: it fires even when this process is killed. It
//! fires as well when the *thread* that started a child ends, so one thread that never ends
//! starts them all.

use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait::until_ok;

/// The end of a log that an error message quotes.
const LOG_TAIL_LINES: usize = 15;

/// A command that is killed by the kernel when this process ends.
pub(super) fn bound_command(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program.as_ref());
    command
}

/// A running program with its log.
#[derive(Debug)]
pub(super) struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts a command made by [`bound_command`]; its output goes to `log`.
    pub(super) fn start(name: &str, mut command: Command, log: PathBuf) -> anyhow::Result<Self> {
        let output = File::options().create(true).append(true).open(&log);
        let output = output.with_context(|| format!("cannot write {}", log.display()))?;
        let errors = output.try_clone().context("cannot share a log between two streams")?;
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let child = start_for_good(command).with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// The process that was started: the program itself, or what entered its namespaces for it.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails when the program has ended, quoting the end of its log.
    pub(super) fn ensure_running(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait().context("cannot ask for a child's state")? {
            None => Ok(()),
            Some(status) => {
                bail!("{} ended with {status}; its log ends with:\n{}", self.name, self.log_tail())
            }
        }
    }

    /// Whether the log says so.
    pub(super) fn log_contains(&self, text: &str) -> bool {
        std::fs::read_to_string(&self.log).is_ok_and(|it| it.contains(text))
    }

    fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }

    /// Asks the program to end, and kills it when it has not within `grace`.
    pub(super) fn stop(&mut self, grace: Duration) {
        self.signal(Signal::SIGTERM);
        let ended = until_ok(&self.name, grace, || Ok(self.child.try_wait()?));
        if ended.is_err() {
            self.kill();
        }
    }

    /// Kills the program and waits until it is gone.
    pub(super) fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        let _gone_either_way = self.child.wait();
    }

    fn signal(&mut self, signal: Signal) {
        // A child that was waited for has no process id of its own any more.
        if matches!(self.child.try_wait(), Ok(None)) {
            // Who entered a process namespace waits there for the program, its only child, and
            // ends after it. None of the programs that run without such a companion has children.
            let program = first_child(self.child.id()).unwrap_or(self.child.id());
            if let Ok(pid) = i32::try_from(program) {
                let _already_gone = kill(Pid::from_raw(pid), signal);
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The oldest living child of a process.
pub(super) fn first_child(pid: u32) -> Option<u32> {
    // Needs CONFIG_PROC_CHILDREN, which every distribution sets.
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// Starts a child from a thread that lives as long as this process.
pub(super) fn start_for_good(command: Command) -> anyhow::Result<Child> {
    type Request = (Command, mpsc::Sender<std::io::Result<Child>>);
    static STARTER: OnceLock<mpsc::Sender<Request>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (sender, requests) = mpsc::channel::<Request>();
        std::thread::spawn(move || {
            for (mut command, answer) in requests {
                let _asker_gone = answer.send(command.spawn());
            }
        });
        sender
    });
    let (answer, child) = mpsc::channel();
    starter.send((command, answer)).context("the thread that starts programs is gone")?;
    Ok(child.recv().context("the thread that starts programs is gone")??)
}

/// Runs a short command to its end.
///
/// # Errors
///
/// Fails with the command and what it said on standard error when it ends in any other way than well.
pub(super) fn run(command: &mut Command) -> anyhow::Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        let how = output
            .status
            .signal()
            .map_or_else(|| output.status.to_string(), |it| format!("signal {it}"));
        bail!("{command:?} failed ({how}): {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
