//! Connecting to the server, checking its key, logging in.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use russh::client::{self, ChannelOpenHandle, DisconnectReason, Msg, Session};
use russh::keys::{Algorithm, HashAlg, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{Channel, Preferred};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use super::serve::{Arrived, serve};
use super::{HostKey, SshServer};
use crate::dialler::{DialError, connect, resolve};
use crate::peer::Identity;
use crate::session::AgentSession;

/// Visitors that may wait to be looked at.
const WAITING: usize = 256;

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SshError {
    /// Nobody answered.
    #[error("the SSH server cannot be reached")]
    Dial(#[source] DialError),
    /// Whoever answered has another key.
    #[error(
        "the SSH server at {address} has the key {found}, but {pinned} is pinned: somebody else \
         answers there, or the server has a new key and hostKey must be changed"
    )]
    HostKey {
        /// Who answered.
        address: SocketAddr,
        /// The fingerprint of its key.
        found: String,
        /// The fingerprint of the right key.
        pinned: String,
    },
    /// The server does not take our key.
    #[error("the SSH server does not let `{user}` log in with our key; see its authorized_keys")]
    Login {
        /// The account.
        user: String,
    },
    /// The conversation failed.
    #[error("the SSH server at {address} cannot be talked to")]
    Protocol {
        /// Who answered.
        address: SocketAddr,
        /// What went wrong.
        #[source]
        source: russh::Error,
    },
    /// It took too long.
    #[error("the SSH server did not answer within {0:?}")]
    Late(Duration),
}

/// Connects to the server and logs in. `gateway` is who the session says that it is with; `agent`
/// is who we are, for reports.
///
/// # Errors
///
/// Why there is no session.
pub async fn dial(
    server: &SshServer,
    gateway: Identity,
    agent: &str,
) -> Result<AgentSession, SshError> {
    let limit = server.timing.connect;
    tokio::time::timeout(limit, try_dial(server, gateway, agent))
        .await
        .unwrap_or(Err(SshError::Late(limit)))
}

async fn try_dial(
    server: &SshServer,
    gateway: Identity,
    agent: &str,
) -> Result<AgentSession, SshError> {
    let addresses = resolve(&server.endpoints).await.map_err(SshError::Dial)?;
    let stream = connect(&addresses).await.map_err(SshError::Dial)?;
    let (address, local) = prepare(&stream, server).map_err(|error| {
        SshError::Dial(DialError::Connect { address: addresses[0], source: error })
    })?;
    let protocol = |source| SshError::Protocol { address, source };
    let (visitors, arrived) = mpsc::channel(WAITING);
    let (end, ended) = watch::channel(None);
    let pinned = server.host_key.clone();
    let watcher = Watcher { address, pinned, visitors, end };
    let handle = client::connect_stream(Arc::new(config(server)), stream, watcher).await;
    let mut handle = handle.map_err(|error| match error {
        WatchError::HostKey(found) => {
            let pinned = server.host_key.fingerprint();
            SshError::HostKey { address, found, pinned }
        }
        WatchError::Library(source) => protocol(source),
    })?;
    let key = PrivateKeyWithHashAlg::new(server.client_key.key(), Some(HashAlg::Sha512));
    let login = handle.authenticate_publickey(server.user.clone(), key).await;
    if !login.map_err(protocol)?.success() {
        return Err(SshError::Login { user: server.user.clone() });
    }
    Ok(serve(handle, arrived, ended, gateway, agent, address, local))
}

fn prepare(stream: &TcpStream, server: &SshServer) -> std::io::Result<(SocketAddr, SocketAddr)> {
    stream.set_nodelay(true)?;
    // The session's task writes without a deadline; the kernel keeps it for us.
    let socket = socket2::SockRef::from(stream);
    socket.set_tcp_user_timeout(Some(server.timing.dead_after + Duration::from_secs(1)))?;
    Ok((stream.peer_addr()?, stream.local_addr()?))
}

fn config(server: &SshServer) -> client::Config {
    let ping = server.timing.ping_after.max(Duration::from_millis(1));
    let unanswered = server.timing.dead_after.as_nanos().div_ceil(ping.as_nanos());
    client::Config {
        keepalive_interval: Some(ping),
        // It counts those that may go unanswered; whatever the server sends is an answer.
        keepalive_max: usize::try_from(unanswered).unwrap_or(usize::MAX).max(2) - 1,
        nodelay: true,
        // A visitor's window, and how much of it one slow backend can pile up here.
        window_size: 2 << 20,
        maximum_packet_size: 32 << 10,
        channel_buffer_size: 64,
        preferred: Preferred { key: preferred_keys(server.host_key.key()), ..Preferred::DEFAULT },
        ..client::Config::default()
    }
}

/// Asks for a key of the pinned kind first. The others stay on offer, so that a server that has
/// only those can show us one and we can say which.
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

/// Checks the server's key, passes visitors on, and notes the end of the session.
pub(super) struct Watcher {
    address: SocketAddr,
    pinned: HostKey,
    visitors: mpsc::Sender<Arrived>,
    end: watch::Sender<Option<String>>,
}

/// Why the session's task ends.
#[derive(Debug)]
pub(super) enum WatchError {
    HostKey(String),
    Library(russh::Error),
}

impl From<russh::Error> for WatchError {
    fn from(error: russh::Error) -> Self {
        Self::Library(error)
    }
}

impl client::Handler for Watcher {
    type Error = WatchError;

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
        Err(WatchError::HostKey(found.to_string()))
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: Channel<Msg>,
        connected_address: &str,
        connected_port: u32,
        originator_address: &str,
        originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        let port = |it: u32| u16::try_from(it).unwrap_or(0);
        let visitor = originator_address.parse().unwrap_or(self.address.ip());
        let arrived = Arrived {
            channel,
            reply,
            address: connected_address.to_owned(),
            port: port(connected_port),
            visitor: SocketAddr::new(visitor, port(originator_port)),
        };
        // Too many at once: dropped, which refuses the visitor. This task must not wait.
        let _refused = self.visitors.try_send(arrived);
        Ok(())
    }

    async fn disconnected(
        &mut self,
        reason: DisconnectReason<Self::Error>,
    ) -> Result<(), Self::Error> {
        let reason = match reason {
            DisconnectReason::ReceivedDisconnect(said) => {
                format!("the SSH server closed the connection: {}", said.message)
            }
            DisconnectReason::Error(WatchError::Library(russh::Error::KeepaliveTimeout)) => {
                "the SSH server does not answer any more".to_owned()
            }
            DisconnectReason::Error(WatchError::Library(error)) => error.to_string(),
            DisconnectReason::Error(WatchError::HostKey(found)) => {
                format!("the SSH server came with another key, {found}")
            }
        };
        self.end.send_replace(Some(reason));
        Ok(())
    }
}
