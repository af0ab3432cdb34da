//! What is kept of a Service or a Pod that asks something of hosts.

use std::sync::Arc;

use api::annotation::PodWish;
use api::object::ObjectRef;
use api::problem::{Problem, Reason};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::service::AskedService;
use super::wish::Wish;
use crate::finding::{Finding, Severity};

/// What is kept of a Service or a Pod that asks something of hosts.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Owner {
    pub(super) uid: Box<str>,
    /// What it asked for when it could last be understood.
    pub(super) asked: Option<Asked>,
    /// What it gets, as far as no host decides: from `asked` and its present state.
    pub(super) wish: Option<Arc<Wish>>,
    /// Whether it cannot be understood now.
    pub(super) malformed: bool,
    /// Whether `status.loadBalancer` of it is ours.
    pub(super) load_balancer: bool,
    pub(super) findings: Vec<Finding>,
}

/// The last good state of what an object asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Asked {
    Service(Arc<AskedService>),
    Pod(Arc<PodWish>),
}

impl Asked {
    pub(super) fn as_service(&self) -> Option<Arc<AskedService>> {
        match self {
            Self::Service(it) => Some(Arc::clone(it)),
            Self::Pod(_) => None,
        }
    }

    pub(super) fn as_pod(&self) -> Option<Arc<PodWish>> {
        match self {
            Self::Pod(it) => Some(Arc::clone(it)),
            Self::Service(_) => None,
        }
    }
}

impl Owner {
    pub(super) fn new(uid: Box<str>, load_balancer: bool, malformed: bool) -> Self {
        let (asked, wish, findings) = (None, None, Vec::new());
        Self { uid, asked, wish, malformed, load_balancer, findings }
    }

    /// Whether there is anything to remember.
    pub(super) fn matters(&self) -> bool {
        self.malformed || self.asked.is_some() || !self.findings.is_empty()
    }

    /// Whether there is something to say about it, or it chooses among hosts.
    pub(super) fn is_noted(&self) -> bool {
        !self.findings.is_empty() || self.wish.as_ref().is_some_and(|it| it.hosts.is_some())
    }

    /// Whether it cannot be understood and no last good state says what it meant.
    pub(super) fn is_unreadable(&self) -> bool {
        self.malformed && self.asked.is_none()
    }

    /// Turns problems into findings that say what follows.
    pub(super) fn report(&mut self, owner: &ObjectRef, problems: Vec<Problem>, known: bool) {
        let consequence = match known {
            true => "; what it asked for before stays in force",
            false => "; nothing new is forwarded for it",
        };
        self.findings.extend(problems.into_iter().map(|it| finding(owner, it, consequence)));
    }
}

/// Turns a problem into a finding; `consequence` is said of a problem that refuses the object.
pub(super) fn finding(object: &ObjectRef, problem: Problem, consequence: &str) -> Finding {
    let Problem { reason, field, value, mut problem, remedy } = problem;
    let severity = match reason {
        Reason::Invalid => Severity::Error,
        Reason::Overridden | Reason::NoEffect => Severity::Warning,
    };
    if reason.refuses() {
        problem.push_str(consequence);
    }
    Finding {
        severity,
        reason: reason.name(),
        object: object.clone(),
        field,
        value,
        problem,
        remedy,
    }
}

/// Creation time in seconds since 1970; an object without one (in a manifest) is the youngest.
pub(super) fn created(metadata: &ObjectMeta) -> i64 {
    metadata.creation_timestamp.as_ref().map_or(i64::MAX, |it| it.0.as_second())
}

/// The object's unique identity, empty when the source gives none.
pub(super) fn uid(metadata: &ObjectMeta) -> Box<str> {
    metadata.uid.as_deref().unwrap_or_default().into()
}
