//! Commands on this machine: what they print, how they end, and how long they may take.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use command::{Command, Program};
use host::{Blame, ExecuteError, Executor, Limits, Local};
use tempfile::TempDir;

#[tokio::test]
async fn a_status_other_than_zero_is_an_output() -> Result<(), ExecuteError> {
    let output = Local::new().run(&Command::new(Program::Ip).arg("--nonsense")).await?;
    assert_eq!(output.status, Some(255));
    assert!(output.stderr.contains("nonsense"), "{output:?}");
    Ok(())
}

#[tokio::test]
async fn input_and_output_larger_than_a_pipe_pass() -> Result<(), ExecuteError> {
    let (_dir, mut local) = with_nft("exec cat");
    let document = "add rule\n".repeat(500_000);
    let output = local.run(&apply(&document)).await?;
    assert_eq!(output.stdout.len(), document.len());
    Ok(())
}

#[tokio::test]
async fn a_program_that_does_not_read_its_input_is_no_error() -> Result<(), ExecuteError> {
    let (_dir, mut local) = with_nft("echo refused >&2; exit 1");
    let output = local.run(&apply(&"x".repeat(1 << 20))).await?;
    assert_eq!((output.status, output.stderr.as_str()), (Some(1), "refused\n"));
    Ok(())
}

#[tokio::test]
async fn the_environment_is_ours_alone() -> Result<(), ExecuteError> {
    let (dir, mut local) = with_nft("env; pwd");
    let output = local.run(&Command::new(Program::Nft)).await?;
    let mut lines: Vec<_> = output.stdout.lines().filter(|it| !it.starts_with("_=")).collect();
    lines.sort_unstable();
    let path = format!("PATH={}:/usr/bin:/bin", dir.path().display());
    assert_eq!(lines, ["/", "LC_ALL=C", &path, "PWD=/"]);
    Ok(())
}

#[tokio::test]
async fn a_hanging_program_is_killed_at_the_deadline() {
    let (dir, local) = with_nft("echo $$ > \"${0%/*}/pid\"; exec sleep 60");
    let mut local = local.deadline(Duration::from_millis(300));
    let started = Instant::now();
    let error = local.run(&Command::new(Program::Nft)).await.expect_err("it hangs");
    assert_eq!(error.to_string(), "`nft` on this machine did not end within 300ms");
    assert!(error.is_retryable());
    assert!(started.elapsed() < Duration::from_secs(5));

    let pid = fs::read_to_string(dir.path().join("pid")).expect("it wrote its number");
    let gone = || !fs::exists(format!("/proc/{}/exe", pid.trim())).unwrap_or(false);
    wait_until(gone, "the program is gone").await;
}

#[tokio::test]
async fn output_over_the_limit_is_an_error() {
    let (_dir, local) = with_nft("exec yes");
    let mut local = local.limits(Limits { stdout: 1000, ..Limits::default() });
    let error = local.run(&Command::new(Program::Nft)).await.expect_err("it never ends");
    assert_eq!(error.to_string(), "`nft` on this machine wrote more than 1000 bytes");
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn long_complaints_are_cut_but_not_held_up() -> Result<(), ExecuteError> {
    let (_dir, mut local) = with_nft("head -c 1000000 /dev/zero >&2; echo done");
    let output = local.run(&Command::new(Program::Nft)).await?;
    assert_eq!((output.stdout.as_str(), output.stderr.len()), ("done\n", 64 << 10));
    Ok(())
}

#[tokio::test]
async fn a_missing_program_names_its_package() {
    let mut local = Local::new().path("/nonexistent");
    let error = local.run(&Command::new(Program::Ss)).await.expect_err("it is not there");
    assert_eq!(
        error.to_string(),
        "cannot start `ss` on this machine: No such file or directory (os error 2); \
         install it there with `apt install iproute2`"
    );
    assert_eq!(error.blame(), Blame::Host);
}

#[tokio::test]
async fn it_knows_its_own_processes() -> Result<(), ExecuteError> {
    let (_dir, mut local) = with_nft("echo $$");
    let own = local.own_processes();
    let output = local.run(&Command::new(Program::Nft)).await?;
    assert!(own.contains(output.stdout.trim().parse().expect("a number")));
    assert!(!own.contains(1));
    Ok(())
}

fn apply(document: &str) -> Command {
    Command::new(Program::Nft).args(["-f", "-"]).stdin(document)
}

/// Returns an executor whose `nft` is this shell script.
fn with_nft(script: &str) -> (TempDir, Local) {
    let dir = tempfile::tempdir().expect("a directory");
    write_program(&dir.path().join("nft"), script);
    let local = Local::new().path(format!("{}:/usr/bin:/bin", dir.path().display()));
    (dir, local)
}

/// Writes through another process: a file that this one has open for writing, or a child that was
/// forked meanwhile, cannot be executed ("text file busy").
pub(crate) fn write_program(path: &Path, script: &str) {
    let written = std::process::Command::new("sh")
        .args(["-c", r#"printf '#!/bin/sh\n%s\n' "$2" > "$1" && chmod 755 "$1""#, "sh"])
        .args([path.as_os_str(), script.as_ref()])
        .status();
    assert!(written.is_ok_and(|it| it.success()), "{} is written", path.display());
}

pub(crate) async fn wait_until(condition: impl Fn() -> bool, what: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "not within 10 seconds: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
