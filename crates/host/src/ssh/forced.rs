//! The client's side of the forced command: requests out, answers in, on one standing channel.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use command::{Command, Output};
use russh::client::Msg;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};

use super::SshHost;
use super::session::Session;
use crate::host_apply::protocol::{self, Answer, LONGEST_LINE, Request, VERSION};
use crate::{ConfirmedChange, ExecuteError, Limits};

/// What we ask sshd for. The account's forced command runs instead, whatever we ask for.
const ASKED_FOR: &str = "portcullis host-apply";

/// A conversation with `portcullis host-apply`.
pub(super) struct Conversation {
    host: String,
    limits: Limits,
    lines: mpsc::Sender<Vec<u8>>,
    open: Arc<Mutex<Open>>,
}

/// The requests that wait for their answers.
#[derive(Default)]
struct Open {
    last_id: u64,
    waiting: BTreeMap<u64, oneshot::Sender<Done>>,
    /// Set once no answer can come any more.
    ended: bool,
}

type Done = Result<(Vec<Output>, Option<String>), ExecuteError>;

impl Conversation {
    /// Opens the channel, greets, and waits to be greeted.
    pub(super) async fn begin(
        session: &Session,
        host: &SshHost,
        end: watch::Sender<Option<String>>,
    ) -> Result<Self, ExecuteError> {
        let name = session.name().to_owned();
        let (read, write) = session.open_channel().await?.split();
        let failed = |error: russh::Error| session.failure(&error);
        write.exec(true, ASKED_FOR).await.map_err(failed)?;
        let silence = u64::try_from(host.timing.silence.as_millis()).unwrap_or(u64::MAX);
        let hello = Request::Hello { version: VERSION, silence_ms: silence };
        write.data_bytes(protocol::line(&hello)).await.map_err(failed)?;

        let mut lines = Lines { read, buffer: Vec::new(), searched: 0, complaint: String::new() };
        match lines.next().await {
            Heard::Answer(Answer::Hello { version: VERSION, program }) => {
                tracing::debug!(host = %name, program, "greeted");
            }
            Heard::Answer(Answer::Hello { version, program }) => {
                let reason = format!(
                    "its `{program}` speaks version {version}, we speak {VERSION}; \
                     install the same version on both"
                );
                return Err(ExecuteError::protocol(&name, reason));
            }
            Heard::Answer(Answer::Bye { reason }) => {
                return Err(ExecuteError::protocol(&name, reason));
            }
            Heard::Answer(Answer::Pong | Answer::Done { .. } | Answer::Failed { .. }) => {
                return Err(ExecuteError::protocol(&name, "it answers before it greets"));
            }
            Heard::Nonsense(said) | Heard::End(said) => {
                let reason = format!(
                    "user `{}` does not run `{ASKED_FOR}`, but says `{said}`; put \
                     restrict,command=\"{ASKED_FOR}\" before the key {} in its authorized_keys",
                    host.user,
                    host.client_key.fingerprint(),
                );
                return Err(ExecuteError::protocol(&name, reason));
            }
        }

        let open = Arc::default();
        let (sender, receiver) = mpsc::channel(16);
        let talk = Talk {
            open: Arc::clone(&open),
            end,
            host: name.clone(),
            keepalive: host.timing.keepalive.max(Duration::from_millis(1)),
            silence: host.timing.silence,
        };
        tokio::spawn(talk.run(lines, write, receiver));
        Ok(Self { host: name, limits: host.limits, lines: sender, open })
    }

    pub(super) async fn run(
        &self,
        command: &Command,
        within: Duration,
    ) -> Result<Output, ExecuteError> {
        let request = |id| Request::Run { id, command: command.clone(), within_ms: share(within) };
        let (mut outputs, _) = self.ask(request).await?;
        let output = outputs
            .pop()
            .ok_or_else(|| ExecuteError::protocol(&self.host, "an answer without output"))?;
        if output.stdout.len() > self.limits.stdout {
            return Err(ExecuteError::output_too_long(&self.host, command, self.limits.stdout));
        }
        Ok(output)
    }

    /// Returns the outputs and, when the change waits for it, what to confirm it with.
    pub(super) async fn change(
        &self,
        change: &ConfirmedChange,
        within: Duration,
    ) -> Result<(Vec<Output>, Option<String>), ExecuteError> {
        let ConfirmedChange { apply, rollback, within: confirm_within } = change.clone();
        let confirm_within_ms = u64::try_from(confirm_within.as_millis()).unwrap_or(u64::MAX);
        self.ask(|id| Request::Change {
            id,
            apply,
            rollback,
            within_ms: share(within),
            confirm_within_ms,
        })
        .await
    }

    pub(super) async fn confirm(&self, token: &str) -> Result<(), ExecuteError> {
        let token = token.to_owned();
        self.ask(|id| Request::Confirm { id, token }).await.map(drop)
    }

    async fn ask(&self, request: impl FnOnce(u64) -> Request) -> Done {
        let lost = || ExecuteError::unreachable(&self.host, "the connection was lost");
        let (sender, answer) = oneshot::channel();
        let id = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            if open.ended {
                return Err(lost());
            }
            open.last_id += 1;
            let id = open.last_id;
            open.waiting.insert(id, sender);
            id
        };
        let _forget = Forget { id, open: &self.open };
        self.lines.send(protocol::line(&request(id))).await.map_err(|_| lost())?;
        answer.await.unwrap_or_else(|_| Err(lost())).map_err(|error| error.on(&self.host))
    }
}

/// Nobody waits for the answer any more.
struct Forget<'a> {
    id: u64,
    open: &'a Mutex<Open>,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).waiting.remove(&self.id);
    }
}

/// The host gets a little less time than the caller, so that its "too late" still arrives.
fn share(within: Duration) -> u64 {
    u64::try_from((within / 10 * 9).as_millis()).unwrap_or(u64::MAX)
}

/// The task that carries a conversation.
struct Talk {
    open: Arc<Mutex<Open>>,
    end: watch::Sender<Option<String>>,
    host: String,
    keepalive: Duration,
    silence: Duration,
}

impl Talk {
    async fn run(
        self,
        lines: Lines,
        write: ChannelWriteHalf<Msg>,
        requests: mpsc::Receiver<Vec<u8>>,
    ) {
        let asked = Mutex::new(None);
        let reason = tokio::select! {
            reason = self.listen(lines, &asked) => reason,
            reason = self.speak(&write, requests, &asked) => reason,
        };
        let waiting = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.ended = true;
            std::mem::take(&mut open.waiting)
        };
        for sender in waiting.into_values() {
            let _ = sender.send(Err(ExecuteError::unreachable(&self.host, reason.clone())));
        }
        self.end.send_if_modified(|end| end.is_none().then(|| *end = Some(reason)).is_some());
    }

    /// Takes answers until there are no more. Whatever is heard answers what was `asked`.
    async fn listen(&self, mut lines: Lines, asked: &Mutex<Option<Instant>>) -> String {
        loop {
            let answer = match lines.next().await {
                Heard::Answer(answer) => answer,
                Heard::Nonsense(said) => return format!("`host-apply` says `{said}`"),
                Heard::End(said) if said.is_empty() => return "`host-apply` ended".to_owned(),
                Heard::End(said) => return format!("`host-apply` ended: {said}"),
            };
            *asked.lock().unwrap_or_else(PoisonError::into_inner) = None;
            match answer {
                Answer::Hello { .. } | Answer::Pong => {}
                Answer::Bye { reason } => return reason,
                Answer::Done { id, outputs, token } => self.done(id, Ok((outputs, token))),
                Answer::Failed { id, error } => self.done(id, Err(error)),
            }
        }
    }

    fn is_waiting(&self) -> bool {
        !self.open.lock().unwrap_or_else(PoisonError::into_inner).waiting.is_empty()
    }

    fn done(&self, id: u64, done: Done) {
        let waiting = self.open.lock().unwrap_or_else(PoisonError::into_inner).waiting.remove(&id);
        if let Some(sender) = waiting {
            let _ = sender.send(done);
        }
    }

    /// Sends requests, and asks now and then whether anybody is there: since when is `asked`.
    async fn speak(
        &self,
        write: &ChannelWriteHalf<Msg>,
        mut requests: mpsc::Receiver<Vec<u8>>,
        asked: &Mutex<Option<Instant>>,
    ) -> String {
        let mut ticks = tokio::time::interval(self.keepalive);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let line = tokio::select! {
                request = requests.recv() => match request {
                    Some(line) => line,
                    None => return "we are stopping".to_owned(),
                },
                _ = ticks.tick() => {
                    let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
                    let since = *asked.get_or_insert_with(Instant::now);
                    // Over a request that takes long, its own deadline watches.
                    if since.elapsed() > self.silence && !self.is_waiting() {
                        return format!("`host-apply` said nothing for {:?}", self.silence);
                    }
                    protocol::line(&Request::Ping)
                }
            };
            if let Err(error) = write.data_bytes(line).await {
                return error.to_string();
            }
        }
    }
}

enum Heard {
    Answer(Answer),
    /// A line that is none of ours.
    Nonsense(String),
    /// The end of the channel, with what was said on standard error.
    End(String),
}

/// Takes lines from a channel.
struct Lines {
    read: ChannelReadHalf,
    buffer: Vec<u8>,
    /// How much of the buffer is known to hold no line break.
    searched: usize,
    complaint: String,
}

impl Lines {
    async fn next(&mut self) -> Heard {
        loop {
            if let Some(at) = self.buffer[self.searched..].iter().position(|it| *it == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=self.searched + at).collect();
                self.searched = 0;
                return match serde_json::from_slice(&line) {
                    Ok(answer) => Heard::Answer(answer),
                    Err(_) => Heard::Nonsense(beginning(&line)),
                };
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > LONGEST_LINE {
                return Heard::Nonsense(beginning(&self.buffer));
            }
            match self.read.wait().await {
                Some(ChannelMsg::Data { data }) => self.buffer.extend_from_slice(&data),
                Some(ChannelMsg::ExtendedData { data, .. }) if self.complaint.len() < 1000 => {
                    self.complaint.push_str(&String::from_utf8_lossy(&data));
                }
                None | Some(ChannelMsg::Eof | ChannelMsg::Close | ChannelMsg::Failure) => {
                    let said = if self.complaint.is_empty() {
                        beginning(&self.buffer)
                    } else {
                        beginning(self.complaint.as_bytes())
                    };
                    return Heard::End(said);
                }
                Some(_) => {}
            }
        }
    }
}

/// As much of a stranger's words as fits a message.
fn beginning(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(&text[..text.len().min(200)]);
    text.trim().chars().map(|it| if it.is_control() { ' ' } else { it }).collect()
}
