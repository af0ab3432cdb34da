//! Runs programs through `sudo` on a host where nothing of ours is installed.

use std::sync::Arc;
use std::time::Duration;

use command::{Command, Output};
use tokio::time::sleep;

use super::SshHost;
use super::exec::Running;
use super::session::Session;
use super::standby::Standby;
use crate::ExecuteError;
use crate::local::{SYSTEM_PATH, is_transaction};

/// What sudo says when it does not permit something, in the C locale.
const REFUSALS: [&str; 7] = [
    "a password is required",
    "a terminal is required",
    "is not allowed to execute",
    "is not in the sudoers file",
    "may not run sudo",
    "you must have a tty",
    "\"no new privileges\" flag is set",
];

/// How long to wait before asking again for room for a program: doubled each time.
const SHORTEST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(256);

pub(super) async fn run(
    session: &Arc<Session>,
    host: &SshHost,
    command: &Command,
) -> Result<Output, ExecuteError> {
    let line = line(command, &host.user);
    let may_wait = is_transaction(command);
    let waiting = match may_wait {
        true => Standby::take(session, &line, host.limits).await,
        false => None,
    };
    let mut running = match waiting {
        Some(running) => running,
        None => start(session, &line).await?,
    };
    let output = running.finish(session, command, host.limits).await?;
    if may_wait && output.succeeded() {
        Standby::start(session, line);
    }
    judge(session.name(), &host.user, command, output)
}

/// Starts a program, perhaps where there is room for one only: what has ended may hold its room for
/// a moment longer than its last word, and nobody says when it is free.
async fn start(session: &Arc<Session>, line: &str) -> Result<Running, ExecuteError> {
    let mut pause = SHORTEST_PAUSE;
    loop {
        match Running::start(session, line.to_owned()).await {
            Err(ExecuteError::Protocol { .. }) if Standby::make_room(session).await => {}
            Err(ExecuteError::Protocol { .. }) if pause <= LONGEST_PAUSE => {
                sleep(pause).await;
                pause *= 2;
            }
            started => return started,
        }
    }
}

/// The line for the account's shell.
///
/// `env` because the shells of accounts differ in how they set variables, and because an account's
/// own `PATH` often lacks `/usr/sbin`. What sudo starts gets sudo's own `PATH`.
pub(super) fn line(command: &Command, user: &str) -> String {
    let sudo = if command.program.needs_root() && user != "root" { "sudo -n " } else { "" };
    format!("env LC_ALL=C PATH={SYSTEM_PATH} {sudo}{}", command.to_shell_line())
}

/// Tells what kept the program from running from what the program itself said.
pub(super) fn judge(
    host: &str,
    user: &str,
    command: &Command,
    output: Output,
) -> Result<Output, ExecuteError> {
    let program = command.program.name();
    let said = |text: &str| output.stderr.lines().find(|line| line.contains(text));

    if output.status == Some(127) && said("'sudo'").is_some() {
        return Err(ExecuteError::CannotStart {
            host: host.to_owned(),
            program: "sudo".to_owned(),
            package: "sudo".to_owned(),
            reason: output.stderr.trim().to_owned(),
        });
    }
    if output.status == Some(127) {
        return Err(ExecuteError::cannot_start(host, command.program, output.stderr.trim()));
    }
    if output.status != Some(1) {
        return Ok(output);
    }
    if let Some(reason) = said(&format!("sudo: {program}: command not found")) {
        return Err(ExecuteError::cannot_start(host, command.program, reason));
    }
    match REFUSALS.iter().find_map(|it| said(it)) {
        Some(reason) => Err(ExecuteError::SudoRefused {
            host: host.to_owned(),
            user: user.to_owned(),
            command: command.to_string(),
            reason: reason.to_owned(),
            sudoers_line: sudoers_line(user, command),
        }),
        None => Ok(output),
    }
}

/// The line that permits exactly this command, as sudoers(5) wants it quoted.
fn sudoers_line(user: &str, command: &Command) -> String {
    let mut line = format!("{user} ALL=(root) NOPASSWD: /usr/sbin/{}", command.program.name());
    if command.args.is_empty() {
        line.push_str(" \"\"");
    }
    for arg in &command.args {
        line.push(' ');
        for c in arg.chars() {
            if r",:=\*?[]! ".contains(c) {
                line.push('\\');
            }
            line.push(c);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use command::Program;

    use super::*;

    fn nft() -> Command {
        Command::new(Program::Nft).args(["-f", "-"])
    }

    #[test]
    fn only_programs_that_need_root_run_as_root() {
        let list = Command::new(Program::Ss).args(["-H", "-lntu"]);
        let path = "env LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        assert_eq!(line(&nft(), "epok"), format!("{path} sudo -n nft -f -"));
        assert_eq!(line(&nft(), "root"), format!("{path} nft -f -"));
        assert_eq!(line(&list, "epok"), format!("{path} ss -H -lntu"));
    }

    #[test]
    fn the_sudoers_line_permits_exactly_the_command() {
        check("epok ALL=(root) NOPASSWD: /usr/sbin/nft -f -", &nft());
        let save = Command::new(Program::IptablesSave);
        check("epok ALL=(root) NOPASSWD: /usr/sbin/iptables-save \"\"", &save);
        let wait = Command::new(Program::IptablesRestore).args(["--noflush", "--wait=5"]);
        check(r"epok ALL=(root) NOPASSWD: /usr/sbin/iptables-restore --noflush --wait\=5", &wait);
    }

    #[track_caller]
    fn check(expected: &str, command: &Command) {
        assert_eq!(sudoers_line("epok", command), expected);
    }

    #[test]
    fn the_programs_own_complaints_are_outputs() {
        for stderr in [
            "Error: syntax error, unexpected newline",
            "sudo: unable to resolve host edge-a: Name or service not known\nError: no such file",
        ] {
            let output = Output { status: Some(1), stderr: stderr.to_owned(), ..Output::default() };
            assert_eq!(judge("edge-a", "epok", &nft(), output.clone()), Ok(output));
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        missing("sudo: nft: command not found", 1, "apt install nftables");
        missing("env: 'nft': No such file or directory", 127, "apt install nftables");
        missing("env: 'sudo': No such file or directory", 127, "apt install sudo");
    }

    #[track_caller]
    fn missing(stderr: &str, status: i32, remedy: &str) {
        let output =
            Output { status: Some(status), stderr: stderr.to_owned(), ..Output::default() };
        let error = judge("edge-a", "epok", &nft(), output).expect_err("it is missing");
        assert!(error.to_string().contains(remedy), "{error}");
    }
}
