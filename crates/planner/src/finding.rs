//! What a user got wrong or should know, and what was done about it.

use std::fmt;

use api::object::ObjectRef;
use serde::Serialize;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Part of what the object asked for has no effect.
    Error,
    /// It works, but probably not as meant.
    Warning,
    /// Nothing is wrong; it is good to know.
    Note,
}

/// One thing that a user got wrong or should know.
///
/// It reads as `Service web/blog: portcullis.dev/host-ports: "22:x": ...; remedy: ...`.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// A stable word in UpperCamelCase, used as the reason of Events and conditions.
    pub reason: &'static str,
    /// The object to change.
    pub object: ObjectRef,
    /// The field or annotation to change.
    pub field: String,
    /// What it says now, as written.
    pub value: String,
    /// What is wrong with it and what follows.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { object, field, value, problem, remedy, .. } = self;
        write!(f, "{object}: {field}: {value:?}: {problem}; {remedy}")
    }
}
