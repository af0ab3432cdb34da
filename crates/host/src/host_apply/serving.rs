//! The loop behind the forced command.

use std::io;
use std::time::Duration;

use command::{Command, Output};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;

use super::pending::{Directory, Pending};
use super::protocol::{self, Answer, LONGEST_LINE, Request, VERSION};
use super::{HostApply, ServeError, rollback};
use crate::ExecuteError;
use crate::local::THIS_MACHINE;

/// How many requests may wait for the one that runs.
const WAITING: usize = 16;

/// How long after its deadline an unconfirmed change is looked at by us: whoever waits for it goes
/// first.
const GRACE: Duration = Duration::from_millis(500);

/// Answers requests until the client is gone, and then ends what it had begun.
///
/// `check` decides which commands may run; what it returns as an error is told to the client. While
/// a change waits for its confirmation, commands with input are refused: they would be undone by a
/// rollback that knows nothing of them.
///
/// # Errors
///
/// Fails when the client does not speak as agreed, when it cannot be talked to, and when the
/// directory for unconfirmed changes is not safe to use.
pub async fn serve(
    reader: impl AsyncRead + Unpin,
    writer: impl AsyncWrite + Unpin,
    host_apply: &HostApply,
    check: impl Fn(&Command) -> Result<(), String>,
) -> Result<(), ServeError> {
    let directory = Directory::open(host_apply)?;
    let host_apply =
        &HostApply { local: host_apply.local.clone().keep_ready(), ..host_apply.clone() };
    let writer = Writer(Mutex::new(writer));
    let (requests, waiting) = mpsc::channel(WAITING);
    let serving = Serving { host_apply, directory, writer: &writer, check };
    let (heard, said) = tokio::join!(
        listen(BufReader::with_capacity(64 << 10, reader), &writer, requests),
        serving.work(waiting)
    );
    if let Err(ServeError::Protocol(reason)) = &heard {
        let _ = writer.say(&Answer::Bye { reason: reason.clone() }).await;
    }
    heard.and(said)
}

struct Writer<W>(Mutex<W>);

impl<W: AsyncWrite + Unpin> Writer<W> {
    async fn say(&self, answer: &Answer) -> Result<(), ServeError> {
        let mut writer = self.0.lock().await;
        writer.write_all(&protocol::line(answer)).await.map_err(ServeError::Connection)?;
        writer.flush().await.map_err(ServeError::Connection)
    }
}

/// Reads requests until there are no more, and answers those that need no work.
async fn listen<W: AsyncWrite + Unpin>(
    mut reader: impl AsyncBufReadExt + Unpin,
    writer: &Writer<W>,
    requests: mpsc::Sender<Request>,
) -> Result<(), ServeError> {
    let mut silence = None;
    let mut line = Vec::new();
    loop {
        line.clear();
        if !read_line(&mut reader, &mut line, silence, &requests).await? {
            return Ok(());
        }
        let request = serde_json::from_slice(&line).map_err(|error| {
            // It repeats what the client said, which is for nobody's terminal.
            let error: String =
                error.to_string().chars().take(200).flat_map(char::escape_debug).collect();
            ServeError::Protocol(format!("not a request: {error}"))
        })?;
        match request {
            Request::Hello { version, silence_ms } => {
                let program = concat!("portcullis ", env!("CARGO_PKG_VERSION")).to_owned();
                writer.say(&Answer::Hello { version: VERSION, program }).await?;
                if version != VERSION {
                    let reason = format!("it speaks version {version}, we speak {VERSION}");
                    return Err(ServeError::Protocol(reason));
                }
                silence = Some(Duration::from_millis(silence_ms.max(1)));
            }
            _ if silence.is_none() => {
                return Err(ServeError::Protocol("it does not greet".to_owned()));
            }
            Request::Ping => writer.say(&Answer::Pong).await?,
            Request::Run { .. } | Request::Change { .. } | Request::Confirm { .. } => {
                if requests.send(request).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
}

/// Reads one line. Returns false when there is none: the client is gone, or cannot be answered.
async fn read_line(
    reader: &mut (impl AsyncBufReadExt + Unpin),
    line: &mut Vec<u8>,
    silence: Option<Duration>,
    requests: &mpsc::Sender<Request>,
) -> Result<bool, ServeError> {
    loop {
        let bytes = tokio::select! {
            bytes = reader.fill_buf() => bytes,
            // The connection is dead and nobody told us.
            () = sleep_until(silence.map(|it| Instant::now() + it)) => return Ok(false),
            () = requests.closed() => return Ok(false),
        };
        let bytes = match bytes {
            // Within a line as well, as when the client was killed.
            Ok([]) => return Ok(false),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
            Err(error) => return Err(ServeError::Connection(error)),
        };
        let end = bytes.iter().position(|it| *it == b'\n');
        let taken = end.map_or(bytes.len(), |at| at + 1);
        if line.len() + taken > LONGEST_LINE {
            return Err(ServeError::Protocol(format!("a line of over {LONGEST_LINE} bytes")));
        }
        line.extend_from_slice(&bytes[..taken]);
        reader.consume(taken);
        if end.is_some() {
            return Ok(true);
        }
    }
}

struct Serving<'a, W, C> {
    host_apply: &'a HostApply,
    directory: Directory,
    writer: &'a Writer<W>,
    check: C,
}

impl<W, C> Serving<'_, W, C>
where
    W: AsyncWrite + Unpin,
    C: Fn(&Command) -> Result<(), String>,
{
    /// Carries out requests one after the other, and looks after orphaned changes.
    async fn work(&self, mut requests: mpsc::Receiver<Request>) -> Result<(), ServeError> {
        let mut look = Some(Instant::now());
        loop {
            let request = tokio::select! {
                request = requests.recv() => request,
                () = sleep_until(look) => {
                    look = self.settle().await;
                    continue;
                }
            };
            match request {
                None => return Ok(()),
                Some(Request::Hello { .. } | Request::Ping) => {}
                Some(Request::Run { id, command, within_ms }) => {
                    let output = self.run(&command, Duration::from_millis(within_ms)).await;
                    self.answer(id, output.map(|it| (vec![it], None))).await?;
                }
                Some(Request::Change { id, apply, rollback, within_ms, confirm_within_ms }) => {
                    let confirm_within = Duration::from_millis(confirm_within_ms);
                    let within = Duration::from_millis(within_ms);
                    let done = self.change(&apply, rollback, within, confirm_within).await;
                    self.answer(id, done).await?;
                    look = Some(Instant::now() + confirm_within + GRACE);
                }
                Some(Request::Confirm { id, token }) => {
                    let confirmed = self.confirm(&token);
                    self.answer(id, confirmed.map(|()| (Vec::new(), None))).await?;
                }
            }
        }
    }

    async fn answer(
        &self,
        id: u64,
        result: Result<(Vec<Output>, Option<String>), ExecuteError>,
    ) -> Result<(), ServeError> {
        let answer = match result {
            Ok((outputs, token)) => Answer::Done { id, outputs, token },
            Err(error) => Answer::Failed { id, error },
        };
        self.writer.say(&answer).await
    }

    /// Takes back what nobody waits for any more. Returns when to look again.
    async fn settle(&self) -> Option<Instant> {
        match self.directory.settle(&self.host_apply.local).await {
            Ok(next) => next.map(|left| Instant::now() + left + GRACE),
            Err(error) => {
                tracing::error!(%error, "will be tried again");
                Some(Instant::now() + Duration::from_secs(1))
            }
        }
    }

    async fn run(&self, command: &Command, within: Duration) -> Result<Output, ExecuteError> {
        self.permit(command)?;
        if !command.stdin.is_empty() {
            self.nothing_waits()?;
        }
        self.host_apply.local.run_within(command, within).await
    }

    async fn change(
        &self,
        apply: &[Command],
        rollback: Vec<Command>,
        within: Duration,
        confirm_within: Duration,
    ) -> Result<(Vec<Output>, Option<String>), ExecuteError> {
        apply.iter().chain(&rollback).try_for_each(|it| self.permit(it))?;
        self.nothing_waits()?;
        let pending = Pending::new(rollback, confirm_within);
        rollback::arm(self.host_apply, &pending).await?;

        let mut outputs = Vec::with_capacity(apply.len());
        for command in apply {
            let output = self.host_apply.local.run_within(command, within).await;
            if matches!(&output, Ok(output) if output.succeeded()) {
                outputs.extend(output);
                continue;
            }
            // A program that was killed may have done its work, one that refused has not.
            if (!outputs.is_empty() || output.is_err())
                && let Err(error) = self.undo(&pending).await
            {
                // Whoever waits for the confirmation tries it once more.
                tracing::error!(%error, "a change that failed half-way stays until its deadline");
                outputs.push(output?);
                return Ok((outputs, None));
            }
            self.confirm(&pending.token)?;
            outputs.push(output?);
            return Ok((outputs, None));
        }
        Ok((outputs, Some(pending.token)))
    }

    async fn undo(&self, pending: &Pending) -> Result<(), ExecuteError> {
        for command in &pending.rollback {
            let output = self.host_apply.local.run_within(command, Duration::from_secs(30)).await?;
            if !output.succeeded() {
                let reason = format!("`{command}` says: {}", output.stderr.trim());
                return Err(ExecuteError::protocol(THIS_MACHINE, reason));
            }
        }
        Ok(())
    }

    fn confirm(&self, token: &str) -> Result<(), ExecuteError> {
        match self.directory.confirm(token) {
            Ok(true) => Ok(()),
            Ok(false) => Err(ExecuteError::not_confirmed(
                THIS_MACHINE,
                "the confirmation came too late, or for a change that the host does not know",
            )),
            Err(error) => Err(ExecuteError::not_confirmed(THIS_MACHINE, error.to_string())),
        }
    }

    fn permit(&self, command: &Command) -> Result<(), ExecuteError> {
        (self.check)(command).map_err(|reason| ExecuteError::Refused {
            host: THIS_MACHINE.to_owned(),
            command: command.to_string(),
            reason,
        })
    }

    fn nothing_waits(&self) -> Result<(), ExecuteError> {
        match self.directory.waiting() {
            Ok(None) => Ok(()),
            Ok(Some(left)) => {
                Err(ExecuteError::ConfirmationPending { host: THIS_MACHINE.to_owned(), left })
            }
            Err(error) => Err(ExecuteError::protocol(
                THIS_MACHINE,
                format!("its notes on unconfirmed changes cannot be read: {error}"),
            )),
        }
    }
}

async fn sleep_until(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}
