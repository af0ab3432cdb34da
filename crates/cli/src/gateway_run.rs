//! `portcullis gateway run`: the daemon on the gateway's machine.

use std::path::PathBuf;

use clap::Args;
use gateway::GatewayError;
use gateway::config::Config;

use crate::ending::{Ending, Result, refused};
use crate::logging::{LogFormat, LogOptions};
use crate::version;

const EXAMPLES: &str = "\
Examples:
  portcullis gateway run --config /etc/portcullis/gateway.toml
  portcullis gateway run --check          is the configuration accepted? nothing is started

Signals:
  SIGHUP            reads the configuration again; open flows and listening ports stay
  SIGTERM, SIGINT   tells agents to go, gives open flows drainSeconds (30), ends

Upgrade: start the new program with the same configuration while the old one runs. It takes the
listening sockets over, the old one serves its open flows to their end, and no visitor is refused.";

/// How to run.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RunArguments {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = "/etc/portcullis/gateway.toml")]
    config: PathBuf,

    /// Say whether the configuration is accepted, and end
    #[arg(long)]
    check: bool,

    /// What to log, in place of `log` in the configuration: a level (error, warn, info, debug,
    /// trace), or levels by part of the program as in `info,gateway=debug`
    #[arg(long, value_name = "FILTER", env = "PORTCULLIS_LOG", hide_env_values = true)]
    log: Option<String>,

    /// The form of a log line
    #[arg(long, value_name = "FORM", default_value = "text")]
    log_format: LogFormat,
}

/// Runs until it is stopped.
pub(crate) async fn run(arguments: &RunArguments) -> Result {
    let config = Config::read(&arguments.config).map_err(|error| refused(error_text(&error)))?;
    if arguments.check {
        return Ok(Ending::Done);
    }
    let log = arguments.log.clone().unwrap_or(config.log);
    LogOptions { log, log_format: arguments.log_format }.start()?;
    match gateway::run(&arguments.config, version::VERSION).await {
        Ok(()) => Ok(Ending::Done),
        Err(GatewayError::Config(error)) => Err(refused(error_text(&error))),
        Err(error) => Err(error.into()),
    }
}

fn error_text(error: &gateway::config::ConfigError) -> String {
    let mut text = format!("--config: {error}");
    if let Some(cause) = std::error::Error::source(error) {
        text.push_str(&format!(": {cause}"));
    }
    text
}
