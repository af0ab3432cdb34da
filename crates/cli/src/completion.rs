//! `portcullis completion`: scripts that let a shell complete our arguments.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::arguments::Arguments;
use crate::ending::{Ending, Result};
use crate::print;

/// Which shell.
#[derive(Args, Debug)]
pub(crate) struct CompletionArguments {
    /// The shell that will read the script
    shell: Shell,
}

/// Prints the script.
pub(crate) fn run(arguments: &CompletionArguments) -> Result {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "portcullis", &mut script);
    print::document(&String::from_utf8(script)?)?;
    Ok(Ending::Done)
}
