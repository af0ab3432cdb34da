//! What outlives the process: the last wish of each cluster, and the traffic of the month.
//!
//! Each is a file of its own in the state directory, replaced as a whole: a power cut leaves the
//! old or the new one. A file that cannot be read costs what was in it, and a line in the log.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use minicbor::{Decode, Encode};
use tunnel_proto::message::Desired;
use tunnel_proto::quota::Counted;

use crate::config::ClusterName;

/// The state directory.
#[derive(Clone, Debug)]
pub(crate) struct State {
    directory: PathBuf,
}

/// Traffic that was counted, as it is kept.
#[derive(Clone, Copy, Debug, Decode, Encode)]
struct KeptCount {
    #[n(0)]
    since: u64,
    #[n(1)]
    bytes: u64,
}

impl State {
    /// Opens the directory; makes it, for nobody else to read, when there is none.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        Ok(Self { directory: directory.to_owned() })
    }

    /// A cluster's own directory, for whoever keeps more about it.
    pub(crate) fn of_cluster(&self, cluster: &ClusterName) -> io::Result<PathBuf> {
        let directory = self.directory.join("clusters").join(cluster.as_str());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        Ok(directory)
    }

    /// The last wish of a cluster.
    pub(crate) fn desired(&self, cluster: &ClusterName) -> Option<Desired> {
        self.load(cluster, "desired")
    }

    /// Keeps a wish.
    pub(crate) fn keep_desired(&self, cluster: &ClusterName, wish: &Desired) -> io::Result<()> {
        self.keep(cluster, "desired", wish)
    }

    /// The traffic of a cluster.
    pub(crate) fn counted(&self, cluster: &ClusterName) -> Option<Counted> {
        let KeptCount { since, bytes } = self.load(cluster, "counted")?;
        Some(Counted { since, bytes })
    }

    /// Keeps the traffic of a cluster.
    pub(crate) fn keep_counted(&self, cluster: &ClusterName, counted: Counted) -> io::Result<()> {
        let Counted { since, bytes } = counted;
        self.keep(cluster, "counted", KeptCount { since, bytes })
    }

    /// Keeps bytes that were transferred after another process took over the counting.
    pub(crate) fn keep_late(&self, cluster: &ClusterName, bytes: u64) -> io::Result<()> {
        self.keep(cluster, &format!("late-{}", std::process::id()), bytes)
    }

    /// Bytes that other processes transferred after we took over the counting; each once.
    pub(crate) fn take_late(&self, cluster: &ClusterName) -> u64 {
        let files = self.of_cluster(cluster).and_then(fs::read_dir).into_iter().flatten().flatten();
        let late = files.filter_map(|it| {
            let name = it.file_name().into_string().ok()?;
            let of_process = name.strip_prefix("late-")?.parse::<u32>().is_ok();
            let bytes: u64 = of_process.then(|| self.load(cluster, &name)).flatten()?;
            fs::remove_file(it.path()).ok()?;
            Some(bytes)
        });
        late.sum()
    }

    fn load<T>(&self, cluster: &ClusterName, what: &str) -> Option<T>
    where
        T: for<'b> Decode<'b, ()>,
    {
        let path = self.of_cluster(cluster).ok()?.join(what);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "cannot read what was kept");
                return None;
            }
        };
        minicbor::decode(&bytes)
            .inspect_err(|error| {
                tracing::error!(path = %path.display(), %error, "what was kept makes no sense");
            })
            .ok()
    }

    fn keep<T: Encode<()>>(&self, cluster: &ClusterName, what: &str, value: T) -> io::Result<()> {
        let bytes = minicbor::to_vec(value).map_err(io::Error::other)?;
        replace(&self.of_cluster(cluster)?.join(what), &bytes)
    }
}

/// Writes a file anew, readable by us alone, so that there is always the old or the new content.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_was_kept_is_there_again() -> anyhow::Result<()> {
        let directory = tempfile::tempdir()?;
        let state = State::open(&directory.path().join("state"))?;
        let home: ClusterName = "home".parse().map_err(anyhow::Error::msg)?;
        assert_eq!(state.desired(&home), None);
        let wish = Desired { revision: 7, ..Desired::default() };
        state.keep_desired(&home, &wish)?;
        state.keep_counted(&home, Counted { since: 5, bytes: 9 })?;
        let again = State::open(&directory.path().join("state"))?;
        assert_eq!(again.desired(&home), Some(wish));
        assert_eq!(again.counted(&home), Some(Counted { since: 5, bytes: 9 }));
        Ok(())
    }

    #[test]
    fn late_bytes_count_once() -> anyhow::Result<()> {
        let directory = tempfile::tempdir()?;
        let state = State::open(directory.path())?;
        let home: ClusterName = "home".parse().map_err(anyhow::Error::msg)?;
        state.keep_late(&home, 12)?;
        assert_eq!([state.take_late(&home), state.take_late(&home)], [12, 0]);
        Ok(())
    }

    #[test]
    fn only_we_can_read_it_and_nonsense_is_nothing() -> anyhow::Result<()> {
        let directory = tempfile::tempdir()?;
        let state = State::open(&directory.path().join("state"))?;
        let home: ClusterName = "home".parse().map_err(anyhow::Error::msg)?;
        state.keep_desired(&home, &Desired::default())?;
        let path = state.of_cluster(&home)?.join("desired");
        let mode = |path: &Path| fs::metadata(path).map(|it| it.permissions().mode() & 0o777);
        assert_eq!(mode(&path)?, 0o600);
        assert_eq!(mode(&state.directory)?, 0o700);
        fs::write(&path, [0xff; 20])?;
        assert_eq!(state.desired(&home), None);
        Ok(())
    }
}
