//! `portcullis migrate`: reads what a predecessor left, reports, and takes over.

mod deployment;
mod epok;
mod report;

pub(crate) use epok::Work;

use clap::{Args, Subcommand};

use crate::arguments::Output;
use crate::ending::Result;

/// From whom.
#[derive(Args, Debug)]
pub(crate) struct MigrateArguments {
    #[command(subcommand)]
    from: From,
}

#[derive(Debug, Subcommand)]
enum From {
    /// Epok: its options, its Deployment, its annotations, and the rules it left on a host
    Epok(epok::MigrateEpokArguments),
}

/// Reports, and takes over where that was asked for.
pub(crate) async fn run(arguments: &MigrateArguments, output: Output) -> Result {
    match &arguments.from {
        From::Epok(arguments) => epok::run(arguments, output).await,
    }
}
