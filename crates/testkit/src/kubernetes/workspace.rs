//! A directory for one control plane or cluster, and the sweeper that removes it in the end.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::Context as _;

use super::daemon::start_for_good;
use super::programs::testbed;

/// A temporary directory whose removal does not depend on this process ending well.
///
/// A small program reads a pipe that only this process holds open. When the pipe closes, by
/// drop or by the end of the process, it removes the directory and the control groups. There is
/// one way of removing, so the tests that end well also test the way for those that do not.
#[derive(Debug)]
pub(super) struct Workspace {
    directory: PathBuf,
    sweeper: Child,
    /// Open as long as the directory is needed.
    life: Option<ChildStdin>,
}

impl Workspace {
    /// Makes the directory. `control_groups` are removed together with it, children included.
    pub(super) fn new(directory: PathBuf, control_groups: &[PathBuf]) -> anyhow::Result<Self> {
        let mut command = Command::new(testbed("sweep"));
        command.arg(&directory).args(control_groups);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // Before the directory exists: there is no moment at which nobody would remove it.
        let mut sweeper = start_for_good(command).context("cannot start the sweeper")?;
        let life = sweeper.stdin.take();
        // For nobody else: the keys inside open a cluster that starts processes as root.
        let made = DirBuilder::new().mode(0o700).create(&directory);
        made.with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(Self { directory, sweeper, life })
    }

    /// A name for a new directory that nobody else uses: `portcullis-` and random digits.
    pub(super) fn fresh_name() -> String {
        format!("portcullis-{:012x}", rand::random::<u64>() >> 16)
    }

    pub(super) fn path(&self) -> &Path {
        &self.directory
    }

    /// Writes a file and returns its path.
    pub(super) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> anyhow::Result<PathBuf> {
        let path = self.directory.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)
                .with_context(|| format!("cannot make {}", parent.display()))?;
        }
        std::fs::write(&path, content)
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        drop(self.life.take());
        let _gone_either_way = self.sweeper.wait();
    }
}
