//! The library's end of the conversation with one agent.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};

use crate::message::{Ask, Reply, Request, Told};

/// Where the agent is: where the build script put it, or where the environment says
/// (`TESTKIT_AGENT`), for test programs that are moved to another place or machine.
pub fn agent_program() -> PathBuf {
    let elsewhere = std::env::var_os("TESTKIT_AGENT");
    elsewhere.map_or_else(|| PathBuf::from(env!("TESTKIT_AGENT")), PathBuf::from)
}

type Waiting = Arc<Mutex<BTreeMap<u64, SyncSender<Result<Told, String>>>>>;

/// A running agent. It ends when its standard input is closed.
pub(crate) struct Agent {
    pub(crate) pid: u32,
    /// Whether its namespaces belong to a user namespace of the lab.
    pub(crate) user: bool,
    process: Mutex<Child>,
    input: Mutex<Option<ChildStdin>>,
    next: AtomicU64,
    waiting: Waiting,
    detached: AtomicBool,
}

impl Agent {
    /// Starts an agent and waits until its namespaces stand.
    pub(crate) fn start(host_name: &str, owner: &str) -> anyhow::Result<Self> {
        let program = agent_program();
        let mut process = Command::new(&program)
            .args(["hold", host_name, owner])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // An interrupt at the terminal is for the test; the agent has to clean up after it.
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let input = process.stdin.take().context("the agent has no standard input")?;
        let output = process.stdout.take().context("the agent has no standard output")?;
        let mut output = BufReader::new(output);
        let user = match greeting(&mut output) {
            Ok(user) => user,
            Err(error) => {
                drop(input);
                let _status = process.wait();
                return Err(error);
            }
        };
        let waiting = Waiting::default();
        std::thread::spawn({
            let waiting = Arc::clone(&waiting);
            move || read_replies(output, &waiting)
        });
        Ok(Self {
            pid: process.id(),
            user,
            process: Mutex::new(process),
            input: Mutex::new(Some(input)),
            next: AtomicU64::new(1),
            waiting,
            detached: AtomicBool::new(false),
        })
    }

    /// Asks and waits for the reply. The number of the request names what it opened.
    pub(crate) fn ask(&self, ask: Ask) -> anyhow::Result<(u64, Told)> {
        let (id, reply) = self.send(ask)?;
        match reply.recv_timeout(Duration::from_secs(120)) {
            Ok(Ok(told)) => Ok((id, told)),
            Ok(Err(reason)) => Err(anyhow!(reason)),
            Err(RecvTimeoutError::Timeout) => bail!("the agent (pid {}) does not answer", self.pid),
            Err(RecvTimeoutError::Disconnected) => bail!("the agent (pid {}) is gone", self.pid),
        }
    }

    fn send(&self, ask: Ask) -> anyhow::Result<(u64, Receiver<Result<Told, String>>)> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = sync_channel(1);
        let mut line = serde_json::to_vec(&Request { id, ask })?;
        line.push(b'\n');
        lock(&self.waiting).insert(id, sender);
        let mut input = lock(&self.input);
        let sent = match input.as_mut() {
            Some(input) => input.write_all(&line).map_err(anyhow::Error::from),
            None => Err(anyhow!("the lab is closed")),
        };
        if sent.is_err() {
            lock(&self.waiting).remove(&id);
        }
        sent.with_context(|| format!("ask the agent (pid {})", self.pid))?;
        Ok((id, receiver))
    }

    /// Closes what a request opened. There is nobody to tell when that is not possible: the
    /// machine is then gone, and everything in it.
    pub(crate) fn close_handle(&self, handle: u64) {
        let _gone = self.ask(Ask::Close { handle });
    }

    pub(crate) fn detach(&self) -> anyhow::Result<()> {
        self.ask(Ask::Detach)?;
        self.detached.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Tells the agent to end, without waiting for it.
    pub(crate) fn close(&self) {
        drop(lock(&self.input).take());
    }

    /// Waits until the agent has cleaned up and is gone. Kills it if it takes too long. A detached
    /// agent is not waited for.
    pub(crate) fn wait(&self) {
        if self.detached.load(Ordering::Relaxed) {
            return;
        }
        let end = Instant::now() + Duration::from_secs(5);
        let mut process = lock(&self.process);
        loop {
            match process.try_wait() {
                Ok(Some(_)) | Err(_) => return,
                Ok(None) if Instant::now() > end => {
                    let _gone = process.kill();
                    let _status = process.wait();
                    return;
                }
                Ok(None) => std::thread::sleep(Duration::from_micros(300)),
            }
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.close();
        self.wait();
    }
}

fn greeting(output: &mut BufReader<ChildStdout>) -> anyhow::Result<bool> {
    let mut line = String::new();
    output.read_line(&mut line).context("read the agent's greeting")?;
    let reply: Reply =
        serde_json::from_str(&line).with_context(|| format!("the agent's greeting `{line}`"))?;
    match reply.result {
        Ok(Told::Ready { user }) => Ok(user),
        Ok(other) => bail!("the agent greeted with {other:?}"),
        Err(reason) => bail!(reason),
    }
}

fn read_replies(mut output: BufReader<ChildStdout>, waiting: &Waiting) {
    let mut line = String::new();
    loop {
        line.clear();
        match output.read_line(&mut line) {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        let Ok(Reply { id, result }) = serde_json::from_str(&line) else { break };
        if let Some(sender) = lock(waiting).remove(&id) {
            let _asker_gave_up = sender.send(result);
        }
    }
    // Whoever still waits learns that there will be no reply.
    lock(waiting).clear();
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
