//! What the running program tells.

use std::time::Duration;

use testkit::wait;

use crate::place::{PATIENCE, Place};

/// Waits until a problem with the source says all of `parts` on one line.
pub(crate) fn problem(place: &Place, parts: &[&str]) -> anyhow::Result<String> {
    let what = format!("a problem with {parts:?}");
    wait::until_ok(&what, PATIENCE, || {
        // It may not serve its pages yet.
        let Ok(status) = place.status() else { return Ok(None) };
        let problems = status["problems"].as_array().cloned().unwrap_or_default();
        let problems = problems.iter().filter_map(|it| it.as_str());
        let mut problems = problems.filter(|it| parts.iter().all(|part| it.contains(part)));
        Ok(problems.next().map(|it| {
            assert!(!it.contains(char::is_control), "more than a line: {it:?}");
            it.to_owned()
        }))
    })
}

/// Waits until the host's last error says all of `parts` on one line.
pub(crate) fn error(place: &Place, parts: &[&str]) -> anyhow::Result<String> {
    error_within(place, parts, PATIENCE)
}

/// The same for an error that takes its time.
pub(crate) fn error_within(
    place: &Place,
    parts: &[&str],
    patience: Duration,
) -> anyhow::Result<String> {
    let what = format!("an error with {parts:?}");
    wait::until_ok(&what, patience, || {
        // It may not serve its pages yet.
        let Ok(status) = place.status() else { return Ok(None) };
        let error = status["hosts"]["edge"]["lastError"].as_str().map(str::to_owned);
        Ok(error.filter(|it| parts.iter().all(|part| it.contains(part))).inspect(|it| {
            assert!(!it.contains(char::is_control), "more than a line: {it:?}");
        }))
    })
}

/// Waits until the host has no error.
pub(crate) fn well(place: &Place) -> anyhow::Result<()> {
    wait::until_ok("the host is well", PATIENCE, || {
        // It may not serve its pages yet.
        let Ok(status) = place.status() else { return Ok(None) };
        let edge = &status["hosts"]["edge"];
        Ok((edge["lastError"].is_null() && edge["revision"].as_u64() > Some(0)).then_some(()))
    })
}

/// Waits until a finding about the object of that name says all of `parts`.
pub(crate) fn finding(place: &Place, name: &str, parts: &[&str]) -> anyhow::Result<()> {
    let what = format!("a finding about {name} with {parts:?}");
    wait::until_ok(&what, PATIENCE, || {
        // It may not serve its pages yet.
        let Ok(status) = place.status() else { return Ok(None) };
        let findings = status["findings"].as_array().cloned().unwrap_or_default();
        let found = findings.iter().any(|it| {
            let text = it.to_string();
            it["object"]["name"] == name && parts.iter().all(|part| text.contains(part))
        });
        Ok(found.then_some(()))
    })
}

/// The memory that a process holds, in MiB.
pub(crate) fn resident(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:"));
    let kib: u64 = line.unwrap_or("0").trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024)
}

/// The processor time that a process has used, in hundredths of a second.
pub(crate) fn ticks(pid: u32) -> anyhow::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|it| it.parse::<u64>().ok()).unwrap_or(0);
    Ok(number(11) + number(12))
}
