//! `portcullis status`: what a running controller says about itself, or what the Host objects say.

pub(crate) mod fetch;
mod picture;

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use api::host::Host;
use clap::Args;
use kube::Api;
use kube::api::ListParams;

use self::picture::{HostLine, Picture};
use crate::arguments::Output;
use crate::connection::ConnectionOptions;
use crate::ending::{Ending, Result};
use crate::print;

/// Where a controller listens unless it is told otherwise.
pub(crate) const LISTEN: &str = "127.0.0.1:9180";

const EXAMPLES: &str = "\
Examples:
  portcullis status                     the controller on this machine
  portcullis status --watch             the same, as a live view
  portcullis status --kube              what the Host objects of the cluster say
  kubectl port-forward deploy/portcullis -n portcullis 9180 & portcullis status

JSON (-o json): without --kube the controller's own document, as at http://ADDRESS/status; with
--kube a list of { \"name\", \"good\", \"forwards\", \"executor\", \"state\" }.";

/// Whom to ask.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct StatusArguments {
    /// The address of the controller
    #[arg(long, value_name = "ADDRESS:PORT", default_value = LISTEN, conflicts_with = "kube")]
    address: SocketAddr,

    /// Read the Host objects of the cluster instead
    #[arg(long)]
    kube: bool,

    #[command(flatten)]
    connection: ConnectionOptions,

    /// Show it again every second, until interrupted
    #[arg(long, short = 'w')]
    watch: bool,
}

/// Prints the state once, or again and again.
pub(crate) async fn run(arguments: &StatusArguments, output: Output) -> Result {
    if !arguments.watch {
        show(arguments, output).await?;
        return Ok(Ending::Done);
    }
    let clear = output == Output::Text && std::io::stdout().is_terminal();
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = &mut interrupted => return Ok(Ending::Done),
        }
        if clear {
            print::document("\u{1b}[H\u{1b}[2J")?;
        }
        match show(arguments, output).await {
            // A controller that restarts comes back; the view stays.
            Err(error) if !print::is_closed(&error) => print::line(format_args!("{error:#}"))?,
            shown => shown?,
        }
    }
}

async fn show(arguments: &StatusArguments, output: Output) -> Result<()> {
    if arguments.kube {
        let hosts = host_lines(arguments).await?;
        return match output {
            Output::Json => print::json(&hosts),
            Output::Text => print::line(Picture { hosts, ..Picture::default() }),
        };
    }
    let document = fetch::get(arguments.address, "/status").await.with_context(|| {
        format!(
            "there is no controller at {}; name its address with --address, or read the Host \
             objects with --kube",
            arguments.address
        )
    })?;
    match output {
        Output::Json => print::document(&document),
        Output::Text => {
            let picture: Picture = serde_json::from_str::<picture::Snapshot>(&document)
                .context("what answered is no Portcullis controller")?
                .into();
            print::line(picture)
        }
    }
}

async fn host_lines(arguments: &StatusArguments) -> Result<Vec<HostLine>> {
    let client = arguments.connection.client().await?;
    let hosts: Api<Host> = Api::all(client);
    let hosts = hosts.list(&ListParams::default()).await.context("cannot list the Host objects")?;
    Ok(hosts.items.iter().map(HostLine::from).collect())
}
