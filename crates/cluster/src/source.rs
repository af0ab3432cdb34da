//! What every source gives: changes, and the truth about how well it reads.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use api::object::{ObjectKind, ObjectRef};
use jiff::Timestamp;
use planner::cluster_view::Change;
use planner::finding::Severity;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// The kinds that forwarding reads, and every source for it delivers.
pub const KINDS: [ObjectKind; 5] = [
    ObjectKind::Service,
    ObjectKind::Pod,
    ObjectKind::Node,
    ObjectKind::EndpointSlice,
    ObjectKind::Host,
];

/// The kinds that publishing reads, and every source for it delivers.
pub const PUBLISH_KINDS: [ObjectKind; 13] = [
    ObjectKind::EdgeGateway,
    ObjectKind::GatewayClass,
    ObjectKind::Namespace,
    ObjectKind::ReferenceGrant,
    ObjectKind::Secret,
    ObjectKind::Service,
    ObjectKind::EndpointSlice,
    ObjectKind::Gateway,
    ObjectKind::ListenerSet,
    ObjectKind::TcpRoute,
    ObjectKind::UdpRoute,
    ObjectKind::TlsRoute,
    ObjectKind::HttpRoute,
];

/// A running source.
///
/// It ends when it is dropped, and not before.
#[derive(Debug)]
pub struct Source {
    /// What changed, in order for each object. Bounded: a reader that stops reading slows the
    /// source down and loses nothing.
    pub changes: mpsc::Receiver<Change>,
    /// How well it reads. Notified when a state or a problem changes, not for each event.
    pub health: watch::Receiver<Health>,
    /// Grows with what is delivered, and never later than it.
    pub revision: Revision,
    /// The tasks that do the work; they are stopped with the source.
    #[expect(dead_code, reason = "held so that dropping the source stops its tasks")]
    pub(crate) tasks: JoinSet<()>,
}

/// How new what a source has delivered is: the greatest `resourceVersion` from the API (they can be
/// compared, Kubernetes 1.35), milliseconds since 1970 of the last change of a directory.
///
/// Several readers of one cluster come to the same numbers, so they can tell who knows more.
#[derive(Clone, Debug, Default)]
pub struct Revision(Arc<AtomicU64>);

impl Revision {
    /// The number; 0 before anything was delivered.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Raises the number. Called before what it stands for is delivered: a reader may believe for
    /// a moment that it knows more than it does, and never that it knows less.
    pub(crate) fn raise(&self, to: u64) {
        self.0.fetch_max(to, Ordering::AcqRel);
    }
}

/// How well a source reads.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Health {
    /// Each kind on its own: one may be forbidden while the others are watched.
    pub kinds: BTreeMap<ObjectKind, KindHealth>,
    /// What a user should know, until it is right again.
    pub problems: BTreeSet<Problem>,
}

impl Health {
    pub(crate) fn starting(kinds: &[ObjectKind]) -> Self {
        let kinds = kinds.iter().map(|it| (*it, KindHealth::starting()));
        Self { kinds: kinds.collect(), problems: BTreeSet::new() }
    }

    /// Whether every kind was read completely at least once.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.kinds.values().all(|it| it.listed)
    }

    /// Whether every kind is being followed right now: what is known is also current.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.kinds.values().all(|it| matches!(it.state, State::Watching | State::Absent))
    }

    /// The objects that are there but cannot be read. What a host has for them should be kept.
    #[must_use]
    pub fn unreadable(&self) -> BTreeSet<ObjectRef> {
        self.problems.iter().filter_map(|it| it.unreadable.as_object().cloned()).collect()
    }

    /// Whether something cannot be read whose name is not known either: nothing that a host has
    /// should be removed for the sole reason that no object asks for it.
    #[must_use]
    pub fn is_partly_unknown(&self) -> bool {
        self.problems.iter().any(|it| it.unreadable == Unreadable::Unknown)
    }
}

/// How well one kind is read.
#[derive(Clone, Debug, Serialize)]
pub struct KindHealth {
    /// What the source is doing about it.
    pub state: State,
    /// Since when.
    pub since: Timestamp,
    /// Whether the complete set was delivered at least once.
    pub listed: bool,
    /// How many objects matter to us.
    pub objects: usize,
    /// How many complete sets were delivered.
    pub lists: u64,
    /// How many single changes were delivered.
    pub events: u64,
    /// How many tries failed.
    pub errors: u64,
    /// When anything was last heard, bookmarks included.
    pub last_heard: Option<Timestamp>,
    /// What last went wrong; stays when all is well again.
    pub last_error: Option<LastError>,
}

impl KindHealth {
    fn starting() -> Self {
        Self {
            state: State::Starting,
            since: Timestamp::now(),
            listed: false,
            objects: 0,
            lists: 0,
            events: 0,
            errors: 0,
            last_heard: None,
            last_error: None,
        }
    }
}

/// What a source is doing about one kind.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The first complete set is being read.
    Starting,
    /// The complete set is known and changes are followed.
    Watching,
    /// Something failed; it is tried again, for ever.
    Retrying,
    /// Permission is missing; it is tried again, for ever.
    Forbidden,
    /// The API server says that the kind does not exist, so there are none; asked again, for ever.
    Absent,
}

/// What last went wrong.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct LastError {
    /// The error with its causes.
    pub message: String,
    /// When it happened.
    pub at: Timestamp,
}

/// Something wrong with what a source reads, as opposed to what it means.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Problem {
    /// Where it was found.
    pub place: Place,
    /// How much it matters.
    pub severity: Severity,
    /// What is wrong, and what follows.
    pub problem: String,
    /// What to do.
    pub remedy: String,
    /// What cannot be read because of it.
    pub unreadable: Unreadable,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, problem, remedy, .. } = self;
        write!(f, "{place}: {problem}; {remedy}")
    }
}

/// Where a problem was found.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Place {
    /// A file; line and column count from one, and are zero where only the file is known.
    File {
        /// The file, below the directory that is read.
        path: PathBuf,
        /// The line.
        line: u64,
        /// The column.
        column: u64,
    },
    /// All objects of a kind.
    Kind(ObjectKind),
    /// One object.
    Object(ObjectRef),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line: 0, .. } => f.write_str(&shown(path)),
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", shown(path)),
            Self::Kind(kind) => write!(f, "{kind}s"),
            Self::Object(object) => object.fmt(f),
        }
    }
}

/// A path on one line, whatever its bytes.
fn shown(path: &Path) -> String {
    let path = path.display().to_string();
    let plain = |it: char| match it {
        '"' | '\'' | '\\' => it.to_string(),
        _ => it.escape_debug().to_string(),
    };
    path.chars().map(plain).collect()
}

/// What cannot be read because of a problem.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Unreadable {
    /// Nothing is lost.
    Nothing,
    /// One object.
    Object(ObjectRef),
    /// Objects whose names are not known either.
    Unknown,
}

impl Unreadable {
    fn as_object(&self) -> Option<&ObjectRef> {
        match self {
            Self::Object(object) => Some(object),
            Self::Nothing | Self::Unknown => None,
        }
    }
}
