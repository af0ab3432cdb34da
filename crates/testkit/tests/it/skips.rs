//! A skip is loud, or a failure.
//!
//! The skipping tests run in a process of their own, this one started again: what they write must
//! come through the harness's own capturing.

use std::process::{Command, Output};

use testkit::{Missing, require};

#[test]
fn a_skip_is_seen_although_the_test_passes() -> anyhow::Result<()> {
    let output = run("skips::needs_what_nobody_has", None)?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert_eq!(
        stderr.trim(),
        "SKIPPED skips::needs_what_nobody_has: no such thing; look elsewhere"
    );
    Ok(())
}

#[test]
fn with_require_all_a_skip_is_a_failure() -> anyhow::Result<()> {
    let output = run("skips::needs_what_nobody_has", Some("1"))?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "{stdout}");
    assert!(
        stdout.contains(
            "REQUIRE_ALL=1, but skips::needs_what_nobody_has cannot run here: no such thing; \
             look elsewhere"
        ),
        "{stdout}"
    );
    Ok(())
}

#[test]
fn a_missing_program_is_named_with_its_package() {
    let missing = testkit::requirement::program("no-such-program", "no-such-package");
    assert_eq!(
        missing.map_err(|it| it.to_string()),
        Err("`no-such-program` is not installed; apt-get install no-such-package".to_owned())
    );
}

#[test]
#[ignore = "run by the tests above"]
fn needs_what_nobody_has() {
    let found: Result<(), _> = Err(Missing::new("no such thing", "look elsewhere"));
    let None = require(found) else { panic!("found what nobody has") };
}

/// Runs one ignored test of this file in a process of its own.
fn run(test: &str, require_all: Option<&str>) -> anyhow::Result<Output> {
    let mut command = Command::new(std::env::current_exe()?);
    // Two threads: with one the harness runs a test on the main thread, which has no test's name.
    command.args(["--exact", test, "--ignored", "--test-threads=2"]).env_remove("REQUIRE_ALL");
    if let Some(value) = require_all {
        command.env("REQUIRE_ALL", value);
    }
    Ok(command.output()?)
}
