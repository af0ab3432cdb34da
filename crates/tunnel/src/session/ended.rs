//! Why a session is over.

use std::time::Duration;

/// Why a session is over.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Ended {
    /// This end closed it.
    #[error("closed by this end")]
    Here,
    /// The other end closed it.
    #[error("closed by the other end")]
    There,
    /// Nothing was heard for too long.
    #[error("nothing heard for {0:?}")]
    Silent(Duration),
    /// A newer session of the same agent took over.
    #[error("a newer session took over, epoch {by}")]
    Evicted {
        /// The epoch of the newer session.
        by: u64,
    },
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The other end said something that makes no sense.
    #[error("the other end does not keep to the protocol: {0}")]
    Nonsense(String),
    /// Messages were not taken as fast as they came, or not sent as fast as they were made.
    #[error("messages piled up")]
    Overrun,
}

impl Ended {
    /// Whether what carried the session must be thought dead, and with it the flows on the way.
    #[must_use]
    pub fn is_silence(&self) -> bool {
        matches!(self, Self::Silent(_))
    }
}
