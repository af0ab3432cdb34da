//! What all files say together, and how it differs from before. No disk here.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use api::object::{ObjectKind, ObjectRef};
use planner::cluster_view::{Change, Object};
use planner::finding::Severity;

use super::object::is_same;
use super::parse::{Parsed, parse};
use super::scan::{Content, Found};
use crate::source::{KINDS, Place, Problem, Unreadable};

/// What all files say together.
#[derive(Debug)]
pub(super) struct Files {
    /// The kinds that are read.
    kinds: &'static [ObjectKind],
    files: BTreeMap<PathBuf, File>,
    /// What was delivered.
    delivered: BTreeMap<ObjectRef, Object>,
}

#[derive(Debug, Default)]
struct File {
    /// Its objects, those of broken documents as they last were; with their lines.
    objects: BTreeMap<ObjectRef, (Object, u64)>,
    problems: Vec<Problem>,
}

impl Default for Files {
    fn default() -> Self {
        Self::new(&KINDS)
    }
}

impl Files {
    /// No files yet; only `kinds` will be read of them.
    pub(super) fn new(kinds: &'static [ObjectKind]) -> Self {
        Self { kinds, files: BTreeMap::new(), delivered: BTreeMap::new() }
    }

    /// Takes what a look at the disk brought: every file that is there.
    pub(super) fn update(&mut self, found: Found) {
        let mut before = std::mem::take(&mut self.files);
        for (path, content) in found {
            let file = before.remove(&path).unwrap_or_default();
            let file = match content {
                Content::Unchanged => file,
                Content::Text(text) => file.replaced(&path, parse(&path, &text, self.kinds)),
                Content::Failed(error) => file.failed(&path, &error.to_string()),
            };
            self.files.insert(path, file);
        }
    }

    /// Adds files that were found elsewhere.
    pub(super) fn add(&mut self, found: Found) {
        let before = std::mem::take(&mut self.files);
        self.update(found);
        self.files.extend(before);
    }

    /// Everything, as complete sets of each kind.
    pub(super) fn reset(&mut self) -> Vec<Change> {
        self.delivered = self.merged();
        let of_kind = |kind: ObjectKind| {
            let objects = self.delivered.iter().filter(|(reference, _)| reference.kind == kind);
            Change::Reset(kind, objects.map(|(_, object)| object.clone()).collect())
        };
        self.kinds.iter().map(|it| of_kind(*it)).collect()
    }

    /// What differs from what was delivered.
    pub(super) fn changes(&mut self) -> Vec<Change> {
        let merged = self.merged();
        let gone = self.delivered.keys().filter(|it| !merged.contains_key(it));
        let mut changes: Vec<Change> = gone.cloned().map(Change::Deleted).collect();
        for (reference, object) in &merged {
            if !self.delivered.get(reference).is_some_and(|it| is_same(it, object)) {
                changes.push(Change::Applied(object.clone()));
            }
        }
        self.delivered = merged;
        changes
    }

    /// How many objects of a kind there are.
    pub(super) fn count(&self, kind: ObjectKind) -> usize {
        self.delivered.keys().filter(|it| it.kind == kind).count()
    }

    /// Everything that is wrong with the files.
    pub(super) fn problems(&self) -> BTreeSet<Problem> {
        let mut problems: BTreeSet<Problem> =
            self.files.values().flat_map(|it| it.problems.iter().cloned()).collect();
        let mut first: BTreeMap<&ObjectRef, (&Path, u64)> = BTreeMap::new();
        for (path, file) in &self.files {
            for (reference, &(_, line)) in &file.objects {
                match first.entry(reference) {
                    Entry::Vacant(entry) => {
                        entry.insert((path, line));
                    }
                    Entry::Occupied(entry) => {
                        problems.insert(duplicate(reference, (path, line), *entry.get()));
                    }
                }
            }
        }
        problems
    }

    fn merged(&self) -> BTreeMap<ObjectRef, Object> {
        let mut merged = BTreeMap::new();
        for (reference, (object, _)) in self.files.values().flat_map(|it| &it.objects) {
            merged.entry(reference.clone()).or_insert_with(|| object.clone());
        }
        merged
    }
}

impl File {
    fn replaced(self, path: &Path, parsed: Parsed) -> Self {
        let mut file = Self { objects: BTreeMap::new(), problems: parsed.problems };
        for (object, line) in parsed.objects {
            let reference = object.reference();
            match file.objects.entry(reference.clone()) {
                Entry::Vacant(entry) => {
                    entry.insert((object, line));
                }
                Entry::Occupied(entry) => {
                    let first = (path, entry.get().1);
                    file.problems.push(duplicate(&reference, (path, line), first));
                }
            }
        }
        for (reference, last_good) in self.objects {
            let is_hidden = file.problems.iter().any(|it| match &it.unreadable {
                Unreadable::Nothing => false,
                Unreadable::Object(object) => *object == reference,
                Unreadable::Unknown => true,
            });
            if is_hidden {
                file.objects.entry(reference).or_insert(last_good);
            }
        }
        // What has a last good state is not lost.
        for problem in &mut file.problems {
            if let Unreadable::Object(object) = &problem.unreadable
                && file.objects.contains_key(object)
            {
                problem.unreadable = Unreadable::Nothing;
            }
        }
        file
    }

    fn failed(mut self, path: &Path, error: &str) -> Self {
        let unreadable =
            if self.objects.is_empty() { Unreadable::Unknown } else { Unreadable::Nothing };
        self.problems = vec![Problem {
            place: Place::File { path: path.to_owned(), line: 0, column: 0 },
            severity: Severity::Error,
            problem: format!("cannot be read: {error}; what it last said stays in effect"),
            remedy: "make it a readable UTF-8 text, or remove it".to_owned(),
            unreadable,
        }];
        self
    }
}

fn duplicate(reference: &ObjectRef, second: (&Path, u64), first: (&Path, u64)) -> Problem {
    let (path, line) = second;
    Problem {
        place: Place::File { path: path.to_owned(), line, column: 1 },
        severity: Severity::Warning,
        problem: format!(
            "{reference} already stands in {}:{}, which counts",
            first.0.display(),
            first.1
        ),
        remedy: "remove one of the two, or rename it".to_owned(),
        unreadable: Unreadable::Nothing,
    }
}
