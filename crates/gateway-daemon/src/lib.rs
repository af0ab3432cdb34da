//! A gateway as a command of a program: its options, and what becomes of them.
//!
//! Two programs have it: `portcullis gateway run`, and `portcullis-gateway`, which is nothing else,
//! so that a machine that the internet can reach has no client of Kubernetes on it, no SSH and
//! nothing that plans. What such a program must not have is not to be needed here either.

use std::path::PathBuf;

use clap::Args;
use gateway::GatewayError;
use gateway::config::{Config, ConfigError};
use program::ending::{Ending, Result, refused};
use program::logging::{self, LogFormat};
use program::version::VERSION;

/// How to run.
#[derive(Args, Clone, Debug)]
pub struct DaemonOptions {
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

/// What the help ends with, where `command` is what people type.
#[must_use]
pub fn help(command: &str) -> String {
    let check = format!("{command} --check");
    format!(
        "\
Examples:
  {command} --config /etc/portcullis/gateway.toml
  {check:<39} is the configuration accepted? nothing is started

Signals:
  SIGHUP            reads the configuration again; open flows and listening ports stay
  SIGUSR2           starts the program anew, which is an upgrade if another one is in its place
  SIGTERM, SIGINT   tells agents to go, gives open flows drainSeconds (30), ends

Upgrade: start the new program with the same configuration while the old one runs. It takes the
listening sockets over, the old one serves its open flows to their end, and no visitor is refused."
    )
}

/// Runs until it is stopped.
///
/// # Errors
///
/// When the configuration or a filter is refused, or the gateway cannot start.
pub async fn run(options: &DaemonOptions) -> Result {
    let config = Config::read(&options.config).map_err(|error| refused(error_text(&error)))?;
    if options.check {
        return Ok(Ending::Done);
    }
    logging::start(options.log.as_ref().unwrap_or(&config.log), options.log_format)?;
    match gateway::run(&options.config, VERSION).await {
        Ok(()) => Ok(Ending::Done),
        Err(GatewayError::Config(error)) => Err(refused(error_text(&error))),
        Err(error) => Err(error.into()),
    }
}

fn error_text(error: &ConfigError) -> String {
    let mut text = format!("--config: {error}");
    if let Some(cause) = std::error::Error::source(error) {
        text.push_str(&format!(": {cause}"));
    }
    if matches!(error, ConfigError::Read { .. }) {
        text.push_str("; name another file, or make one with `portcullis gateway create NAME`");
    }
    text
}
