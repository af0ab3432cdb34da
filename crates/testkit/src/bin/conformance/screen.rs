//! The one place that writes to the terminal.

use std::io::Write as _;

/// Prints one line or paragraph. Nobody reading any more is no reason to stop.
pub(crate) fn say(text: &str) {
    let _nobody_reads = writeln!(std::io::stdout(), "{text}");
}
