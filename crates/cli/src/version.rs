//! `portcullis version`: which build this is.

use program::version::BUILD;

use crate::arguments::Output;
use crate::ending::{Ending, Result};
use crate::print;

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
