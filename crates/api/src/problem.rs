//! What is wrong with one field of one object.
//!
//! A problem does not name its object: whoever reads an object knows which one it is.

use std::fmt;

/// One thing that a user got wrong or should know about a field.
///
/// It reads as `spec.interfaces[0]: "eth 0": not an interface name; use 1 to 15 letters ...`.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Problem {
    /// What sort of problem it is.
    pub reason: Reason,
    /// The annotation key, the label key, or the path of the field (`spec.interfaces[0]`).
    pub field: String,
    /// What the field says now, shortened when it is long; control characters as written.
    pub value: String,
    /// What is wrong with it, and what follows.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

/// What sort of problem it is.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Reason {
    /// The value cannot be understood or contradicts another one. The object is refused whole.
    Invalid,
    /// Both vocabularies speak and differ; `portcullis.dev` counts. The object is accepted.
    Overridden,
    /// The key has no effect on this kind of object. The object is accepted.
    NoEffect,
}

impl Reason {
    /// A stable word in UpperCamelCase, for Events and conditions.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Invalid => "InvalidValue",
            Self::Overridden => "ValueOverridden",
            Self::NoEffect => "ValueWithoutEffect",
        }
    }

    /// Whether the object is refused because of it.
    #[must_use]
    pub fn refuses(self) -> bool {
        match self {
            Self::Invalid => true,
            Self::Overridden | Self::NoEffect => false,
        }
    }
}

impl Problem {
    /// Describes a value that cannot be accepted.
    #[must_use]
    pub fn invalid(
        field: impl Into<String>,
        value: &str,
        problem: impl fmt::Display,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(Reason::Invalid, field, value, problem, remedy)
    }

    pub(crate) fn new(
        reason: Reason,
        field: impl Into<String>,
        value: &str,
        problem: impl fmt::Display,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            reason,
            field: field.into(),
            value: shorten(value, VALUE_CHARACTERS),
            problem: problem.to_string(),
            remedy: remedy.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reason: _, field, value, problem, remedy } = self;
        write!(f, "{field}: {value:?}: {problem}; {remedy}")
    }
}

/// How much of a value a problem repeats: enough to find it in a manifest, and little enough that
/// a problem in plain words fits into an Event.
const VALUE_CHARACTERS: usize = 128;

/// How much of a value an error message repeats.
const EXCERPT_CHARACTERS: usize = 48;

/// Returns `text` as an error message may repeat it: short, and without control characters or
/// text that turns the direction of writing, so that hostile text cannot forge a line of a log.
pub(crate) fn excerpt(text: &str) -> String {
    let plain = |it: char| match it {
        // Quotes and the backslash are escaped by `escape_debug`, but they harm nobody here.
        '"' | '\'' | '\\' => it.to_string(),
        _ => it.escape_debug().to_string(),
    };
    shorten(text, EXCERPT_CHARACTERS).chars().map(plain).collect()
}

fn shorten(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_short_and_holds_no_control_characters() {
        assert_eq!(excerpt("eth0'; reboot"), "eth0'; reboot");
        assert_eq!(excerpt("a\n\u{1b}[31mb\u{202e}c\0"), "a\\n\\u{1b}[31mb\\u{202e}c\\0");
        assert_eq!(excerpt(&"é".repeat(60)), format!("{}…", "é".repeat(48)));
    }

    #[test]
    fn a_problem_reads_as_one_line() {
        let problem = Problem::invalid("spec.backend", "ip\ntables", "no such backend", "use nft");
        assert_eq!(problem.to_string(), r#"spec.backend: "ip\ntables": no such backend; use nft"#);
    }
}
