//! A demo that stays after its command: a process of its own holds it.
//!
//! Everything in the demo ends with the process that made it, which is right for tests. So
//! `--keep` starts this program a second time, in a session of its own and with its output in a
//! file, and shows that file until the story is told. Until then the keeper ends with the command
//! that started it; afterwards it ends when it is asked to, and takes everything with it.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

use crate::screen;

/// The exit status of somebody who was interrupted.
const INTERRUPTED: i32 = 130;

/// What must not be left on the disk, however this process ends.
pub(crate) struct Scratch {
    path: PathBuf,
    ended: std::sync::mpsc::Receiver<()>,
}

/// Whether the story is told: from then on a signal is an end, not an interruption.
static TOLD: AtomicBool = AtomicBool::new(false);

impl Scratch {
    /// Makes a directory for this process, and removes it when the process is asked to end.
    pub(crate) fn new() -> Result<Self> {
        let path = TempDir::with_prefix("portcullis-demo-")?.keep();
        Self::at(path)
    }

    fn at(path: PathBuf) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let guard = runtime.enter();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        drop(guard);
        let (end, ended) = std::sync::mpsc::channel();
        let directory = path.clone();
        std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                    _ = hang_up.recv() => {}
                }
            });
            if !TOLD.load(Ordering::SeqCst) {
                let _already_gone = std::fs::remove_dir_all(directory);
                std::process::exit(INTERRUPTED);
            }
            let _nobody_waits = end.send(());
        });
        Ok(Self { path, ended })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _already_gone = std::fs::remove_dir_all(&self.path);
    }
}

/// The command's part: starts the keeper, and shows what it says until the story is told.
pub(crate) fn start() -> Result<ExitCode> {
    let directory = TempDir::with_prefix("portcullis-demo-")?.keep();
    let output = File::create(directory.join("output")).context("write the keeper's output")?;
    let mut keeper = Command::new("setsid")
        .arg(std::env::current_exe().context("find this program")?)
        .args(std::env::args_os().skip(1))
        .arg("--keeper")
        .arg(&directory)
        .stdin(Stdio::piped())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .context("start the keeper with setsid; apt-get install util-linux")?;
    let _it_ends_with_us = keeper.stdin.take();
    let mut said = File::open(directory.join("output"))?;
    loop {
        // Asked before the last look, so that nothing is missed.
        let ended = keeper.try_wait().context("ask for the keeper's state")?;
        let told = std::fs::read_to_string(directory.join("told")).ok();
        let mut text = Vec::new();
        said.read_to_end(&mut text)?;
        screen::pass_on(&text);
        if let Some(code) = told.as_deref().and_then(|it| it.parse::<u8>().ok()) {
            return Ok(ExitCode::from(code));
        }
        if let Some(status) = ended {
            let _gone = std::fs::remove_dir_all(&directory);
            let code = status.code().and_then(|it| u8::try_from(it).ok());
            return Ok(code.map_or(ExitCode::FAILURE, ExitCode::from));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The keeper's part, before anything is built.
pub(crate) fn take_over(directory: PathBuf) -> Result<Scratch> {
    let scratch = Scratch::at(directory)?;
    let path = scratch.path.clone();
    std::thread::spawn(move || {
        // Ends when the command does, in whatever way.
        let _nobody_writes = std::io::stdin().read_to_end(&mut Vec::new());
        if !TOLD.load(Ordering::SeqCst) {
            let _already_gone = std::fs::remove_dir_all(path);
            std::process::exit(INTERRUPTED);
        }
    });
    Ok(scratch)
}

/// The keeper's part, when the story is told: lets the command end, and waits for the signal.
pub(crate) fn stay(scratch: &Scratch, held: bool) -> Result<()> {
    TOLD.store(true, Ordering::SeqCst);
    // Renamed into place: it is read at any moment.
    let draft = scratch.path.join("told.draft");
    std::fs::write(&draft, if held { "0" } else { "1" }).context("tell the command")?;
    std::fs::rename(&draft, scratch.path.join("told")).context("tell the command")?;
    scratch.ended.recv().context("wait for a signal")
}
