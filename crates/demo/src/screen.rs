//! The one place that writes to the terminal.

use std::process::ExitCode;

/// Prints one line or paragraph.
#[expect(clippy::print_stdout, reason = "this program talks to a person at a terminal")]
pub(crate) fn say(text: &str) {
    println!("{text}");
}

/// Prints a heading.
pub(crate) fn chapter(title: &str) {
    say(&format!("\n== {title}"));
}

/// Says why this machine cannot run the demo.
#[expect(clippy::print_stderr, reason = "this program talks to a person at a terminal")]
pub(crate) fn give_up(error: &anyhow::Error) -> ExitCode {
    eprintln!("the demo cannot run here: {error:#}");
    ExitCode::from(2)
}

/// Says what did not hold, with what the controller logged.
#[expect(clippy::print_stderr, reason = "this program talks to a person at a terminal")]
pub(crate) fn failed(error: &anyhow::Error, log: &str) {
    eprintln!("\nthe demo failed: {error:#}\n\nthe controller's log:\n{log}");
}
