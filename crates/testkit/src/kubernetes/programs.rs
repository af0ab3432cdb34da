//! Where the programs and images are that `scripts/setup` made.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::Missing;

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
    /// What has to be built first, and how.
    pub(super) fn find() -> Result<&'static Self, Missing> {
        static FOUND: OnceLock<Result<Programs, Missing>> = OnceLock::new();
        FOUND.get_or_init(Self::ask).as_ref().map_err(Clone::clone)
    }

    fn ask() -> Result<Self, Missing> {
        let what = "the real Kubernetes";
        let mut places = places(what, &["kubernetes", "images"])?;
        let mut directory = |key: &str| {
            places.remove(key).ok_or_else(|| {
                Missing::new(
                    format!("scripts/setup where names no `{key}`"),
                    "repair scripts/setup",
                )
            })
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

/// Asks `scripts/setup` whether these parts are ready, and where everything is.
///
/// # Errors
///
/// `what` is not set up, and how to do that.
pub(super) fn places(what: &str, parts: &[&str]) -> Result<BTreeMap<String, PathBuf>, Missing> {
    let not_set_up = |why: String| {
        let remedy = format!("run `scripts/setup {}`", parts.join(" "));
        Missing::new(format!("{what} is not set up ({why})"), remedy)
    };
    let run = |arguments: &[&str]| {
        Command::new(setup())
            .args(arguments)
            .output()
            .map_err(|it| not_set_up(format!("cannot run scripts/setup: {it}")))
    };
    let missing = run(&[&["missing"], parts].concat())?;
    if !missing.status.success() {
        let said = [missing.stdout, missing.stderr].concat();
        return Err(not_set_up(String::from_utf8_lossy(&said).trim().replace('\n', ", ")));
    }
    let listing = String::from_utf8_lossy(&run(&["where"])?.stdout).into_owned();
    let pairs = listing.lines().filter_map(|it| it.split_once('='));
    Ok(pairs.map(|(key, path)| (key.to_owned(), PathBuf::from(path))).collect())
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
