//! `portcullis-gateway`: a gateway, and nothing else.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use gateway_daemon::DaemonOptions;
use program::arguments::parse;
use program::ending;
use program::runtime::block_on_all;

/// The public side of tunnels: listens where clusters wish it and the configuration grants it, and
/// hands each visitor to an agent that has dialled in. It dials nobody, and needs no root. The same
/// as `portcullis gateway run`.
#[derive(Debug, Parser)]
#[command(name = "portcullis-gateway", version, max_term_width = 100)]
#[command(after_help = after_help())]
struct Arguments {
    #[command(flatten)]
    daemon: DaemonOptions,
}

const MORE: &str = "\
Exit codes:
  0  done
  1  failed: the message says what and where
  2  refused: an argument or the configuration cannot be accepted; nothing was started

The configuration, and the unit that starts this program, are made where the cluster is:
  portcullis gateway create NAME --endpoint HOST";

fn after_help() -> String {
    format!("{}\n\n{MORE}", gateway_daemon::help("portcullis-gateway"))
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    ending::exit_code(parse(&arguments, |it: Arguments| {
        block_on_all(async move { gateway_daemon::run(&it.daemon).await })
    }))
}
