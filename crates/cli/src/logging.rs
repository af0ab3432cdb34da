//! How commands that go on are told what to log.

use clap::Args;
use program::logging::LogFormat;

use crate::ending::Result;

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

impl LogOptions {
    /// Starts logging to standard error.
    pub(crate) fn start(&self) -> Result<()> {
        program::logging::start(&self.log, self.log_format)
    }
}
