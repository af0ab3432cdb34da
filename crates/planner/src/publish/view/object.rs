//! What is kept of every object, whatever its kind.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::annotation::{PublishWish, read_published};
use api::object::{ObjectKind, ObjectRef};
use api::problem::{Problem, Reason};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    LabelSelector, LabelSelectorRequirement, ObjectMeta,
};

use crate::finding::{Finding, Severity};

/// Namespace and name.
pub(crate) type Key = (String, String);

/// What is kept of every object's metadata.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Meta {
    pub(crate) uid: Box<str>,
    pub(crate) generation: Option<i64>,
    /// Creation time in seconds since 1970; objects without one count as the youngest.
    pub(crate) created: i64,
}

impl Meta {
    pub(super) fn read(metadata: &ObjectMeta) -> Self {
        let created = metadata.creation_timestamp.as_ref();
        Self {
            uid: metadata.uid.as_deref().unwrap_or_default().into(),
            generation: metadata.generation,
            created: created.map_or(i64::MAX, |it| it.0.as_second()),
        }
    }
}

/// What the annotations of an object ask for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Annotated {
    /// When they could last be understood; `None` when they never could.
    pub(crate) wish: Option<Arc<PublishWish>>,
    /// Whether they cannot be understood now.
    pub(crate) malformed: bool,
    pub(crate) findings: Vec<Finding>,
}

impl Annotated {
    /// Reads annotations and takes in further problems of the object.
    pub(super) fn read(
        object: &ObjectRef,
        metadata: &ObjectMeta,
        mut more: Vec<Problem>,
        before: Option<&Self>,
    ) -> Self {
        let reading = read_published(object.kind, metadata);
        let malformed = reading.wish.is_none() || more.iter().any(|it| it.reason.refuses());
        let last = || before.and_then(|it| it.wish.clone());
        let wish = reading.wish.filter(|_| !malformed).map(Arc::new).or_else(last);
        let consequence = match &wish {
            Some(_) => "; its last good state stays in effect",
            None => "; nothing is published for it",
        };
        let mut problems = reading.problems;
        problems.append(&mut more);
        let findings = problems.into_iter().map(|it| finding(object, it, consequence)).collect();
        Self { wish, malformed, findings }
    }
}

/// A problem of an object as a finding.
pub(crate) fn finding(object: &ObjectRef, problem: Problem, consequence: &str) -> Finding {
    let Problem { reason, field, value, mut problem, remedy } = problem;
    let severity = match reason {
        Reason::Invalid => Severity::Error,
        Reason::Overridden | Reason::NoEffect => Severity::Warning,
    };
    if reason.refuses() {
        problem.push_str(consequence);
    }
    let (object, reason) = (object.clone(), reason.name());
    Finding { severity, reason, object, field, value, problem, remedy }
}

/// From which namespaces something may attach.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum From {
    /// From every one.
    All,
    /// From the same one.
    Same,
    /// From those with these labels.
    Selected(LabelSelector),
    /// From none.
    #[default]
    Nowhere,
}

impl From {
    pub(super) fn read(from: Option<&str>, selector: Option<&LabelSelector>, absent: Self) -> Self {
        match from {
            None => absent,
            Some("All") => Self::All,
            Some("Same") => Self::Same,
            Some("Selector") => selector.cloned().map_or(Self::Nowhere, Self::Selected),
            Some(_) => Self::Nowhere,
        }
    }

    /// Whether an object in `namespace`, which has these labels, may attach to one in `own`.
    pub(crate) fn allows(&self, own: &str, namespace: &str, labels: &Labels) -> bool {
        match self {
            Self::All => true,
            Self::Same => own == namespace,
            Self::Selected(selector) => matches(selector, labels),
            Self::Nowhere => false,
        }
    }
}

/// The labels of a namespace.
pub(crate) type Labels = BTreeMap<String, String>;

/// Whether labels match a selector (`meta/v1 LabelSelector`): all requirements at once; an empty
/// selector matches everything, one with an unknown operator nothing.
fn matches(selector: &LabelSelector, labels: &Labels) -> bool {
    let equal = selector.match_labels.iter().flatten();
    let mut expressions = selector.match_expressions.iter().flatten();
    equal.into_iter().all(|(key, value)| labels.get(key) == Some(value))
        && expressions.all(|it| meets(it, labels))
}

fn meets(requirement: &LabelSelectorRequirement, labels: &Labels) -> bool {
    let label = labels.get(&requirement.key);
    let listed = |it: &String| requirement.values.iter().flatten().any(|value| value == it);
    match requirement.operator.as_str() {
        "In" => label.is_some_and(listed),
        "NotIn" => !label.is_some_and(listed),
        "Exists" => label.is_some(),
        "DoesNotExist" => label.is_none(),
        _ => false,
    }
}

/// Names an object in a namespace.
pub(crate) fn object(kind: ObjectKind, (namespace, name): &Key) -> ObjectRef {
    ObjectRef::namespaced(kind, namespace, name)
}
