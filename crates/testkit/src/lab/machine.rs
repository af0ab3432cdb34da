//! One machine of a lab.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{Read, Write as _};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::agent::{self, Agent};
use super::{Daemon, Shared};
use crate::requirement::{self, Missing};

/// One machine of a lab. Clones are the same machine.
#[derive(Clone)]
pub struct Machine(Shared<Inner>);

struct Inner {
    name: String,
    agent: Agent,
}

/// What a program left behind.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
}

/// How long a program may run under [`Machine::run`].
const RUN_DEADLINE: Duration = Duration::from_secs(60);

impl Machine {
    pub(super) fn new(name: &str, agent: Agent) -> Self {
        Self(Shared::new(Inner { name: name.to_owned(), agent }))
    }

    pub(crate) fn agent(&self) -> &Agent {
        &self.0.agent
    }

    pub(super) fn initialise(&self) -> anyhow::Result<()> {
        self.ip_batch("link set lo up\n")?;
        // A new namespace inherits some of these from the host that the test runs on.
        self.forwarding(false)?;
        for which in ["all", "default", "lo"] {
            self.sysctl(&format!("ipv4/conf/{which}/rp_filter"), "0")?;
            for key in ["accept_dad", "accept_ra", "router_solicitations"] {
                let _no_ipv6 = self.sysctl(&format!("ipv6/conf/{which}/{key}"), "0");
            }
        }
        Ok(())
    }

    /// The machine's name, which is also its host name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The process that keeps the machine's namespaces. It lives as long as the lab.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.agent().pid
    }

    /// The file of the network namespace, for programs that take one.
    #[must_use]
    pub fn net_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.pid()))
    }

    /// The command with which a person looks around in the machine.
    #[must_use]
    pub fn enter_by_hand(&self) -> String {
        let user = if self.agent().user { "--user --preserve-credentials " } else { "" };
        format!("nsenter --target {} {user}--net --mount --uts", self.pid())
    }

    /// A command that starts `program` inside the machine, for callers that want to set its
    /// environment, its standard streams, or an async runtime's way of waiting for it.
    ///
    /// The program keeps the caller's working directory and environment; `PATH` has the
    /// directories of system programs as well. Whatever still runs when the lab is dropped is
    /// killed.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(agent::agent_program());
        command
            .arg("enter")
            .arg(self.pid().to_string())
            .arg(if self.agent().user { "user" } else { "plain" })
            .arg(program)
            .env("PATH", requirement::search_path());
        command
    }

    /// Runs a program to its end, and succeeds when the program does.
    ///
    /// # Errors
    ///
    /// When it cannot be started, does not end within a minute (it is then killed), or exits
    /// with a status other than zero; the message has its standard error.
    pub fn run(&self, program: &str, args: &[&str]) -> anyhow::Result<String> {
        self.run_with_input(program, args, "")
    }

    /// Like [`Self::run`], with text for the program's standard input.
    ///
    /// # Errors
    ///
    /// As [`Self::run`].
    pub fn run_with_input(
        &self,
        program: &str,
        args: &[&str],
        input: &str,
    ) -> anyhow::Result<String> {
        let output = self.output(program, args, input)?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        bail!(
            "on {}: {program} {}: {}: {}\n(look around: {})",
            self.name(),
            args.join(" "),
            output.status,
            output.stderr.trim(),
            self.enter_by_hand()
        )
    }

    /// Runs a program to its end and returns how it ended, whether well or not.
    ///
    /// # Errors
    ///
    /// When it cannot be started, or does not end within a minute (it is then killed).
    pub fn output(&self, program: &str, args: &[&str], input: &str) -> anyhow::Result<Output> {
        let context = || format!("on {}: {program} {}", self.name(), args.join(" "));
        let mut child = self
            .command(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(context)?;
        let mut stdin = child.stdin.take().with_context(context)?;
        let stdout = child.stdout.take().with_context(context)?;
        let stderr = child.stderr.take().with_context(context)?;
        let (stdout, stderr) = (Collected::start(stdout), Collected::start(stderr));
        let pid = i32::try_from(child.id()).map(Pid::from_raw).with_context(context)?;
        let status = std::thread::scope(|scope| {
            scope.spawn(move || {
                // A program need not read what it is given.
                let _closed = stdin.write_all(input.as_bytes());
            });
            let (ended, end) = sync_channel(1);
            scope.spawn(move || ended.send(child.wait()));
            end.recv_timeout(RUN_DEADLINE).map_err(|_| {
                let _just_ended = kill(pid, Signal::SIGKILL);
                anyhow!("not ended within {RUN_DEADLINE:?}")
            })
        });
        let status = status.with_context(context)?.with_context(context)?;
        Ok(Output { status, stdout: stdout.text(), stderr: stderr.text() })
    }

    /// Fetches a page of a program that runs on the machine: `page("127.0.0.1:9464", "/status")`.
    ///
    /// # Errors
    ///
    /// When nobody answers there, or with anything but 200.
    pub fn page(&self, address: &str, path: &str) -> anyhow::Result<String> {
        let program = agent::agent_program().display().to_string();
        self.run(&program, &["page", address, path])
    }

    /// Starts a program that goes on running. It is killed when the returned value is dropped.
    ///
    /// # Errors
    ///
    /// When it cannot be started. That it ended early is noticed by [`Daemon`]'s methods.
    pub fn spawn(&self, program: impl AsRef<OsStr>, args: &[&str]) -> anyhow::Result<Daemon> {
        let mut command = self.command(&program);
        command.args(args);
        Daemon::start(format!("{} on {}", program.as_ref().display(), self.name()), command)
    }

    /// Runs `f` on a thread of this process that is inside the machine's network namespace.
    ///
    /// Sockets that it opens and programs that it starts belong to the machine; threads that it
    /// starts inherit the namespace, so an async runtime built inside `f` lives there as a whole.
    ///
    /// # Errors
    ///
    /// Where the lab needs a user namespace, which a process with threads cannot enter.
    ///
    /// # Panics
    ///
    /// When `f` does.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T, Missing> {
        let missing = |reason: String| {
            Missing::new(
                format!("enter `{}` within this process: {reason}", self.name()),
                "run as root",
            )
        };
        if self.agent().user {
            return Err(missing("its lab is in a user namespace".into()));
        }
        let namespace = File::open(self.net_path()).map_err(|it| missing(it.to_string()))?;
        let name = std::thread::current().name().map(str::to_owned);
        let mut builder = std::thread::Builder::new();
        if let Some(name) = name {
            builder = builder.name(name);
        }
        std::thread::scope(|scope| {
            let inside = builder.spawn_scoped(scope, move || {
                setns(namespace, CloneFlags::CLONE_NEWNET)?;
                Ok::<_, nix::Error>(f())
            });
            match inside.map_err(|it| missing(it.to_string()))?.join() {
                Ok(result) => result.map_err(|it| missing(it.to_string())),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

/// What a program wrote to one of its streams. Read on a thread of its own: a program that left a
/// child in the background has ended, although that child still has the stream.
struct Collected {
    bytes: Arc<Mutex<Vec<u8>>>,
    end: Receiver<()>,
}

impl Collected {
    fn start(mut stream: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let (ended, end) = sync_channel(1);
        std::thread::spawn({
            let bytes = Arc::clone(&bytes);
            move || {
                let mut part = [0; 65536];
                while let Ok(length @ 1..) = stream.read(&mut part) {
                    let mut bytes = bytes.lock().unwrap_or_else(PoisonError::into_inner);
                    bytes.extend_from_slice(&part[..length]);
                }
                let _nobody_waits = ended.send(());
            }
        });
        Self { bytes, end }
    }

    /// What there is after the program has ended.
    fn text(self) -> String {
        // Everything is in the pipe already; only a child in the background keeps it open.
        let _still_open = self.end.recv_timeout(Duration::from_millis(500));
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("name", &self.0.name).field("pid", &self.pid()).finish()
    }
}
