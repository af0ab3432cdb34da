//! Reading the arguments of a program.

use std::ffi::OsString;

use clap::Parser;

use crate::ending::{Ending, Result};

/// Reads the arguments and goes on with them. Help and versions that were asked for go to standard
/// output, complaints to standard error.
///
/// # Errors
///
/// What `go_on` returns, or why the terminal cannot be written.
pub fn parse<T: Parser>(arguments: &[OsString], go_on: impl FnOnce(T) -> Result) -> Result {
    match T::try_parse_from(arguments) {
        Ok(arguments) => go_on(arguments),
        Err(error) => {
            error.print()?;
            Ok(if error.use_stderr() { Ending::Refused } else { Ending::Done })
        }
    }
}
