//! How a program ends: the exit codes that scripts rely on.

use std::fmt;
use std::process::ExitCode;

use crate::print;

/// What every subcommand returns.
pub type Result<T = Ending, E = anyhow::Error> = std::result::Result<T, E>;

/// How a subcommand ended when nothing failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ending {
    /// Done: exit code 0.
    Done,
    /// The input was refused, and the reason is already printed: exit code 2.
    Refused,
    /// A check that was asked for found something: exit code 3.
    Found,
}

/// What the caller wrote cannot be accepted. The program ends with exit code 2 instead of 1.
///
/// The message names the flag, file or object, the value, and what to do.
#[derive(Debug)]
pub struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// Returns an error that ends the program with exit code 2.
#[must_use]
pub fn refused(message: impl Into<String>) -> anyhow::Error {
    Refused(message.into()).into()
}

/// Says on standard error what went wrong, and returns the exit code.
#[must_use]
pub fn exit_code(ending: Result) -> ExitCode {
    match ending {
        Ok(Ending::Done) => ExitCode::SUCCESS,
        Ok(Ending::Refused) => ExitCode::from(2),
        Ok(Ending::Found) => ExitCode::from(3),
        Err(error) if print::is_closed(&error) => ExitCode::SUCCESS,
        Err(error) => {
            print::note(format_args!("error: {error:#}"));
            ExitCode::from(if error.is::<Refused>() { 2 } else { 1 })
        }
    }
}
