//! The one place that writes to the terminal.

use std::io::Write as _;
use std::process::ExitCode;

/// This machine cannot run the demo.
pub(crate) const CANNOT: u8 = 2;

/// Prints one line or paragraph. Nobody reading any more is no reason to stop.
pub(crate) fn say(text: &str) {
    let _nobody_reads = writeln!(std::io::stdout(), "{text}");
}

/// Prints text as it is.
pub(crate) fn pass_on(text: &[u8]) {
    let mut stdout = std::io::stdout();
    let _nobody_reads = stdout.write_all(text).and_then(|()| stdout.flush());
}

/// Prints a heading.
pub(crate) fn chapter(title: &str) {
    say(&format!("\n== {title}"));
}

/// Prints a command with what it printed.
pub(crate) fn show((command, output): &(String, String)) {
    say(&format!("   $ {command}"));
    for line in output.lines() {
        say(format!("     {line}").trim_end());
    }
}

/// Says why this machine cannot run the demo.
#[expect(clippy::print_stderr, reason = "this program talks to a person at a terminal")]
pub(crate) fn give_up(error: &anyhow::Error) -> ExitCode {
    eprintln!("the demo cannot run here: {error:#}");
    ExitCode::from(CANNOT)
}

/// Says what did not hold, with what the controller logged.
#[expect(clippy::print_stderr, reason = "this program talks to a person at a terminal")]
pub(crate) fn failed(error: &anyhow::Error, log: &str) {
    eprintln!("\nthe demo failed: {error:#}\n\nthe controller's log:\n{log}");
}
