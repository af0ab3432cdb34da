//! `portcullis gateway run`: the daemon on the gateway's machine.

use std::path::PathBuf;

use clap::Args;

use crate::ending::{Result, refused};

/// How to run.
#[derive(Args, Debug)]
pub(crate) struct RunArguments {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = "/etc/portcullis/gateway.toml")]
    config: PathBuf,
}

/// Runs until it is stopped.
pub(crate) async fn run(arguments: &RunArguments) -> Result {
    let config = arguments.config.display();
    Err(refused(format!("--config: {config}: this build has no gateway yet")))
}
