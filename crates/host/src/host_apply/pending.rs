//! Changes that wait for their confirmation, as files that outlive every process.
//!
//! Each is one file, `TOKEN.pending`, with its deadline and its way back. Whoever renames that file
//! has decided: to `.confirmed`, and the change stays; to `.rolling`, and it is taken back. The
//! process that waits for the deadline holds a lock on the file, which the kernel lifts however
//! that process ends. A file without a lock is therefore an orphan, and whoever serves the next
//! session takes care of it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use command::Command;
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::{HostApply, ServeError};
use crate::Local;

/// A change that waits for its confirmation.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Pending {
    pub(super) token: String,
    /// When it is rolled back, in milliseconds since the machine was started.
    pub(super) due_ms: u64,
    pub(super) rollback: Vec<Command>,
}

impl Pending {
    pub(super) fn new(rollback: Vec<Command>, within: Duration) -> Self {
        let due = since_boot().saturating_add(within).as_millis();
        Self {
            token: format!("{:032x}", rand::random::<u128>()),
            due_ms: u64::try_from(due).unwrap_or(u64::MAX),
            rollback,
        }
    }

    pub(super) fn left(&self) -> Duration {
        Duration::from_millis(self.due_ms).saturating_sub(since_boot())
    }
}

/// The time since the machine was started. Nobody can set it, and it goes on while it sleeps.
fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// The directory of such files.
#[derive(Clone, Debug)]
pub(super) struct Directory(PathBuf);

impl Directory {
    /// Opens the directory, or makes it. Refuses one that others could write to.
    pub(super) fn open(host_apply: &HostApply) -> Result<Self, ServeError> {
        let path = host_apply.runtime_dir.clone();
        let refuse = |reason: String| ServeError::RuntimeDir { path: path.clone(), reason };
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(refuse(error.to_string())),
        }
        let found = fs::symlink_metadata(&path).map_err(|error| refuse(error.to_string()))?;
        let us = nix::unistd::geteuid().as_raw();
        if !found.is_dir() || found.uid() != us || found.mode() & 0o077 != 0 {
            return Err(refuse(format!("it must be a directory of user {us} with mode 0700")));
        }
        Ok(Self(path))
    }

    /// Notes a change and returns its file, locked, or the time until another one is decided.
    pub(super) fn note(&self, pending: &Pending) -> io::Result<Result<File, Duration>> {
        // Held until this function ends: two clients cannot both find the directory empty.
        let turn =
            OpenOptions::new().create(true).append(true).mode(0o600).open(self.0.join("turn"))?;
        turn.lock()?;
        if let Some(left) = self.waiting()? {
            return Ok(Err(left));
        }
        let draft = self.path(&pending.token, "draft");
        let mut file =
            OpenOptions::new().create_new(true).read(true).write(true).mode(0o600).open(&draft)?;
        file.lock()?;
        serde_json::to_writer(&mut file, pending)?;
        file.flush()?;
        fs::rename(draft, self.path(&pending.token, "pending"))?;
        Ok(Ok(file))
    }

    /// Whether a change waits, and how long until it is decided at the latest.
    pub(super) fn waiting(&self) -> io::Result<Option<Duration>> {
        let left = self.undecided()?.into_iter().map(|(_, pending, _)| pending.left());
        Ok(left.max())
    }

    /// Whether the change of this token still waits.
    pub(super) fn is_waiting(&self, token: &str) -> bool {
        self.path(token, "pending").exists()
    }

    /// Confirms a change. False when it is not, or no longer, waiting.
    pub(super) fn confirm(&self, token: &str) -> io::Result<bool> {
        // The token becomes a part of a path.
        if token.len() != 32 || !token.bytes().all(|it| it.is_ascii_hexdigit()) {
            return Ok(false);
        }
        let pending = self.path(token, "pending");
        match read(&pending) {
            Ok((_, pending)) if pending.left().is_zero() => return Ok(false),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        }
        let confirmed = self.path(token, "confirmed");
        match fs::rename(&pending, &confirmed) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        }
        fs::remove_file(confirmed)?;
        Ok(true)
    }

    /// Takes back what is due and has nobody who waits for it. Returns when to look again.
    pub(super) async fn settle(&self, local: &Local) -> Result<Option<Duration>, ServeError> {
        let unreadable = |error: io::Error| ServeError::Rollback(error.to_string());
        let mut next = None;
        for (path, pending, file) in self.undecided().map_err(unreadable)? {
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(error)) => return Err(unreadable(error)),
            }
            let left = pending.left();
            if !left.is_zero() && path.extension().is_some_and(|it| it == "pending") {
                next = Some(next.map_or(left, |next: Duration| next.min(left)));
                continue;
            }
            self.roll_back(&pending, local).await?;
        }
        Ok(next)
    }

    /// Takes a change back unless it has been confirmed. The caller holds the lock.
    pub(super) async fn roll_back(
        &self,
        pending: &Pending,
        local: &Local,
    ) -> Result<(), ServeError> {
        let rolling = self.path(&pending.token, "rolling");
        match fs::rename(self.path(&pending.token, "pending"), &rolling) {
            Ok(()) => {}
            // Confirmed, or begun by somebody who was killed before the end.
            Err(error) if error.kind() == io::ErrorKind::NotFound && rolling.exists() => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(ServeError::Rollback(error.to_string())),
        }
        for command in &pending.rollback {
            let output = local
                .run_within(command, Duration::from_secs(30))
                .await
                .map_err(|error| ServeError::Rollback(error.to_string()))?;
            if !output.succeeded() {
                let said = output.stderr.trim();
                return Err(ServeError::Rollback(format!("`{command}` says: {said}")));
            }
        }
        fs::remove_file(rolling).map_err(|error| ServeError::Rollback(error.to_string()))
    }

    fn path(&self, token: &str, state: &str) -> PathBuf {
        self.0.join(format!("{token}.{state}"))
    }

    fn undecided(&self) -> io::Result<Vec<(PathBuf, Pending, File)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let path = entry?.path();
            if !path.extension().is_some_and(|it| it == "pending" || it == "rolling") {
                continue;
            }
            match read(&path) {
                Ok((file, pending)) => found.push((path, pending, file)),
                // Decided in this moment.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }
}

fn read(path: &Path) -> io::Result<(File, Pending)> {
    let mut file = File::open(path)?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok((file, serde_json::from_str(&text)?))
}
