//! Where the programs and images are that `scripts/setup` made.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, ensure};

/// The real Kubernetes was not built on this machine yet.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the real Kubernetes is not set up: run `make setup` or `scripts/setup kubernetes images` (missing: {missing})")]
pub struct NotSetUp {
    /// What `scripts/setup missing` listed.
    pub missing: String,
}

/// The directories that hold the programs.
#[derive(Debug)]
pub(super) struct Programs {
    kubernetes: PathBuf,
    containerd: PathBuf,
    cni: PathBuf,
    images: PathBuf,
}

impl Programs {
    /// Asks `scripts/setup`, once per process.
    ///
    /// # Errors
    ///
    /// [`NotSetUp`] when something has to be built first.
    pub(super) fn find() -> anyhow::Result<&'static Self> {
        static FOUND: OnceLock<Programs> = OnceLock::new();
        if let Some(found) = FOUND.get() {
            return Ok(found);
        }
        let missing = Command::new(setup()).args(["missing", "kubernetes", "images"]).output();
        let missing = missing.context("cannot run scripts/setup")?;
        if !missing.status.success() {
            let listed = String::from_utf8_lossy(&missing.stdout).trim().replace('\n', ", ");
            let said = String::from_utf8_lossy(&missing.stderr).trim().to_owned();
            let missing = if listed.is_empty() { said } else { listed };
            return Err(NotSetUp { missing }.into());
        }
        let found = Self::parse(&query("where")?)?;
        Ok(FOUND.get_or_init(|| found))
    }

    fn parse(listing: &str) -> anyhow::Result<Self> {
        let lines: BTreeMap<_, _> = listing.lines().filter_map(|it| it.split_once('=')).collect();
        let directory = |key: &str| {
            let found = lines.get(key).with_context(|| format!("scripts/setup where names no `{key}`"));
            found.map(PathBuf::from)
        };
        Ok(Self {
            kubernetes: directory("kubernetes")?,
            containerd: directory("containerd")?,
            cni: directory("cni")?,
            images: directory("images")?,
        })
    }

    /// A program of Kubernetes, or etcd.
    pub(super) fn kubernetes(&self, name: &str) -> PathBuf {
        self.kubernetes.join(name)
    }

    /// A program of containerd.
    pub(super) fn containerd(&self, name: &str) -> PathBuf {
        self.containerd.join(name)
    }

    /// The directory of containerd's programs, which finds its shim on the path.
    pub(super) fn containerd_directory(&self) -> &Path {
        &self.containerd
    }

    /// The directory of the CNI plugins.
    pub(super) fn cni_directory(&self) -> &Path {
        &self.cni
    }

    /// A program that is also in an image, and its archive when `.tar` is asked for.
    pub(super) fn image(&self, name: &str) -> PathBuf {
        self.images.join(name)
    }
}

/// A file of the source tree's test bed.
pub(super) fn testbed(name: &str) -> PathBuf {
    tree().join("testbed").join(name)
}

fn setup() -> PathBuf {
    tree().join("scripts/setup")
}

fn tree() -> &'static Path {
    // Two levels above this crate. The crate is never installed, so the tree it was built from is there.
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().and_then(Path::parent).unwrap_or(own)
}

fn query(what: &str) -> anyhow::Result<String> {
    let output = Command::new(setup()).arg(what).output().context("cannot run scripts/setup")?;
    ensure!(output.status.success(), "scripts/setup {what}: {}", String::from_utf8_lossy(&output.stderr).trim());
    String::from_utf8(output.stdout).context("scripts/setup printed something that is not UTF-8")
}
