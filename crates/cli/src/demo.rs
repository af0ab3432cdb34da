//! `portcullis demo`: starts the demo program, which is not part of this one because it brings
//! test tools along.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;
use clap::Args;

use crate::ending::{Result, refused};

/// What the demo program takes is its own business.
#[derive(Args, Debug)]
#[command(disable_help_flag = true)]
pub(crate) struct DemoArguments {
    /// Arguments for the demo, for example --kube or --keep
    #[arg(value_name = "ARGUMENT", trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Becomes the demo program; returns only when that is not possible.
pub(crate) fn run(arguments: &DemoArguments) -> Result {
    let demo = beside_this_program("portcullis-demo")?;
    if !demo.is_file() {
        return Err(refused(format!(
            "the demo is not installed: there is no {}; run `make demo` in the source tree, which \
             builds it and runs it",
            demo.display()
        )));
    }
    let error = Command::new(&demo).args(&arguments.arguments).exec();
    Err(error).with_context(|| format!("cannot start {}", demo.display()))
}

fn beside_this_program(name: &str) -> Result<PathBuf> {
    let this = std::env::current_exe().context("cannot find out where this program is")?;
    Ok(this.with_file_name(name))
}
