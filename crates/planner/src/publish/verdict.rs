//! What is said about one aspect of an object: true or false, why in one word, why in words.

/// What is said about one aspect of an object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) is_true: bool,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Verdict {
    pub(crate) fn yes(reason: &'static str) -> Self {
        Self { is_true: true, reason, message: String::new() }
    }

    pub(crate) fn no(reason: &'static str, message: impl Into<String>) -> Self {
        Self { is_true: false, reason, message: message.into() }
    }

    pub(crate) fn with(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }
}
