//! What came from the API becomes changes. No API here: lists and events come as values.

use std::collections::BTreeMap;

use api::object::{ObjectKind, ObjectRef};
use planner::cluster_view::{Change, Object};

/// One object as it was decoded, reduced to what planning reads.
#[derive(Debug)]
pub(super) enum Reduced {
    /// It may concern us.
    Relevant(Box<Object>),
    /// It does not concern us.
    Irrelevant(ObjectRef),
    /// It is there, but it is not what its kind should look like.
    Unreadable(ObjectRef, String),
}

impl Reduced {
    pub(super) fn reference(&self) -> ObjectRef {
        match self {
            Self::Relevant(object) => object.reference(),
            Self::Irrelevant(reference) | Self::Unreadable(reference, _) => reference.clone(),
        }
    }
}

/// Turns the lists and events of one kind into changes.
///
/// An unreadable object keeps its last good state. An object that does not concern us costs a
/// change only when it did concern us before.
#[derive(Debug)]
pub(super) struct Feed {
    kind: ObjectKind,
    /// Whether unreadable objects are possible, so that last good states must be kept.
    keeps: bool,
    delivered: BTreeMap<ObjectRef, Option<Object>>,
    unreadable: BTreeMap<ObjectRef, String>,
}

impl Feed {
    pub(super) fn new(kind: ObjectKind) -> Self {
        // The types of built-in kinds accept whatever the API server stores; for our own kind,
        // server and program may be of different versions.
        let keeps = kind == ObjectKind::Host;
        Self { kind, keeps, delivered: BTreeMap::new(), unreadable: BTreeMap::new() }
    }

    /// Takes a complete list.
    pub(super) fn listed(&mut self, items: Vec<Reduced>) -> Change {
        let before = std::mem::take(&mut self.delivered);
        self.unreadable.clear();

        let mut objects = Vec::with_capacity(items.len());
        for item in items {
            match item {
                Reduced::Relevant(object) => {
                    self.deliver(&object);
                    objects.push(*object);
                }
                Reduced::Irrelevant(_) => {}
                Reduced::Unreadable(reference, problem) => {
                    if let Some(Some(last_good)) = before.get(&reference) {
                        self.deliver(last_good);
                        objects.push(last_good.clone());
                    }
                    self.unreadable.insert(reference, problem);
                }
            }
        }
        Change::Reset(self.kind, objects)
    }

    /// Takes an object that was added or modified.
    pub(super) fn applied(&mut self, item: Reduced) -> Option<Change> {
        self.unreadable.remove(&item.reference());
        match item {
            Reduced::Relevant(object) => {
                self.deliver(&object);
                Some(Change::Applied(*object))
            }
            Reduced::Irrelevant(reference) => {
                self.delivered.remove(&reference).map(|_| Change::Deleted(reference))
            }
            Reduced::Unreadable(reference, problem) => {
                self.unreadable.insert(reference, problem);
                None
            }
        }
    }

    /// Takes an object that was deleted.
    pub(super) fn deleted(&mut self, item: &Reduced) -> Option<Change> {
        let reference = item.reference();
        self.unreadable.remove(&reference);
        self.delivered.remove(&reference).map(|_| Change::Deleted(reference))
    }

    /// How many objects were delivered and are still there.
    pub(super) fn len(&self) -> usize {
        self.delivered.len()
    }

    /// The objects that are there but cannot be read, and why.
    pub(super) fn unreadable(&self) -> &BTreeMap<ObjectRef, String> {
        &self.unreadable
    }

    fn deliver(&mut self, object: &Object) {
        self.delivered.insert(object.reference(), self.keeps.then(|| object.clone()));
    }
}
