//! The suite itself: run on the visitor's machine, watched, and its report kept.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use testkit::kubernetes::ConformanceSuite;

use crate::screen::say;
use crate::stage::Stage;

const PROFILES: &str = "GATEWAY-TCP,GATEWAY-UDP,GATEWAY-TLS";

/// What is run and where its words go.
pub(crate) struct Run<'a> {
    /// One test instead of all.
    pub(crate) test: Option<&'a str>,
    /// The class of the Gateways that the suite makes.
    pub(crate) class: &'a str,
    /// Our version, for the report.
    pub(crate) version: &'a str,
    /// Where the report goes; not written for a single test.
    pub(crate) report: PathBuf,
    /// Where everything that the suite says goes.
    pub(crate) log: PathBuf,
}

impl Run<'_> {
    /// Runs it to its end; whether everything passed.
    pub(crate) fn go(&self, suite: &ConformanceSuite, stage: &Stage) -> anyhow::Result<bool> {
        let mut log = File::create(&self.log)
            .with_context(|| format!("cannot write {}", self.log.display()))?;
        let errors = log.try_clone().context("cannot share a log between two streams")?;
        let mut command = stage.visitor().command(suite.program());
        command.env("KUBECONFIG", stage.kubeconfig()).args([
            "-test.v",
            "-test.timeout=60m",
            "-test.run=TestConformance",
            &format!("-gateway-class={}", self.class),
            &format!("-conformance-profiles={PROFILES}"),
            &format!("-usable-address={}", stage.usable()),
            &format!("-unusable-address={}", stage.unusable()),
            "-organization=portcullis",
            "-project=portcullis",
            "-url=https://portcullis.dev",
            "-contact=https://portcullis.dev",
            &format!("-version=v{}", self.version),
        ]);
        match self.test {
            Some(test) => command.arg(format!("-run-test={test}")),
            None => command.arg(format!("-report-output={}", self.report.display())),
        };
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .context("cannot start the suite")?;
        let stdout = child.stdout.take().context("the suite has no output")?;
        let mut passed = 0_u32;
        let mut failed = Vec::new();
        for line in BufReader::new(stdout).lines() {
            let line = line.context("cannot read what the suite says")?;
            writeln!(log, "{line}").context("cannot write the log")?;
            if let Some(name) = begun(&line) {
                say(&format!("  {name}"));
            }
            let Some(outcome) = Outcome::read(&line) else { continue };
            match outcome {
                Outcome::Passed(_) => passed += 1,
                Outcome::Failed(name) => failed.push(name.to_owned()),
            }
        }
        let status = child.wait().context("cannot wait for the suite")?;
        ensure!(
            passed > 0 || !failed.is_empty(),
            "the suite ran no test ({status}):\n{}",
            end_of(&self.log)
        );
        say(&format!("{passed} passed, {} failed{}", failed.len(), list(&failed)));
        Ok(status.success() && failed.is_empty())
    }
}

/// The test that begins with this line. How it ended is told only when all have ended.
fn begun(line: &str) -> Option<&str> {
    let name = line.strip_prefix("=== RUN")?.trim_start().strip_prefix("TestConformance/")?;
    (!name.contains('/')).then_some(name)
}

/// How one of the suite's tests ended. Parts of tests and tests that were skipped, because nobody
/// claims their features, are left out.
#[derive(Debug, Eq, PartialEq)]
enum Outcome<'a> {
    Passed(&'a str),
    Failed(&'a str),
}

impl<'a> Outcome<'a> {
    /// Reads a line like `    --- PASS: TestConformance/UDPRoute (0.42s)`.
    fn read(line: &'a str) -> Option<Self> {
        let (verdict, rest) = line.trim_start().strip_prefix("--- ")?.split_once(": ")?;
        let name = rest.strip_prefix("TestConformance/")?.split(' ').next()?;
        match verdict {
            _ if name.contains('/') => None,
            "PASS" => Some(Self::Passed(name)),
            "FAIL" => Some(Self::Failed(name)),
            _ => None,
        }
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!(": {}", names.join(", ")) }
}

/// The last lines of a log, for a person who wants to know why.
fn end_of(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::Outcome;

    #[test]
    fn only_whole_tests_that_ran_are_counted() {
        let cases = [
            ("    --- PASS: TestConformance/UDPRoute (0.42s)", Some(Outcome::Passed("UDPRoute"))),
            ("    --- FAIL: TestConformance/UDPRoute (60.0s)", Some(Outcome::Failed("UDPRoute"))),
            ("    --- SKIP: TestConformance/HTTPRouteWeight (0.00s)", None),
            ("        --- PASS: TestConformance/UDPRoute/one_part (0.42s)", None),
            ("--- PASS: TestConformance (100.0s)", None),
            ("=== RUN   TestConformance/UDPRoute", None),
        ];
        for (line, expected) in cases {
            assert_eq!(Outcome::read(line), expected, "{line}");
        }
    }
}
