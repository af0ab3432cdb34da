//! Follows a directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::object::ObjectKind;
use jiff::Timestamp;
use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use planner::cluster_view::Change;
use planner::finding::Severity;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep_until, timeout};

use super::files::Files;
use super::scan::Scanner;
use super::settle::{Happened, Settle};
use crate::source::{
    Health, KINDS, LastError, PUBLISH_KINDS, Place, Problem, Revision, Source, State, Unreadable,
};

/// How a directory is followed.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How often to look without being told: for what the kernel does not tell of, such as the
    /// target of a symbolic link, or a network file system.
    pub rescan: Duration,
    /// How often to look while the directory cannot be watched or read.
    pub poll: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { rescan: Duration::from_secs(30), poll: Duration::from_secs(1) }
    }
}

/// Starts to follow `directory`, which need not be there yet.
#[must_use]
pub fn watch(directory: &Path, settings: &Settings) -> Source {
    start_following(directory, settings, &KINDS)
}

/// As [`watch`], for [what publishing reads](PUBLISH_KINDS).
#[must_use]
pub fn watch_publish(directory: &Path, settings: &Settings) -> Source {
    start_following(directory, settings, &PUBLISH_KINDS)
}

fn start_following(directory: &Path, settings: &Settings, kinds: &'static [ObjectKind]) -> Source {
    let (changes, receiver) = mpsc::channel(64);
    let (health, health_receiver) = watch::channel(Health::starting(kinds));
    let revision = Revision::default();
    let mut tasks = JoinSet::new();
    let follower = Follower {
        directory: directory.to_owned(),
        settings: settings.clone(),
        changes,
        health,
        revision: revision.clone(),
        kinds,
        state: Some((Scanner::default(), Files::new(kinds))),
        complete: false,
    };
    tasks.spawn(follower.follow());
    Source { changes: receiver, health: health_receiver, revision, tasks }
}

struct Follower {
    directory: PathBuf,
    settings: Settings,
    changes: mpsc::Sender<Change>,
    health: watch::Sender<Health>,
    revision: Revision,
    kinds: &'static [ObjectKind],
    /// Taken while the disk is read.
    state: Option<(Scanner, Files)>,
    /// Whether the complete sets were delivered.
    complete: bool,
}

impl Follower {
    async fn follow(mut self) {
        let (sender, mut events) = mpsc::unbounded_channel();
        let sender = Arc::new(sender);
        let mut watcher = None;
        while !self.changes.is_closed() {
            let watched = match &watcher {
                Some(_) => Ok(()),
                None => start(&self.directory, &sender).map(|it| watcher = Some(it)),
            };
            // Whatever happens from here on is told; what happened before is read now.
            let scanned = self.scan().await;
            if scanned.is_err() {
                // The directory may be another one when it is back.
                watcher = None;
            }
            let is_well = watched.is_ok() && scanned.is_ok();
            self.set_problem(watched.err(), scanned.err());
            let wait = if is_well { self.settings.rescan } else { self.settings.poll };
            settled(&mut events, wait).await;
        }
    }

    /// Reads what changed and delivers it.
    async fn scan(&mut self) -> std::io::Result<()> {
        let Some((mut scanner, mut files)) = self.state.take() else { return Ok(()) };
        let directory = self.directory.clone();
        let complete = self.complete;
        let read = spawn_blocking(move || {
            let result = scanner.scan(&directory).map(|found| {
                files.update(found);
                if complete { files.changes() } else { files.reset() }
            });
            (scanner, files, result)
        });
        let (scanner, files, result) = match read.await {
            Ok(read) => read,
            // Only when the program ends.
            Err(error) => return Err(std::io::Error::other(error)),
        };
        let problems = files.problems();
        let counts: Vec<_> = self.kinds.iter().map(|it| (*it, files.count(*it))).collect();
        self.state = Some((scanner, files));
        let changes = result?;

        let is_first = !std::mem::replace(&mut self.complete, true);
        let now = Timestamp::now();
        self.health.send_if_modified(|health| {
            for (kind, count) in counts {
                let Some(health) = health.kinds.get_mut(&kind) else { continue };
                health.objects = count;
                health.last_heard = Some(now);
                health.lists += u64::from(is_first);
            }
            for change in &changes {
                let kind = match change {
                    Change::Applied(object) => object.reference().kind,
                    Change::Deleted(reference) => reference.kind,
                    Change::Reset(..) => continue,
                };
                if let Some(health) = health.kinds.get_mut(&kind) {
                    health.events += 1;
                }
            }
            let is_directory = |it: &&Problem| it.place == self.place();
            let kept: Vec<Problem> = health.problems.iter().filter(is_directory).cloned().collect();
            let mut problems = problems.clone();
            problems.extend(kept);
            let differs = health.problems != problems;
            health.problems = problems;
            differs || is_first
        });
        if !changes.is_empty() {
            self.revision.raise(u64::try_from(now.as_millisecond()).unwrap_or(0));
        }
        for change in changes {
            // Nobody reads any more: the loop notices and ends.
            let _ = self.changes.send(change).await;
        }
        if is_first {
            self.health.send_modify(|health| {
                health.kinds.values_mut().for_each(|it| it.listed = true);
            });
        }
        Ok(())
    }

    fn set_problem(&self, watch: Option<notify::Error>, scan: Option<std::io::Error>) {
        let state = if scan.is_some() { State::Retrying } else { State::Watching };
        let remedy = "make it a directory that this program may list";
        let problem = match (watch, scan) {
            (_, Some(error)) => {
                Some((format!("cannot be read: {error}; what is known stays in effect"), remedy))
            }
            (Some(error), None) => Some((
                format!(
                    "cannot be watched: {error}; looking every {:?} instead",
                    self.settings.poll
                ),
                "raise fs.inotify.max_user_watches and fs.inotify.max_user_instances",
            )),
            (None, None) => None,
        };
        let place = self.place();
        let now = Timestamp::now();
        self.health.send_if_modified(|health| {
            let before = health.problems.len();
            health.problems.retain(|it| it.place != place);
            let mut differs = before != health.problems.len();
            if let Some((problem, remedy)) = problem {
                for kind in health.kinds.values_mut() {
                    kind.errors += 1;
                    kind.last_error = Some(LastError { message: problem.clone(), at: now });
                }
                let severity =
                    if state == State::Watching { Severity::Warning } else { Severity::Error };
                let remedy = remedy.to_owned();
                let unreadable = Unreadable::Nothing;
                health.problems.insert(Problem { place, severity, problem, remedy, unreadable });
                differs = true;
            }
            for kind in health.kinds.values_mut().filter(|it| it.state != state) {
                kind.state = state;
                kind.since = now;
                differs = true;
            }
            differs
        });
    }

    fn place(&self) -> Place {
        Place::File { path: self.directory.clone(), line: 0, column: 0 }
    }
}

type Event = (PathBuf, Happened);

fn start(
    directory: &Path,
    sender: &Arc<mpsc::UnboundedSender<Event>>,
) -> notify::Result<RecommendedWatcher> {
    let sender = Arc::clone(sender);
    let tell = move |event: notify::Result<notify::Event>| {
        // An error of the watcher is itself a reason to look.
        let Ok(event) = event else {
            let _ = sender.send((PathBuf::new(), Happened::Other));
            return;
        };
        for path in event.paths {
            if let Some(what) = happened(event.kind, &path) {
                // Nobody listens any more when the source has ended.
                let _ = sender.send((path, what));
            }
        }
    };
    // Links to folders would be walked once for every way to them. What changes behind them is
    // found by the next look. The directory itself may be a link.
    let config = notify::Config::default().with_follow_symlinks(false);
    let mut watcher = RecommendedWatcher::new(tell, config)?;
    let directory = std::fs::canonicalize(directory)?;
    watcher.watch(&directory, RecursiveMode::Recursive)?;
    Ok(watcher)
}

fn happened(kind: EventKind, path: &Path) -> Option<Happened> {
    let is_hidden = path.file_name().is_some_and(|it| it.as_encoded_bytes().starts_with(b"."));
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(Happened::Closed),
        // Reading is no reason to read again.
        EventKind::Access(_) => None,
        // A hidden file is not read; its name may still matter, as that of `..data` does.
        EventKind::Create(CreateKind::File) | EventKind::Modify(ModifyKind::Data(_)) => {
            Some(if is_hidden { Happened::Other } else { Happened::Writing })
        }
        EventKind::Any
        | EventKind::Create(_)
        | EventKind::Modify(_)
        | EventKind::Remove(_)
        | EventKind::Other => Some(Happened::Other),
    }
}

/// Waits until files have changed and come to rest, or until `longest` has passed.
async fn settled(events: &mut mpsc::UnboundedReceiver<Event>, longest: Duration) {
    let mut settle = Settle::default();
    if let Ok(Some((path, what))) = timeout(longest, events.recv()).await {
        settle.happened(&path, what, Instant::now());
    }
    while let Some(read) = settle.poll_timeout() {
        tokio::select! {
            event = events.recv() => {
                let Some((path, what)) = event else { return };
                settle.happened(&path, what, Instant::now());
            }
            () = sleep_until(read.into()) => settle.read(),
        }
    }
}
