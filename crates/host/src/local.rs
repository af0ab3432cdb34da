//! Runs commands on this machine. No shell, no inherited environment, no process left behind.
//!
//! A transaction of `nft` is over when the kernel says that it has taken it, which is a while before
//! the program ends.

use std::collections::VecDeque;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use command::{Command, Output, Program};
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Child;

use crate::changes::Answers;
use crate::{ExecuteError, Executor};

/// How this machine is called in errors.
pub(crate) const THIS_MACHINE: &str = "this machine";

/// Where programs are looked for, wherever we were started from.
pub(crate) const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How much a command may read and write.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// The longest input, in bytes.
    pub stdin: usize,
    /// The longest standard output, in bytes; one byte more is an error.
    pub stdout: usize,
    /// How much of the standard error is kept, in bytes; the rest is dropped.
    pub stderr: usize,
}

impl Default for Limits {
    /// Room for the listing of several hundred thousand map elements.
    fn default() -> Self {
        Self { stdin: 64 << 20, stdout: 128 << 20, stderr: 64 << 10 }
    }
}

impl Limits {
    pub(crate) fn check_input(&self, host: &str, command: &Command) -> Result<(), ExecuteError> {
        let size = command.stdin.len();
        if size <= self.stdin {
            return Ok(());
        }
        Err(ExecuteError::InputTooLong {
            host: host.to_owned(),
            command: command.to_string(),
            size,
            limit: self.stdin,
        })
    }
}

/// Runs commands on this machine.
#[derive(Clone, Debug)]
pub struct Local {
    deadline: Duration,
    limits: Limits,
    path: String,
    own: OwnProcesses,
    answers: Answers,
    standby: Standby,
}

impl Default for Local {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(30),
            limits: Limits::default(),
            path: SYSTEM_PATH.to_owned(),
            own: OwnProcesses::default(),
            answers: Answers::default(),
            standby: Standby::default(),
        }
    }
}

impl Local {
    /// Returns an executor with a deadline of 30 seconds and the default [`Limits`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how long a command may take. One that takes longer is killed.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets how much a command may read and write.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets where programs are looked for, in place of the system's usual directories.
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// Starts the `nft` of the next transaction before there is one, once a first has succeeded.
    ///
    /// It asks the kernel nothing before it has read its input to the end, so that it may wait as
    /// long as it takes. One process waits for all clones; it ends with the last of them.
    #[must_use]
    pub fn keep_ready(mut self) -> Self {
        self.standby = Standby(Some(Arc::default()));
        self
    }

    /// The processes that this executor and its clones started, to tell their changes from others'.
    #[must_use]
    pub fn own_processes(&self) -> OwnProcesses {
        self.own.clone()
    }

    /// Runs `command` with a deadline of its own. Clones may run at the same time.
    ///
    /// # Errors
    ///
    /// As [`Executor::run`].
    pub async fn run_within(
        &self,
        command: &Command,
        deadline: Duration,
    ) -> Result<Output, ExecuteError> {
        tokio::time::timeout(deadline, self.run_to_end(command))
            .await
            .unwrap_or_else(|_| Err(ExecuteError::deadline(THIS_MACHINE, command, deadline)))
    }

    /// Where a program is; its bare name when it is nowhere, so that starting it says so.
    ///
    /// Given a path, and only then, the standard library starts a program without copying this
    /// process first (`posix_spawn` in place of `fork`), which costs milliseconds when it is large.
    fn find(&self, program: &str) -> PathBuf {
        let directories = self.path.split(':').filter(|it| !it.is_empty()).map(Path::new);
        let found = directories.map(|it| it.join(program)).find(|it| is_executable(it));
        found.unwrap_or_else(|| PathBuf::from(program))
    }

    async fn run_to_end(&self, command: &Command) -> Result<Output, ExecuteError> {
        self.limits.check_input(THIS_MACHINE, command)?;
        let cannot_start = |source: io::Error| {
            ExecuteError::cannot_start(THIS_MACHINE, command.program, &source.to_string())
        };

        if !is_transaction(command) {
            let child = self.spawn(command).map_err(cannot_start)?;
            return end(child, command.clone(), self.limits).await;
        }
        let listening = self.answers.listen();
        let child = match self.standby.take() {
            Some(child) => child,
            None => self.spawn(command).map_err(cannot_start)?,
        };
        let process = child.id();
        // One that stood by was started long ago.
        self.own.remember(process);
        let mut ending = Box::pin(end(child, command.clone(), self.limits));
        let taken = async {
            match listening.as_ref().zip(process) {
                Some((listening, process)) => listening.transaction_of(process).await,
                None => std::future::pending().await,
            }
        };
        let output = tokio::select! {
            output = &mut ending => output?,
            () = taken => {
                // It has nothing more to say, and is given the time to end by itself.
                tokio::spawn(tokio::time::timeout(self.deadline, ending));
                Output { status: Some(0), ..Output::default() }
            }
        };
        if output.succeeded() {
            self.standby.fill(|| self.spawn(command).ok());
        }
        Ok(output)
    }

    fn spawn(&self, command: &Command) -> io::Result<Child> {
        let child = tokio::process::Command::new(self.find(command.program.name()))
            .args(&command.args)
            .env_clear()
            .env("PATH", &self.path)
            .env("LC_ALL", "C")
            .current_dir("/")
            .stdin(if command.stdin.is_empty() { Stdio::null() } else { Stdio::piped() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // An interrupt typed at our terminal is for us alone.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        self.own.remember(child.id());
        Ok(child)
    }
}

/// Whether the command is one transaction of the kernel and nothing else, so that it has succeeded
/// when the kernel has taken a transaction of its process. All such commands differ in their input
/// alone.
pub(crate) fn is_transaction(command: &Command) -> bool {
    command.program == Program::Nft && command.args == ["-f", "-"] && !command.stdin.is_empty()
}

/// Writes the input and waits for the end.
async fn end(mut child: Child, command: Command, limits: Limits) -> Result<Output, ExecuteError> {
    let cannot_start = |source: io::Error| {
        ExecuteError::cannot_start(THIS_MACHINE, command.program, &source.to_string())
    };
    let stdin = child.stdin.take();
    let stdout = child.stdout.take();
    let stderr = child.stderr.take();
    let write = async {
        if let Some(mut stdin) = stdin {
            // A program that ends before it has read everything says why by other means.
            let _ = stdin.write_all(command.stdin.as_bytes()).await;
        }
    };
    let ((), stdout, stderr) = tokio::join!(
        write,
        read_all(stdout, limits.stdout),
        read_beginning(stderr, limits.stderr),
    );
    let stdout = stdout
        .map_err(cannot_start)?
        .ok_or_else(|| ExecuteError::output_too_long(THIS_MACHINE, &command, limits.stdout))?;
    let stderr = stderr.map_err(cannot_start)?;
    let status = child.wait().await.map_err(cannot_start)?;

    Ok(Output { status: status.code(), stdout: text(stdout), stderr: text(stderr) })
}

impl Executor for Local {
    fn run<'a>(&'a mut self, command: &'a Command) -> BoxFuture<'a, Result<Output, ExecuteError>> {
        Box::pin(self.run_within(command, self.deadline))
    }
}

/// The program of the next transaction, where it is wanted.
#[derive(Clone, Debug, Default)]
struct Standby(Option<Arc<Mutex<Option<Child>>>>);

impl Standby {
    /// Takes the one that waits; none that has ended.
    fn take(&self) -> Option<Child> {
        let mut child = self.0.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        matches!(child.try_wait(), Ok(None)).then_some(child)
    }

    fn fill(&self, start: impl FnOnce() -> Option<Child>) {
        if let Some(standby) = &self.0 {
            let mut waiting = standby.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.is_none() {
                *waiting = start();
            }
        }
    }
}

/// The processes that a [`Local`] started last, by number.
///
/// The kernel tells with every firewall change which process made it. Numbers are used again after
/// a while, so only the latest are remembered.
#[derive(Clone, Debug, Default)]
pub struct OwnProcesses(Arc<Mutex<VecDeque<u32>>>);

impl OwnProcesses {
    const REMEMBERED: usize = 256;

    /// Whether `pid` is one of ours.
    #[must_use]
    pub fn contains(&self, pid: u32) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&pid)
    }

    fn remember(&self, pid: Option<u32>) {
        let Some(pid) = pid else { return };
        let mut pids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pids.len() == Self::REMEMBERED {
            pids.pop_front();
        }
        pids.push_back(pid);
    }
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
}

/// Turns output into text without refusing any; what is not UTF-8 cannot be of interest to us.
pub(crate) fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|bytes| String::from_utf8_lossy(bytes.as_bytes()).into_owned())
}

/// Returns everything up to the end, or nothing when that is more than `limit` bytes.
async fn read_all(
    reader: Option<impl AsyncRead + Unpin>,
    limit: usize,
) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    if let Some(reader) = reader {
        reader.take(limit as u64 + 1).read_to_end(&mut bytes).await?;
    }
    Ok((bytes.len() <= limit).then_some(bytes))
}

/// Returns the first `limit` bytes and reads on to the end, so that the writer is never held up.
async fn read_beginning(
    reader: Option<impl AsyncRead + Unpin>,
    limit: usize,
) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut reader) = reader {
        (&mut reader).take(limit as u64).read_to_end(&mut bytes).await?;
        tokio::io::copy(&mut reader, &mut tokio::io::sink()).await?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_the_first_of_its_name_that_may_be_run() -> io::Result<()> {
        let base = tempfile::tempdir()?;
        let directory = |name: &str| base.path().join(name);
        for (name, mode) in [("text", 0o644), ("first", 0o755), ("second", 0o755)] {
            std::fs::create_dir(directory(name))?;
            let file = directory(name).join("nft");
            std::fs::write(&file, "#!/bin/sh\n")?;
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode))?;
        }
        std::fs::create_dir_all(directory("folder").join("nft"))?;
        let names = ["nowhere", "folder", "text", "first", "second"];
        let path = names.map(|it| directory(it).display().to_string()).join(":");
        let local = Local::new().path(path);
        assert_eq!(local.find("nft"), directory("first").join("nft"));
        assert_eq!(local.find("conntrack"), PathBuf::from("conntrack"));
        Ok(())
    }
}
