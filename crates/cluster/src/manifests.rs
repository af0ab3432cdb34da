//! Reads objects from a directory of manifests, and watches it.
//!
//! The same kinds as from the API, as YAML or JSON, several documents or a `List` in a file,
//! folders in folders. Promises:
//!
//! - a broken document is reported with file, line and column, and what it last said stays in
//!   effect; the other documents and files go on;
//! - a file that is gone takes its objects with it; a directory or file that cannot be read
//!   changes nothing;
//! - a file is read when its writer has finished: after a rename, after the last write was
//!   closed, or when nothing happened to it for half a second;
//! - one name in two places: the first place, in the order of paths, counts, and the other is
//!   reported.
//!
//! Only `*.yaml`, `*.yml` and `*.json` are read; names that begin with a dot are not, so that
//! neither an editor's drafts nor the inner folders of a mounted ConfigMap are read twice.

mod document;
mod files;
mod header;
mod object;
mod parse;
mod scan;
mod settle;
mod watch;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use planner::cluster_view::Change;

use crate::source::Problem;
pub use watch::{Settings, watch, watch_publish};

/// Why manifests could not be read at all.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}", path.display())]
pub struct ReadError {
    /// The file or directory.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: std::io::Error,
}

/// Reads files and directories once, and returns a complete set of every kind.
///
/// The output of `kubectl get -o yaml` is read as well. Problems cost their own documents only.
///
/// # Errors
///
/// Fails when one of `paths` is not there or cannot be read.
pub fn read(paths: &[PathBuf]) -> Result<(Vec<Change>, BTreeSet<Problem>), ReadError> {
    let mut files = files::Files::default();
    for path in paths {
        files.add(scan::once(path)?);
    }
    Ok((files.reset(), files.problems()))
}

/// Reads one text, such as what came on standard input; `name` stands for it in problems.
#[must_use]
pub fn read_text(name: &Path, text: &str) -> (Vec<Change>, BTreeSet<Problem>) {
    let mut files = files::Files::default();
    files.update([(name.to_owned(), scan::Content::Text(text.to_owned()))].into());
    (files.reset(), files.problems())
}

#[cfg(test)]
mod tests;
