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
    pub(super) fn new(kind: ObjectKind, keeps: bool) -> Self {
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

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use k8s_openapi::api::core::v1::Service;

    use super::*;

    #[test]
    fn a_list_is_delivered_whole() {
        let mut feed = Feed::new(ObjectKind::Service, false);
        check(
            Some(feed.listed(vec![relevant("a"), irrelevant("b"), relevant("c")])),
            expect![[r#"reset web/a web/c"#]],
        );
        // What is missing from the next list is gone with it.
        check(Some(feed.listed(vec![relevant("c")])), expect![[r#"reset web/c"#]]);
        check(feed.deleted(&irrelevant("a")), expect![[r#"nothing"#]]);
    }

    #[test]
    fn what_does_not_concern_us_costs_nothing_unless_it_did() {
        let mut feed = Feed::new(ObjectKind::Service, false);
        check(feed.applied(irrelevant("a")), expect![[r#"nothing"#]]);
        check(feed.applied(relevant("a")), expect![[r#"applied Service web/a"#]]);
        check(feed.applied(irrelevant("a")), expect![[r#"deleted Service web/a"#]]);
        check(feed.applied(irrelevant("a")), expect![[r#"nothing"#]]);
        check(feed.deleted(&relevant("a")), expect![[r#"nothing"#]]);
    }

    #[test]
    fn an_unreadable_object_keeps_its_last_good_state() {
        let mut feed = Feed::new(ObjectKind::Host, true);
        check(Some(feed.listed(vec![unreadable("a"), relevant("b")])), expect![[r#"reset web/b"#]]);
        check(feed.applied(relevant("a")), expect![[r#"applied Service web/a"#]]);
        check(feed.applied(unreadable("a")), expect![[r#"nothing"#]]);
        check(Some(feed.listed(vec![unreadable("a")])), expect![[r#"reset web/a"#]]);
        assert_eq!(feed.unreadable().values().collect::<Vec<_>>(), ["broken"]);

        check(feed.applied(relevant("a")), expect![[r#"applied Service web/a"#]]);
        assert!(feed.unreadable().is_empty());
        check(feed.deleted(&unreadable("a")), expect![[r#"deleted Service web/a"#]]);
    }

    fn relevant(name: &str) -> Reduced {
        let mut service = Service::default();
        service.metadata.name = Some(name.to_owned());
        service.metadata.namespace = Some("web".to_owned());
        Reduced::Relevant(Box::new(Object::Service(Box::new(service))))
    }

    fn irrelevant(name: &str) -> Reduced {
        Reduced::Irrelevant(relevant(name).reference())
    }

    fn unreadable(name: &str) -> Reduced {
        Reduced::Unreadable(relevant(name).reference(), "broken".to_owned())
    }

    #[track_caller]
    fn check(change: Option<Change>, expected: Expect) {
        let text = match change {
            None => "nothing".to_owned(),
            Some(Change::Applied(object)) => format!("applied {}", object.reference()),
            Some(Change::Deleted(reference)) => format!("deleted {reference}"),
            Some(Change::Reset(_, objects)) => objects
                .iter()
                .fold("reset".to_owned(), |text, it| format!("{text} web/{}", it.reference().name)),
        };
        expected.assert_eq(&text);
    }
}
