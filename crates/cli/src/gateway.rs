//! `portcullis gateway`: the public side of tunnels, as a daemon and from the cluster's side.

mod authority;
mod create;
mod list;
mod rotate;

use clap::{Args, Subcommand};
use gateway_daemon::DaemonOptions;

use crate::arguments::Output;
use crate::ending::Result;

const EXAMPLES: &str = "\
Examples:
  portcullis gateway create fra1 --endpoint gw.example.com > user-data
                                   declare a gateway, print what its machine starts with
  portcullis gateway list          what the cluster's gateways do
  portcullis gateway rotate        begin to replace the cluster's authority
  portcullis gateway run --config /etc/portcullis/gateway.toml
                                   be a gateway; a unit does this on its machine";

/// What to do with gateways.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct GatewayArguments {
    #[command(subcommand)]
    command: GatewayCommand,
}

#[derive(Debug, Subcommand)]
enum GatewayCommand {
    /// Be a gateway, as its configuration file says
    #[command(after_help = gateway_daemon::help("portcullis gateway run"))]
    Run(DaemonOptions),
    /// Declare a gateway and print what its machine starts with
    Create(Box<create::CreateArguments>),
    /// Show the declared gateways
    List(list::ListArguments),
    /// Replace the cluster's authority, without dropping a connection
    Rotate(rotate::RotateArguments),
}

/// Does it.
pub(crate) async fn run(arguments: &GatewayArguments, output: Output) -> Result {
    match &arguments.command {
        GatewayCommand::Run(it) => gateway_daemon::run(it).await,
        GatewayCommand::Create(it) => create::run(it, output).await,
        GatewayCommand::List(it) => list::run(it, output).await,
        GatewayCommand::Rotate(it) => rotate::run(it, output).await,
    }
}
