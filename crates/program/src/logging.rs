//! What programs that go on write to standard error meanwhile.

use clap::ValueEnum;
use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::ending::{Result, refused};

/// The form of a log line.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging to standard error. `filter` is a level, or levels by part of the program as in
/// `info,host=debug`; an empty one lets errors through.
///
/// # Errors
///
/// When the filter, which came from `--log` or `PORTCULLIS_LOG`, is none.
///
/// # Panics
///
/// The second time in one process.
pub fn start(filter: &str, form: LogFormat) -> Result<()> {
    let targets = targets(filter).map_err(|error| {
        refused(format!(
            "--log (or PORTCULLIS_LOG): {filter:?}: {error}; write a level such as `info`, or \
             levels by part such as `info,host=debug`"
        ))
    })?;
    let log = registry().with(targets);
    let lines = layer().with_writer(std::io::stderr);
    match form {
        LogFormat::Text => log.with(lines.with_ansi(false)).init(),
        LogFormat::Json => log.with(lines.json().flatten_event(true)).init(),
    }
    Ok(())
}

/// Spaces and superfluous commas mean nothing. No regular expressions: they are a tenth of a small
/// program.
fn targets(filter: &str) -> Result<Targets, ParseError> {
    let parts: Vec<_> = filter.split(',').map(str::trim).filter(|it| !it.is_empty()).collect();
    parts.join(",").parse()
}

#[cfg(test)]
mod tests {
    use tracing::Level;
    use tracing_subscriber::filter::LevelFilter;

    use super::*;

    const LEVELS: [Level; 5] = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];

    #[test]
    fn levels_are_read_by_part() {
        let [error, info, debug] = [LevelFilter::ERROR, LevelFilter::INFO, LevelFilter::DEBUG];
        check("info", &[("host", info), ("kube_client", info)]);
        check("INFO, host=debug,", &[("host", debug), ("host::ssh", debug), ("agent", info)]);
        check("debug,kube_client=off", &[("host", debug), ("kube_client", LevelFilter::OFF)]);
        check("", &[("host", error)]);
        check("host=3", &[("host", info), ("agent", LevelFilter::OFF)]);
        for refused in ["a=b=c", "info,host=loud"] {
            assert!(targets(refused).is_err(), "{refused}");
        }
    }

    #[track_caller]
    fn check(filter: &str, expected: &[(&str, LevelFilter)]) {
        let targets = targets(filter).unwrap_or_else(|error| panic!("{filter:?}: {error}"));
        for (target, level) in expected {
            let passes = LEVELS.into_iter().filter(|it| targets.would_enable(target, it)).max();
            assert_eq!(passes, level.into_level(), "{target} by {filter:?}");
        }
    }
}
