//! Where one-shot commands take objects from: files, standard input, or the cluster.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use cluster::source::{Problem, Unreadable};
use kube::Client;
use planner::cluster_view::{Change, ClusterView};
use planner::finding::Severity;

use crate::ending::{Result, refused};
use crate::{connection, print};

/// How long the cluster may take to give its first complete lists.
const LIMIT: Duration = Duration::from_secs(30);

/// Where objects come from.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ObjectOptions {
    /// Read objects from these files or directories instead of the cluster: manifests, or what
    /// `kubectl get -o yaml` printed; `-` is standard input
    #[arg(long, short = 'f', visible_alias = "filename", value_name = "PATH")]
    pub(crate) manifests: Vec<PathBuf>,

    #[command(flatten)]
    pub(crate) connection: connection::ConnectionOptions,
}

/// Everything that was read.
#[derive(Default)]
pub(crate) struct Objects {
    /// The changes that make a complete view.
    pub(crate) changes: Vec<Change>,
    /// What could not be read.
    pub(crate) problems: BTreeSet<Problem>,
    /// Leads to the cluster, when objects came from there.
    pub(crate) client: Option<Client>,
}

impl ObjectOptions {
    /// Reads all objects once.
    pub(crate) async fn read(&self) -> Result<Objects> {
        if self.manifests.is_empty() {
            return self.read_cluster().await;
        }
        let (texts, paths): (Vec<_>, Vec<_>) =
            self.manifests.iter().cloned().partition(|it| it == Path::new("-"));
        if texts.is_empty() {
            let (changes, problems) = cluster::manifests::read(&paths).map_err(unreadable)?;
            return Ok(Objects { changes, problems, client: None });
        }
        if !paths.is_empty() || texts.len() > 1 {
            return Err(refused(
                "--manifests: `-` stands alone: objects come either from standard input or from \
                 files; leave one out",
            ));
        }
        let mut text = String::new();
        std::io::stdin().lock().read_to_string(&mut text).map_err(|error| {
            refused(format!("--manifests -: {error}; give it YAML or JSON as UTF-8 text"))
        })?;
        let (changes, problems) = cluster::manifests::read_text(Path::new("standard input"), &text);
        Ok(Objects { changes, problems, client: None })
    }

    async fn read_cluster(&self) -> Result<Objects> {
        let client = self.connection.client().await.context(
            "no --manifests were given, so objects come from the cluster; name files with -f, or \
             a kubeconfig with --kubeconfig",
        )?;
        let settings = cluster::kubernetes::Settings::default();
        let seen = Arc::new(cluster::report::Seen::default());
        let mut source = cluster::kubernetes::watch(&client, &settings, &seen);
        let mut view = ClusterView::default();
        let mut changes = Vec::new();
        let complete = async {
            while !view.is_complete() {
                let Some(change) = source.changes.recv().await else { break };
                changes.push(change.clone());
                view.change(change);
            }
        };
        let in_time = tokio::time::timeout(LIMIT, complete).await;
        let health = source.health.borrow().clone();
        if in_time.is_err() || !view.is_complete() {
            let missing = view.missing().map(|kind| {
                let error = health.kinds.get(&kind).and_then(|it| it.last_error.as_ref());
                let error = error.map_or("no answer", |it| it.message.as_str());
                format!("{kind}s: {error}")
            });
            let missing = missing.collect::<Vec<_>>().join("; ");
            let forbidden =
                health.kinds.values().any(|it| it.state == cluster::source::State::Forbidden);
            let remedy = if forbidden {
                "; this account needs more permissions: see `portcullis install manifests`, or for \
                 Epok's account `portcullis install epok-permissions`"
            } else {
                ""
            };
            bail!("the cluster did not list everything within {LIMIT:?}: {missing}{remedy}");
        }
        Ok(Objects { changes, problems: health.problems, client: Some(client) })
    }
}

fn unreadable(error: cluster::manifests::ReadError) -> anyhow::Error {
    refused(format!(
        "--manifests: {}: {}; name a readable file or directory",
        error.path.display(),
        error.source
    ))
}

impl Objects {
    /// Returns the view that the objects make.
    pub(crate) fn view(&self) -> ClusterView {
        let mut view = ClusterView::default();
        for change in &self.changes {
            view.change(change.clone());
        }
        view
    }

    /// Whether an object could not be read at all, so that the input has to be refused.
    pub(crate) fn is_partly_unreadable(&self) -> bool {
        self.problems.iter().any(|it| it.severity == Severity::Error)
    }

    /// The objects that could not be read.
    pub(crate) fn unreadable(&self) -> BTreeSet<api::object::ObjectRef> {
        let named = self.problems.iter().filter_map(|it| match &it.unreadable {
            Unreadable::Object(object) => Some(object.clone()),
            Unreadable::Nothing | Unreadable::Unknown => None,
        });
        named.collect()
    }

    /// Says on standard error what could not be read.
    pub(crate) fn note_problems(&self) {
        for problem in &self.problems {
            let severity = match problem.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
                Severity::Note => "note",
            };
            print::note(format_args!("{severity}: {problem}"));
        }
    }
}
