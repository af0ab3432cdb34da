//! One program on a channel of its own: input, output, exit status.

use std::sync::Arc;

use futures::FutureExt as _;
use russh::client::Msg;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};

use super::session::Session;
use crate::local::text;
use crate::{ExecuteError, Limits};
use command::{Command, Output};

/// A program that was asked for on a channel.
pub(super) struct Running {
    read: ChannelReadHalf,
    pub(super) write: Arc<ChannelWriteHalf<Msg>>,
    /// What an ended program may no longer be told.
    over: bool,
    /// Whether giving up means to end the program by a signal.
    kill: bool,
    collected: Collected,
}

impl Running {
    /// Asks for `line` on a new channel of `session`.
    pub(super) async fn start(session: &Session, line: String) -> Result<Self, ExecuteError> {
        let (read, write) = session.open_channel().await?.split();
        write.exec(true, line).await.map_err(|error| session.failure(&error))?;
        Ok(Self {
            read,
            write: Arc::new(write),
            over: false,
            kill: true,
            collected: Collected::default(),
        })
    }

    /// Giving up only closes the program's input, and it runs on.
    pub(super) fn spare(mut self) -> Self {
        self.kill = false;
        self
    }

    /// Waits until the host has said that it started something.
    pub(super) async fn started(&mut self, session: &Session) -> Result<(), ExecuteError> {
        match self.read.wait().await {
            Some(ChannelMsg::Success) => Ok(()),
            Some(ChannelMsg::WindowAdjusted { .. }) => Box::pin(self.started(session)).await,
            other => Err(refusal(session, other.as_ref())),
        }
    }

    /// Whether it still waits for its input, as far as is known here.
    pub(super) fn waits(&mut self, limits: Limits) -> bool {
        while let Some(message) = self.read.wait().now_or_never() {
            match message {
                Some(ChannelMsg::Success | ChannelMsg::WindowAdjusted { .. }) => {}
                Some(it @ (ChannelMsg::Data { .. } | ChannelMsg::ExtendedData { .. })) => {
                    if self.collected.add(it, limits).is_err() {
                        return false;
                    }
                }
                _ => return false,
            }
        }
        true
    }

    /// Ends a program that waits for its input, and waits until the host has nothing of it.
    pub(super) async fn dismiss(mut self) {
        let _ = self.write.eof().await;
        while self.read.wait().await.is_some() {}
        self.over = true;
        let _ = self.write.close().await;
    }

    /// Writes the command's input, closes it, and returns what the program left behind.
    pub(super) async fn finish(
        &mut self,
        session: &Session,
        command: &Command,
        limits: Limits,
    ) -> Result<Output, ExecuteError> {
        let write = Arc::clone(&self.write);
        let stdin = command.stdin.clone();
        let feed = async move {
            // A program that ends before it has read everything says why by other means.
            if !stdin.is_empty() && write.data_bytes(stdin.into_bytes()).await.is_err() {
                return;
            }
            let _ = write.eof().await;
        };
        tokio::pin!(feed);
        let mut fed = false;
        loop {
            let message = tokio::select! {
                () = &mut feed, if !fed => {
                    fed = true;
                    continue;
                }
                message = self.read.wait() => message,
            };
            let Some(message) = message else { break };
            if matches!(message, ChannelMsg::Close) {
                break;
            }
            if matches!(message, ChannelMsg::Failure | ChannelMsg::OpenFailure(_)) {
                return Err(refusal(session, Some(&message)));
            }
            self.collected.add(message, limits).map_err(|TooLong| {
                ExecuteError::output_too_long(session.name(), command, limits.stdout)
            })?;
        }
        self.over = true;
        std::mem::take(&mut self.collected).into_output().ok_or_else(|| {
            let reason = format!("the connection was lost while `{command}` ran");
            ExecuteError::unreachable(session.name(), reason)
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (write, kill) = (Arc::clone(&self.write), self.kill && !self.over);
        runtime.spawn(async move {
            if kill {
                let _ = write.signal(Sig::TERM).await;
            }
            let _ = write.close().await;
        });
    }
}

fn refusal(session: &Session, message: Option<&ChannelMsg>) -> ExecuteError {
    match message {
        None | Some(ChannelMsg::Close) => {
            ExecuteError::unreachable(session.name(), "the connection was lost")
        }
        Some(_) => ExecuteError::protocol(session.name(), "sshd refused to start a program"),
    }
}

struct TooLong;

/// What came from a program so far.
#[derive(Default)]
struct Collected {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// The exit status; the inner one is missing when a signal ended the program.
    status: Option<Option<i32>>,
}

impl Collected {
    fn add(&mut self, message: ChannelMsg, limits: Limits) -> Result<(), TooLong> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "most are for servers")]
        match message {
            ChannelMsg::Data { data } => {
                if self.stdout.len() + data.len() > limits.stdout {
                    return Err(TooLong);
                }
                self.stdout.extend_from_slice(&data);
            }
            ChannelMsg::ExtendedData { data, .. } => {
                let room = limits.stderr - self.stderr.len();
                self.stderr.extend(data.iter().take(room));
            }
            ChannelMsg::ExitStatus { exit_status } => {
                self.status = Some(i32::try_from(exit_status).ok());
            }
            ChannelMsg::ExitSignal { .. } => self.status = Some(None),
            _ => {}
        }
        Ok(())
    }

    /// Nothing when the program's end was never told.
    fn into_output(self) -> Option<Output> {
        let status = self.status?;
        Some(Output { status, stdout: text(self.stdout), stderr: text(self.stderr) })
    }
}
