//! What long-running commands write to standard error while they run.

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::ending::{Result, refused};

/// How to log.
#[derive(Args, Clone, Debug)]
pub(crate) struct LogOptions {
    /// What to log: a level (error, warn, info, debug, trace), or levels by part of the program
    /// as in `info,host=debug`. What the Kubernetes client says of each failed request, the watches
    /// and the reporter say better
    #[arg(
        long,
        value_name = "FILTER",
        env = "PORTCULLIS_LOG",
        default_value = "info,kube_client=off",
        hide_env_values = true
    )]
    pub(crate) log: String,

    /// The form of a log line
    #[arg(long, value_name = "FORM", default_value = "text")]
    pub(crate) log_format: LogFormat,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl LogOptions {
    /// Starts logging to standard error.
    pub(crate) fn start(&self) -> Result<()> {
        let filter = EnvFilter::try_new(&self.log).map_err(|error| {
            refused(format!(
                "--log (or PORTCULLIS_LOG): {:?}: {error}; write a level such as `info`, or levels \
                 by part such as `info,host=debug`",
                self.log
            ))
        })?;
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        match self.log_format {
            LogFormat::Text => log.with_ansi(false).init(),
            LogFormat::Json => log.json().flatten_event(true).init(),
        }
        Ok(())
    }
}
