//! The process that waits for a confirmation, and starting it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::process::Stdio;
use std::time::Duration;

use command::Command;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use super::pending::{Directory, Pending};
use super::{HostApply, ServeError, protocol};
use crate::ExecuteError;
use crate::local::{SYSTEM_PATH, THIS_MACHINE};

/// How often the waiting process looks whether it is still needed.
const GLANCE: Duration = Duration::from_millis(200);

/// How often a rollback that fails is tried again.
const ATTEMPTS: u32 = 30;

/// How long the waiting process may take until it waits.
const ARMING: Duration = Duration::from_secs(5);

/// What the waiting process says when the change may begin.
const ARMED: &str = "armed\n";

/// Starts a process that rolls back `pending` at its deadline, and waits until it is ready.
pub(super) async fn arm(host_apply: &HostApply, pending: &Pending) -> Result<(), ExecuteError> {
    let unsupported = |reason: String| ExecuteError::ConfirmationUnsupported {
        host: THIS_MACHINE.to_owned(),
        reason,
    };
    let failed = |error: io::Error| {
        unsupported(format!("the process that would roll it back does not start: {error}"))
    };
    let Some((program, arguments)) = host_apply.rollback_program.split_first() else {
        return Err(unsupported("no program for the rollback is configured".to_owned()));
    };
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", SYSTEM_PATH)
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // Whoever keeps a stream of the session open keeps the session from ending.
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let answer = async {
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(&protocol::line(pending)).await?;
        }
        let mut said = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut said).await?;
        }
        Ok(said)
    };
    let answer = tokio::time::timeout(ARMING, answer).await;
    let said = answer.unwrap_or_else(|late| Err(late.into())).map_err(|error| {
        // Too late to be of use: the change will not begin.
        let _ = child.start_kill();
        failed(error)
    })?;
    // It lives as long as it is needed; nobody has to wait for it.
    tokio::spawn(async move { child.wait().await });

    if said == ARMED {
        return Ok(());
    }
    Err(match said.trim().strip_prefix("pending ").and_then(|it| it.parse().ok()) {
        Some(left) => ExecuteError::ConfirmationPending {
            host: THIS_MACHINE.to_owned(),
            left: Duration::from_millis(left),
        },
        None => unsupported(format!("the process that would roll it back says `{}`", said.trim())),
    })
}

/// Waits for the confirmation of one change and rolls it back when that does not come.
///
/// Reads the change from `stdin`, leaves the session that it was started from, and says on `stdout`
/// when the change may be made. Nothing is written after that, because nobody may be there to read.
///
/// # Errors
///
/// Fails when the change cannot be noted, when `check` refuses its rollback, and when the rollback
/// fails again and again; the change is then still noted and the next session tries once more.
pub async fn rollback_main(
    host_apply: &HostApply,
    stdin: impl Read,
    mut stdout: impl Write,
    check: impl Fn(&Command) -> Result<(), String>,
) -> Result<(), ServeError> {
    // Fails only for the leader of a group, which has no session to leave.
    let _ = nix::unistd::setsid();
    let pending: Pending = serde_json::from_reader(stdin)
        .map_err(|error| ServeError::Protocol(format!("not a change to roll back: {error}")))?;
    pending.rollback.iter().try_for_each(check).map_err(ServeError::Protocol)?;

    let directory = Directory::open(host_apply)?;
    // Its lock shows that somebody waits; held until this function ends.
    let _file: File = match directory.note(&pending).map_err(ServeError::Connection)? {
        Ok(file) => file,
        Err(left) => {
            return writeln!(stdout, "pending {}", left.as_millis())
                .map_err(ServeError::Connection);
        }
    };
    stdout.write_all(ARMED.as_bytes()).map_err(ServeError::Connection)?;
    stdout.flush().map_err(ServeError::Connection)?;

    loop {
        let left = pending.left();
        if left.is_zero() {
            break;
        }
        if !directory.is_waiting(&pending.token) {
            return Ok(());
        }
        tokio::time::sleep(left.min(GLANCE)).await;
    }
    let mut attempt = 1;
    loop {
        match directory.roll_back(&pending, &host_apply.local).await {
            Err(ServeError::Rollback(_)) if attempt < ATTEMPTS => {}
            end => return end,
        }
        attempt += 1;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
