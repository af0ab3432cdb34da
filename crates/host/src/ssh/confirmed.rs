//! Changes that are rolled back unless the host can still be reached afterwards.

use std::sync::Arc;
use std::time::Duration;

use command::{Command, Output, Program};
use tokio::time::Instant;

use super::exec::Running;
use super::session::Session;
use super::{Mode, SshHost, sudo};
use crate::{ConfirmedChange, ExecuteError};

/// Between two attempts to reach the host anew.
const PAUSE: Duration = Duration::from_millis(100);

/// What no nft accepts. A transaction with an error in it is refused as a whole.
const SPOILER: &[u8] = b"\n} this rollback is called off\n";

pub(super) async fn run(
    session: &Arc<Session>,
    host: &SshHost,
    change: &ConfirmedChange,
) -> Result<Vec<Output>, ExecuteError> {
    for command in change.apply.iter().chain(&change.rollback) {
        host.limits.check_input(session.name(), command)?;
    }
    match host.mode {
        Mode::ForcedCommand => with_host_apply(session, host, change).await,
        Mode::Sudo => with_dead_mans_switch(session, host, change).await,
    }
}

/// The host itself waits for the confirmation.
async fn with_host_apply(
    session: &Session,
    host: &SshHost,
    change: &ConfirmedChange,
) -> Result<Vec<Output>, ExecuteError> {
    let asked = session.forced()?.change(change, host.timing.command);
    let until = Instant::now() + change.within;
    let (outputs, token) =
        tokio::time::timeout(host.timing.command, asked).await.unwrap_or_else(|_| {
            let reason = format!("no answer within {:?}", host.timing.command);
            Err(ExecuteError::unreachable(session.name(), reason))
        })?;
    let Some(token) = token else { return Ok(outputs) };

    anew(host, until, Some(&token)).await?;
    Ok(outputs)
}

/// The host does not know of the confirmation: nft there waits for the end of a document that
/// restores the old state, and whatever ends the connection ends the document.
///
/// How soon a connection that died in silence is noticed is decided by `ClientAliveInterval` and
/// `ClientAliveCountMax` in the host's sshd_config.
async fn with_dead_mans_switch(
    session: &Arc<Session>,
    host: &SshHost,
    change: &ConfirmedChange,
) -> Result<Vec<Output>, ExecuteError> {
    let rollback = one_transaction(session.name(), &change.rollback)?;
    let mut switch = Running::start(session, sudo::line(&rollback, &host.user)).await?.spare();
    switch.started(session).await?;
    let document = rollback.stdin.clone().into_bytes();
    switch.write.data_bytes(document).await.map_err(|error| session.failure(&error))?;

    let until = Instant::now() + change.within;
    let mut outputs = Vec::with_capacity(change.apply.len());
    for command in &change.apply {
        let output = tokio::time::timeout(host.timing.command, sudo::run(session, host, command))
            .await
            .unwrap_or_else(|_| {
                Err(ExecuteError::deadline(session.name(), command, host.timing.command))
            });
        match output {
            Ok(output) if output.succeeded() => outputs.push(output),
            // Dropping the switch rolls back; only what surely did nothing needs no rollback.
            Err(error) => return Err(error),
            Ok(output) => {
                if outputs.is_empty() {
                    call_off(session, host, switch, &rollback).await?;
                } else {
                    pull(session, host, switch, &rollback).await?;
                }
                outputs.push(output);
                return Ok(outputs);
            }
        }
    }
    anew(host, until, None).await?;
    call_off(session, host, switch, &rollback).await?;
    Ok(outputs)
}

/// Spoils the document that waits, so that nft refuses it.
async fn call_off(
    session: &Session,
    host: &SshHost,
    mut switch: Running,
    rollback: &Command,
) -> Result<(), ExecuteError> {
    let name = session.name();
    let lost = |error: russh::Error| ExecuteError::not_confirmed(name, error.to_string());
    switch.write.data_bytes(SPOILER).await.map_err(lost)?;
    let output = end(session, host, &mut switch, rollback).await?;
    if output.succeeded() {
        return Err(ExecuteError::not_confirmed(name, "nft did not refuse the spoilt document"));
    }
    sudo::judge(name, &host.user, rollback, output).map(drop)
}

/// Lets nft have the document that waits.
async fn pull(
    session: &Session,
    host: &SshHost,
    mut switch: Running,
    rollback: &Command,
) -> Result<(), ExecuteError> {
    let output = end(session, host, &mut switch, rollback).await?;
    let output = sudo::judge(session.name(), &host.user, rollback, output)?;
    if output.succeeded() {
        return Ok(());
    }
    let reason = format!("the rollback was refused: {}", output.stderr.trim());
    Err(ExecuteError::protocol(session.name(), reason))
}

/// Ends the document that waits and returns what nft made of it.
async fn end(
    session: &Session,
    host: &SshHost,
    switch: &mut Running,
    rollback: &Command,
) -> Result<Output, ExecuteError> {
    let no_more_input = Command { stdin: String::new(), ..rollback.clone() };
    let finish = switch.finish(session, &no_more_input, host.limits);
    tokio::time::timeout(host.timing.command, finish).await.unwrap_or_else(|_| {
        Err(ExecuteError::deadline(session.name(), rollback, host.timing.command))
    })
}

/// Joins the rollback into one document, which nft applies as a whole.
fn one_transaction(host: &str, rollback: &[Command]) -> Result<Command, ExecuteError> {
    let mut document = String::new();
    for command in rollback {
        if command.program != Program::Nft || command.args != ["-f", "-"] {
            return Err(ExecuteError::ConfirmationUnsupported {
                host: host.to_owned(),
                reason: format!(
                    "through sudo only nftables can be rolled back by the host alone, not \
                     `{command}`; use the forced command, or no confirmation"
                ),
            });
        }
        document.push_str(&command.stdin);
        document.push('\n');
    }
    Ok(Command::new(Program::Nft).args(["-f", "-"]).stdin(document))
}

/// Connects anew, trying until `until`, and confirms the change of `token` there if there is one.
async fn anew(host: &SshHost, until: Instant, token: Option<&str>) -> Result<(), ExecuteError> {
    let mut last = format!("no fresh connection before the deadline of {:?}", host.timing.connect);
    while Instant::now() < until {
        let attempt = async {
            let fresh = Session::open(host).await?;
            match token {
                Some(token) => fresh.forced()?.confirm(token).await,
                None => Ok(()),
            }
        };
        match tokio::time::timeout_at(until, attempt).await {
            Ok(Ok(())) => return Ok(()),
            // The host has decided; asking again does not change its mind.
            Ok(Err(error @ ExecuteError::NotConfirmed { .. })) => return Err(error),
            Ok(Err(error)) => last = error.to_string(),
            Err(_) => break,
        }
        tokio::time::sleep_until(until.min(Instant::now() + PAUSE)).await;
    }
    Err(ExecuteError::not_confirmed(&host.name(), last))
}
