//! The one place that writes to the terminal, and what is worth knowing about this machine.

use anyhow::{Context as _, Result};

/// Prints one line or paragraph.
#[expect(clippy::print_stdout, reason = "this program talks to a person at a terminal")]
pub(crate) fn say(text: &str) {
    println!("{text}");
}

/// Says what could not be done.
#[expect(clippy::print_stderr, reason = "this program talks to a person at a terminal")]
pub(crate) fn complain(error: &anyhow::Error) {
    eprintln!("portcullis-bench: {error:#}");
}

/// Cores, memory and kernel.
pub(crate) fn machine() -> Result<String> {
    let cores = std::thread::available_parallelism()?;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let kilobytes = memory.split_whitespace().nth(1).and_then(|it| it.parse::<u64>().ok());
    let gibibytes = kilobytes.context("/proc/meminfo has no total")? >> 20;
    Ok(format!("{cores} cores, {gibibytes} GiB, Linux {}", kernel.trim()))
}

/// How busy the machine is.
pub(crate) fn load() -> Result<String> {
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let averages: Vec<_> = load.split_whitespace().take(2).collect();
    Ok(format!("load average {}", averages.join(" ")))
}
