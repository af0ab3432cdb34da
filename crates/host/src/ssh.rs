//! Runs commands on another machine, over one standing SSH session.
//!
//! The session is opened at once and kept: nothing here waits for a command to connect, and a
//! lost session is opened again until the executor is dropped. Every command of one [`Ssh`] goes
//! through that session. There are two ways to be allowed on the host, see [`Mode`].

mod confirmed;
mod exec;
mod forced;
mod key;
mod link;
mod session;
mod standby;
mod sudo;

use std::time::Duration;

use command::{Command, Output};
use futures::future::BoxFuture;

pub use key::{ClientKey, HostKey, KeyError};
pub use link::{LinkState, LinkWatch};

use crate::{ConfirmedChange, ExecuteError, Executor, Limits};
use link::Link;

/// Where a host is, who it is, and who we are there.
#[derive(Clone, Debug)]
pub struct SshHost {
    /// Name or address to connect to.
    pub address: String,
    /// TCP port.
    pub port: u16,
    /// The account to log in as.
    pub user: String,
    /// The only key that the host may have.
    pub host_key: HostKey,
    /// The key that we log in with.
    pub client_key: ClientKey,
    /// How we are allowed to change the host's firewall.
    pub mode: Mode,
    /// How long things may take.
    pub timing: Timing,
    /// How much a command may read and write.
    pub limits: Limits,
}

impl SshHost {
    /// Describes a host with port 22, the forced command, and the default timing and limits.
    #[must_use]
    pub fn new(
        address: impl Into<String>,
        user: impl Into<String>,
        host_key: HostKey,
        client_key: ClientKey,
    ) -> Self {
        Self {
            address: address.into(),
            port: 22,
            user: user.into(),
            host_key,
            client_key,
            mode: Mode::ForcedCommand,
            timing: Timing::default(),
            limits: Limits::default(),
        }
    }

    /// How this host is called in errors: `address`, or `address:port` when that is not 22.
    pub(crate) fn name(&self) -> String {
        match self.port {
            22 => self.address.clone(),
            port if self.address.contains(':') => format!("[{}]:{port}", self.address),
            port => format!("{}:{port}", self.address),
        }
    }
}

/// How we are allowed on a host.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Mode {
    /// The account's key is bound to `portcullis host-apply`, which permits nothing but changes of
    /// our own rules. The preferred way: whoever steals the key can do no more than that.
    #[default]
    ForcedCommand,
    /// The account may run single programs through `sudo`; nothing of ours is installed there.
    Sudo,
}

/// How long things may take.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timing {
    /// From the first packet to the end of the log-in.
    pub connect: Duration,
    /// From [`Executor::run`] to its end, including the wait for the session.
    pub command: Duration,
    /// After how much silence we ask the host whether it is still there.
    pub keepalive: Duration,
    /// After how much silence the session is given up; rounded up to whole keepalives.
    pub silence: Duration,
    /// The most that passes before the first attempt to connect again; doubles with each attempt.
    pub retry: Duration,
    /// The most that ever passes between two attempts to connect.
    pub retry_cap: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            command: Duration::from_secs(30),
            keepalive: Duration::from_secs(5),
            silence: Duration::from_secs(15),
            retry: Duration::from_millis(200),
            retry_cap: Duration::from_secs(30),
        }
    }
}

/// Runs commands on another machine.
///
/// While there is no session, [`run`](Executor::run) waits for an attempt to connect that is under
/// way and otherwise fails at once with what the last one ended with;
/// [`watch_link`](Self::watch_link) tells when trying again makes sense.
#[derive(Debug)]
pub struct Ssh {
    link: Link,
}

impl Ssh {
    /// Starts to connect to `host` and returns at once.
    ///
    /// # Panics
    ///
    /// Panics outside of a Tokio runtime.
    #[must_use]
    pub fn new(host: SshHost) -> Self {
        Self { link: Link::keep(host) }
    }

    /// Tells whenever the session is lost or there again.
    #[must_use]
    pub fn watch_link(&self) -> LinkWatch {
        self.link.watch()
    }

    async fn run_on_session(&self, command: &Command) -> Result<Output, ExecuteError> {
        let host = self.link.host();
        host.limits.check_input(&host.name(), command)?;
        let session = self.link.session().await?;
        match host.mode {
            Mode::ForcedCommand => session.forced()?.run(command, host.timing.command).await,
            Mode::Sudo => sudo::run(&session, host, command).await,
        }
    }

    /// Returns what `work` returns, or an error when it takes longer than `deadline`.
    async fn within<T>(
        &self,
        deadline: Duration,
        command: &Command,
        work: impl Future<Output = Result<T, ExecuteError>>,
    ) -> Result<T, ExecuteError> {
        tokio::time::timeout(deadline, work).await.unwrap_or_else(|_| {
            let name = self.link.host().name();
            Err(match self.link.current() {
                LinkState::Up => ExecuteError::deadline(&name, command, deadline),
                LinkState::Down(error) => error,
                LinkState::Connecting => {
                    ExecuteError::unreachable(&name, format!("no connection within {deadline:?}"))
                }
            })
        })
    }
}

impl Executor for Ssh {
    fn run<'a>(&'a mut self, command: &'a Command) -> BoxFuture<'a, Result<Output, ExecuteError>> {
        let deadline = self.link.host().timing.command;
        Box::pin(self.within(deadline, command, self.run_on_session(command)))
    }

    fn run_confirmed<'a>(
        &'a mut self,
        change: &'a ConfirmedChange,
    ) -> BoxFuture<'a, Result<Vec<Output>, ExecuteError>> {
        Box::pin(async move {
            let session = self.link.session().await?;
            confirmed::run(&session, self.link.host(), change).await
        })
    }
}
