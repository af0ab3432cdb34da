//! What went wrong with the API, sorted by what it means for us.

use std::error::Error as _;
use std::fmt::Write as _;
use std::time::Duration;

/// Why reading a kind did not go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// The server refuses to show it.
    #[error("the API server forbids it")]
    Forbidden(#[source] kube::Error),
    /// The server says that there is no such kind.
    #[error("the API server does not know the kind")]
    NoSuchKind(#[source] kube::Error),
    /// The server can no longer tell what happened since: the list must be read again.
    #[error("the API server no longer knows what changed since")]
    Expired(#[source] kube::Error),
    /// Nothing came in time.
    #[error("no answer within {0:?}")]
    Silent(Duration),
    /// The watch ended as soon as it began.
    #[error("the watch ended after {0:?}")]
    TooShort(Duration),
    /// The answer lacks what the protocol promises.
    #[error("the answer has no resourceVersion")]
    NoVersion,
    /// Anything else: connection refused, server overloaded, certificate refused.
    #[error("the request failed")]
    Other(#[source] kube::Error),
}

impl From<kube::Error> for Trouble {
    fn from(error: kube::Error) -> Self {
        match status_code(&error) {
            Some(403) => Self::Forbidden(error),
            Some(404) => Self::NoSuchKind(error),
            Some(410) => Self::Expired(error),
            Some(_) | None => Self::Other(error),
        }
    }
}

impl Trouble {
    /// The error with its causes, without repeating one.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = self.source();
        while let Some(error) = source {
            let part = match error.downcast_ref::<kube::Error>() {
                // Its own Display holds the Debug form of the whole status.
                Some(kube::Error::Api(status)) => {
                    format!("{} (HTTP status {})", status.message, status.code)
                }
                Some(_) | None => error.to_string(),
            };
            let is_api = matches!(error.downcast_ref(), Some(kube::Error::Api(_)));
            if !text.ends_with(&part) {
                let _ = write!(text, ": {part}");
            }
            source = if is_api { None } else { error.source() };
        }
        text
    }
}

/// The HTTP status that the server answered with, if it answered.
pub(crate) fn status_code(error: &kube::Error) -> Option<u16> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "only an answer has a status")]
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}
