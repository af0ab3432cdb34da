//! One SSH session, from the first packet to its end.

use std::borrow::Cow;
use std::fmt;
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use russh::client::{self, DisconnectReason, Handle, Msg};
use russh::keys::{Algorithm, HashAlg, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{Channel, Preferred};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::forced::Conversation;
use super::standby::Standby;
use super::{HostKey, Mode, SshHost};
use crate::ExecuteError;

/// An open session. Closes its connection when dropped.
pub(super) struct Session {
    name: String,
    handle: Handle<Watcher>,
    /// Ends the connection at once, even while the session's task is blocked writing to it.
    socket: std::net::TcpStream,
    /// Why the session ended, once it has.
    ended: watch::Receiver<Option<String>>,
    forced: Option<Conversation>,
    standby: Standby,
}

impl Session {
    /// Connects, checks the host's key, logs in and, with [`Mode::ForcedCommand`], greets.
    pub(super) async fn open(host: &SshHost) -> Result<Self, ExecuteError> {
        let deadline = host.timing.connect;
        tokio::time::timeout(deadline, Self::try_open(host)).await.unwrap_or_else(|_| {
            let reason = format!("no connection within {deadline:?}");
            Err(ExecuteError::unreachable(&host.name(), reason))
        })
    }

    async fn try_open(host: &SshHost) -> Result<Self, ExecuteError> {
        let name = host.name();
        let unreachable =
            |source: std::io::Error| ExecuteError::unreachable(&name, source.to_string());
        let stream = dial(host).await.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        // The session's task writes without a deadline; the kernel keeps it for us.
        let silence = u32::try_from(host.timing.silence.as_millis()).unwrap_or(u32::MAX);
        setsockopt(&stream, sockopt::TcpUserTimeout, &silence)
            .map_err(|errno| unreachable(errno.into()))?;
        let stream = stream.into_std().map_err(unreachable)?;
        let socket = stream.try_clone().map_err(unreachable)?;
        let stream = TcpStream::from_std(stream).map_err(unreachable)?;

        let (end, ended) = watch::channel(None);
        let watcher =
            Watcher { host: name.clone(), pinned: host.host_key.clone(), end: end.clone() };
        let handle = client::connect_stream(Arc::new(config(host)), stream, watcher)
            .await
            .map_err(|error| error.on(&name))?;
        let standby = Standby::default();
        let mut session = Self { name, handle, socket, ended, forced: None, standby };

        let key = PrivateKeyWithHashAlg::new(host.client_key.key(), Some(HashAlg::Sha512));
        let accepted = session
            .handle
            .authenticate_publickey(host.user.clone(), key)
            .await
            .map_err(|error| session.failure(&error))?;
        if !accepted.success() {
            return Err(ExecuteError::AuthenticationFailed {
                host: session.name.clone(),
                user: host.user.clone(),
                fingerprint: host.client_key.fingerprint(),
            });
        }
        match host.mode {
            Mode::ForcedCommand => {
                session.forced = Some(Conversation::begin(&session, host, end).await?);
            }
            Mode::Sudo => {}
        }
        Ok(session)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn is_open(&self) -> bool {
        self.ended.borrow().is_none() && !self.handle.is_closed()
    }

    /// Waits for the end of the session and returns what it ended with.
    pub(super) async fn ended(&self) -> String {
        let mut ended = self.ended.clone();
        let reason = ended.wait_for(Option::is_some).await;
        reason.ok().and_then(|it| it.clone()).unwrap_or_else(|| "the connection closed".to_owned())
    }

    pub(super) fn forced(&self) -> Result<&Conversation, ExecuteError> {
        self.forced
            .as_ref()
            .ok_or_else(|| ExecuteError::protocol(&self.name, "this session has no forced command"))
    }

    pub(super) fn standby(&self) -> &Standby {
        &self.standby
    }

    pub(super) async fn open_channel(&self) -> Result<Channel<Msg>, ExecuteError> {
        self.handle.channel_open_session().await.map_err(|error| self.failure(&error))
    }

    /// Words what kept a request from being answered.
    pub(super) fn failure(&self, error: &russh::Error) -> ExecuteError {
        if let russh::Error::ChannelOpenFailure(reason) = error {
            let reason =
                format!("it opens no further channel ({reason:?}); see MaxSessions in sshd_config");
            return ExecuteError::protocol(&self.name, reason);
        }
        let ended = self.ended.borrow().clone();
        ExecuteError::unreachable(&self.name, ended.unwrap_or_else(|| error.to_string()))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Connects to the first address that answers; each gets its share of the time.
async fn dial(host: &SshHost) -> std::io::Result<TcpStream> {
    let addresses: Vec<_> =
        tokio::net::lookup_host((host.address.as_str(), host.port)).await?.collect();
    let share = host.timing.connect / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    let mut failure = std::io::Error::other("the name has no address");
    for address in addresses {
        match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failure = error,
            Err(_) => failure = std::io::Error::other(format!("no connection within {share:?}")),
        }
    }
    Err(failure)
}

fn config(host: &SshHost) -> client::Config {
    let Timing { keepalive, silence } = Timing::of(host);
    client::Config {
        keepalive_interval: Some(keepalive),
        keepalive_max: silence,
        nodelay: true,
        preferred: Preferred { key: preferred_keys(host.host_key.key()), ..Preferred::DEFAULT },
        ..client::Config::default()
    }
}

/// Keepalives as the library counts them.
struct Timing {
    keepalive: Duration,
    /// How many may go unanswered.
    silence: usize,
}

impl Timing {
    fn of(host: &SshHost) -> Self {
        let keepalive = host.timing.keepalive.max(Duration::from_millis(1));
        let intervals = host.timing.silence.as_nanos().div_ceil(keepalive.as_nanos());
        Self { keepalive, silence: usize::try_from(intervals).unwrap_or(usize::MAX).max(2) - 1 }
    }
}

/// Asks for a key of the pinned kind first. The others stay on offer, so that a host that has only
/// those can show us one and we can say which.
fn preferred_keys(pinned: &PublicKey) -> Cow<'static, [Algorithm]> {
    let pinned = pinned.algorithm();
    let (first, rest): (Vec<_>, Vec<_>) = Preferred::DEFAULT
        .key
        .iter()
        // RSA with SHA-1 is left out.
        .filter(|it| !matches!(it, Algorithm::Rsa { hash: None }))
        .cloned()
        .partition(|it| *it == pinned || (it.clone().is_rsa() && pinned.clone().is_rsa()));
    first.into_iter().chain(rest).collect()
}

/// Checks the host's key and notes the end of the session.
pub(super) struct Watcher {
    host: String,
    pinned: HostKey,
    end: watch::Sender<Option<String>>,
}

impl client::Handler for Watcher {
    type Error = HandshakeError;

    async fn check_server_key(
        &mut self,
        shown: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        let found = match shown {
            PublicKeyOrCertificate::PublicKey { key, .. }
                if key.key_data() == self.pinned.key().key_data() =>
            {
                return Ok(true);
            }
            PublicKeyOrCertificate::PublicKey { key, .. } => key.fingerprint(HashAlg::Sha256),
            PublicKeyOrCertificate::Certificate(certificate) => {
                certificate.public_key().fingerprint(HashAlg::Sha256)
            }
        };
        Err(HandshakeError::HostKey(ExecuteError::HostKeyMismatch {
            host: self.host.clone(),
            pinned: self.pinned.fingerprint(),
            found: found.to_string(),
        }))
    }

    async fn disconnected(
        &mut self,
        reason: DisconnectReason<Self::Error>,
    ) -> Result<(), Self::Error> {
        let reason = match reason {
            DisconnectReason::ReceivedDisconnect(said) => {
                format!("the host closed the connection: {}", said.message)
            }
            DisconnectReason::Error(HandshakeError::Library(russh::Error::KeepaliveTimeout)) => {
                "the host does not answer any more".to_owned()
            }
            DisconnectReason::Error(HandshakeError::Library(error)) => error.to_string(),
            DisconnectReason::Error(HandshakeError::HostKey(error)) => error.to_string(),
        };
        self.end.send_if_modified(|end| end.is_none().then(|| *end = Some(reason)).is_some());
        Ok(())
    }
}

/// Why there is no session.
#[derive(Debug)]
pub(super) enum HandshakeError {
    HostKey(ExecuteError),
    Library(russh::Error),
}

impl From<russh::Error> for HandshakeError {
    fn from(error: russh::Error) -> Self {
        Self::Library(error)
    }
}

impl HandshakeError {
    fn on(self, name: &str) -> ExecuteError {
        match self {
            Self::HostKey(error) => error,
            Self::Library(russh::Error::NoCommonAlgo { kind, theirs, .. }) => {
                let theirs = theirs.join(", ");
                ExecuteError::protocol(name, format!("no {kind:?} in common, it offers {theirs}"))
            }
            Self::Library(error) => ExecuteError::unreachable(name, error.to_string()),
        }
    }
}
