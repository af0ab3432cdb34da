//! Ends everything that still lives in this process's network namespace.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Kills every other process of this network namespace, until there is none.
///
/// Nobody but the lab puts a process there, so everything found was started by its owner: by a
/// test, or by a daemon that a test started. Gives up after two seconds.
pub(crate) fn end_all_others() {
    let Ok(own) = std::fs::read_link("/proc/self/ns/net") else { return };
    let end = Instant::now() + Duration::from_secs(2);
    loop {
        let others = processes_in(&own);
        if others.is_empty() || Instant::now() > end {
            return;
        }
        for pid in others {
            let _already_gone = kill(pid, Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn processes_in(namespace: &PathBuf) -> Vec<Pid> {
    let own = std::process::id();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|it| it.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| *pid != own)
        .filter(|pid| {
            std::fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|it| it == *namespace)
        })
        .filter_map(|pid| i32::try_from(pid).ok().map(Pid::from_raw))
        .collect()
}
