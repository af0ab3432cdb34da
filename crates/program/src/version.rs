//! Which build a program is.

use serde::Serialize;

/// Which build this is.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Build {
    /// The version of everything in the workspace.
    pub version: &'static str,
    /// Set in the environment of the build; a plain `cargo build` does not know it.
    pub commit: Option<&'static str>,
    /// The processor that it runs on, as Rust calls it.
    pub architecture: &'static str,
    /// The system that it runs on.
    pub system: &'static str,
    /// Whether it checks more, and is slower, than what users get.
    pub debug_assertions: bool,
}

/// The version, as agents and gateways tell each other.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// This build.
pub const BUILD: Build = Build {
    version: VERSION,
    commit: option_env!("PORTCULLIS_COMMIT"),
    architecture: std::env::consts::ARCH,
    system: std::env::consts::OS,
    debug_assertions: cfg!(debug_assertions),
};
