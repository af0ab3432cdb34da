//! A program that goes on running while a test talks to it.

use std::fmt;
use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait;

/// A running program. Dropping it kills it.
pub struct Daemon {
    name: String,
    child: Mutex<Child>,
    log: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Daemon {
    /// Starts `command` with its standard output and error in one log, and in a process group
    /// of its own. Give it a [`super::Machine::command`] to start it inside a machine.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn start(name: impl Into<String>, mut command: Command) -> anyhow::Result<Self> {
        let name = name.into();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        let log = Arc::default();
        let mut readers = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            readers.push(collect(stdout, Arc::clone(&log)));
        }
        if let Some(stderr) = child.stderr.take() {
            readers.push(collect(stderr, Arc::clone(&log)));
        }
        Ok(Self { name, child: Mutex::new(child), log, readers })
    }

    /// The process id; the program's own, as nothing stands between.
    #[must_use]
    pub fn pid(&self) -> u32 {
        lock(&self.child).id()
    }

    /// Everything that the program has written to its standard output and error so far.
    #[must_use]
    pub fn log(&self) -> String {
        lock(&self.log).clone()
    }

    /// Checks that the program still runs.
    ///
    /// # Errors
    ///
    /// When it has ended; the message says how, and shows its log.
    pub fn check_alive(&self) -> anyhow::Result<()> {
        self.check_running().with_context(|| self.log_for_people())
    }

    fn check_running(&self) -> anyhow::Result<()> {
        let ended = lock(&self.child).try_wait().context("ask for the state of a child")?;
        let Some(status) = ended else { return Ok(()) };
        // Its last words may still be on their way. Only a child of its own that lives on keeps
        // the streams open.
        let _still_open = wait::until("its log has ended", Duration::from_millis(500), || {
            self.readers.iter().all(JoinHandle::is_finished).then_some(())
        });
        bail!("it has ended: {status}")
    }

    fn log_for_people(&self) -> String {
        format!("{}; its log:\n{}", self.name, self.log())
    }

    /// Waits until `ready` has an answer. Fails at once when the program ends before.
    ///
    /// # Errors
    ///
    /// When the program ends, or the deadline passes; the message shows its log.
    pub fn wait_until<T>(
        &self,
        what: &str,
        deadline: Duration,
        mut ready: impl FnMut(&Self) -> Option<T>,
    ) -> anyhow::Result<T> {
        let answer = wait::until_ok(what, deadline, || {
            let answer = ready(self);
            if answer.is_none() {
                self.check_running()?;
            }
            Ok(answer)
        });
        answer.with_context(|| self.log_for_people())
    }

    /// Waits until the log has `text`.
    ///
    /// # Errors
    ///
    /// As [`Self::wait_until`].
    pub fn wait_for_log(&self, text: &str, deadline: Duration) -> anyhow::Result<()> {
        let what = format!("`{text}` in the log");
        self.wait_until(&what, deadline, |it| it.log().contains(text).then_some(()))
    }

    /// Sends the program a signal.
    ///
    /// # Errors
    ///
    /// When it has already ended.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        self.check_alive()?;
        let pid = i32::try_from(self.pid())?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("signal {}", self.name))
    }

    /// Waits until the program has ended.
    ///
    /// # Errors
    ///
    /// When it has not within the deadline.
    pub fn wait(&self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        wait::until_ok(&what, deadline, || Ok(lock(&self.child).try_wait()?))
    }

    /// Kills the program with SIGKILL and waits for its end, as a power cut would.
    pub fn kill(&self) {
        let mut child = lock(&self.child);
        let _already_ended = child.kill();
        let _status = child.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
        // The readers are not joined: a grandchild may still hold the streams open.
        self.readers.clear();
    }
}

impl fmt::Debug for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Daemon").field("name", &self.name).field("pid", &self.pid()).finish()
    }
}

fn collect(stream: impl Read + Send + 'static, log: Arc<Mutex<String>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while stream.read_until(b'\n', &mut line).is_ok_and(|it| it > 0) {
            lock(&log).push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
