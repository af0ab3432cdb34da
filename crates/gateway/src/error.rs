//! Why a gateway could not start.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use tunnel::trust::TrustError;

use crate::config::ConfigError;

/// Why a gateway could not start, or had to end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GatewayError {
    /// The configuration was not accepted.
    #[error("the configuration is not accepted")]
    Config(#[from] ConfigError),
    /// The state directory cannot be used.
    #[error("stateDirectory {}: cannot be used; it must belong to the gateway's user", .path.display())]
    StateDirectory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Keys and certificates cannot be used.
    #[error("keys and certificates cannot be used")]
    Trust(#[source] TrustError),
    /// The tunnel port cannot be had.
    #[error("listen {address}: cannot be bound; {holder}")]
    TunnelPort {
        /// Where.
        address: SocketAddr,
        /// Who has it.
        holder: String,
        /// Why.
        source: io::Error,
    },
    /// Metrics cannot be served.
    #[error("metrics {at}: cannot be served there")]
    Metrics {
        /// Where.
        at: String,
        /// Why.
        source: io::Error,
    },
    /// Something that the system must do for every program.
    #[error("{what}")]
    System {
        /// What failed.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// An error with its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
