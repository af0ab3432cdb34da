//! `portcullis version`: which build this is.

use serde::Serialize;

use crate::arguments::Output;
use crate::ending::{Ending, Result};
use crate::print;

/// Which build this is.
#[derive(Serialize)]
struct Build {
    version: &'static str,
    /// Set in the environment of the build; a plain `cargo build` does not know it.
    commit: Option<&'static str>,
    architecture: &'static str,
    system: &'static str,
    debug_assertions: bool,
}

/// The version, as agents and gateways tell each other.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

const BUILD: Build = Build {
    version: VERSION,
    commit: option_env!("PORTCULLIS_COMMIT"),
    architecture: std::env::consts::ARCH,
    system: std::env::consts::OS,
    debug_assertions: cfg!(debug_assertions),
};

/// Prints which build this is.
pub(crate) fn run(output: Output) -> Result {
    match output {
        Output::Json => print::json(&BUILD)?,
        Output::Text => print::line(format_args!(
            "portcullis {} (commit {}, {}-{}, {})",
            BUILD.version,
            BUILD.commit.unwrap_or("unknown"),
            BUILD.architecture,
            BUILD.system,
            if BUILD.debug_assertions { "development build" } else { "release build" },
        ))?,
    }
    Ok(Ending::Done)
}
