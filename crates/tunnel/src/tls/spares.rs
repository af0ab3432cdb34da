//! The agent's flow connections of one session: dials them, keeps as many ready as the gateway
//! wants, and answers the flows that it opens on them.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tunnel_proto::control::{self, Decoded};
use tunnel_proto::frame::Kind;
use tunnel_proto::message::{Open, Refused, RefusedReason};

use super::connection::{Connection, Established, set_up};
use super::flow::{Home, Shared, TlsFlow};
use super::handshake::Handshake;
use crate::link::{Answer, Flow, Incoming};
use crate::peer::{ClientHandshakes, Identity};
use crate::trust::alpn;

/// Dials under way at one time.
const DIALLING: usize = 32;

/// How long one dial may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long nothing is dialled after a dial that failed.
const PAUSE: Duration = Duration::from_millis(500);

/// The most that a gateway may ask for.
const MOST_WANTED: u32 = 16_384;

/// The flow connections of one session.
pub(super) struct Spares {
    pub(super) handshakes: Arc<dyn ClientHandshakes>,
    pub(super) address: SocketAddr,
    pub(super) gateway: Identity,
    pub(super) token: [u8; 16],
    pub(super) most: usize,
    /// `None` once the session has ended.
    pub(super) incoming: Mutex<Option<mpsc::Sender<Incoming>>>,
    pub(super) shared: Shared,
    pub(super) wanted: AtomicU32,
    pub(super) idle: AtomicUsize,
    pub(super) dialling: AtomicUsize,
    pub(super) changed: Notify,
}

impl Spares {
    /// Dials until the session ends.
    pub(super) fn start(self: &Arc<Self>) {
        tokio::spawn(keep_ready(Arc::downgrade(self), self.shared.status.clone()));
    }

    /// The gateway wants to find so many ready.
    pub(super) fn want(&self, wanted: u32) {
        self.wanted.store(wanted.min(MOST_WANTED), Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// How many dials to begin now.
    fn missing(&self) -> usize {
        let wanted = self.wanted.load(Ordering::Relaxed) as usize;
        let idle = self.idle.load(Ordering::Relaxed);
        let dialling = self.dialling.load(Ordering::Relaxed);
        let open = usize::try_from(self.shared.flows()).unwrap_or(usize::MAX);
        // Flows end and connections come back: a few that are missing are not worth a dial.
        let missing = if idle + dialling > wanted / 2 { 0 } else { wanted - idle - dialling };
        missing.min(DIALLING.saturating_sub(dialling)).min(self.most.saturating_sub(open + idle))
    }

    fn incoming(&self) -> MutexGuard<'_, Option<mpsc::Sender<Incoming>>> {
        self.incoming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn dial(self: Arc<Self>) {
        let dialled = tokio::time::timeout(PATIENCE, self.connect());
        let failed = match dialled.await {
            Ok(Ok(connection)) => {
                Arc::clone(&self).welcome(connection);
                false
            }
            Ok(Err(error)) => {
                tracing::debug!(address = %self.address, %error, "no flow connection");
                true
            }
            Err(_) => true,
        };
        if failed {
            // Counts as dialling meanwhile.
            tokio::time::sleep(PAUSE).await;
        }
        self.dialling.fetch_sub(1, Ordering::Relaxed);
        self.changed.notify_one();
    }

    async fn connect(&self) -> io::Result<Connection> {
        let stream = TcpStream::connect(self.address).await?;
        set_up(&stream)?;
        let (config, name) = (self.handshakes.config(), self.handshakes.server_name());
        let handshake = Handshake::client(&config, name, alpn::FLOW)?;
        let established = Connection::establish(stream, handshake, Vec::new()).await?;
        let Established { mut connection, chain, alpn } = established;
        let peer = self.handshakes.peer(&chain);
        if alpn != alpn::FLOW || peer.as_ref() != Some(&self.gateway) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "another gateway answers"));
        }
        connection.belongs_to(self.shared.status.clone());
        connection.send(Kind::Join, &self.token)?;
        connection.flush().await?;
        Ok(connection)
    }

    async fn wait_for_flow(self: Arc<Self>, mut connection: Connection) {
        let waited = {
            let _idle = IdleCount::new(&self);
            let status = &self.shared.status;
            tokio::select! {
                waited = next_open(&mut connection) => waited,
                // What idles is of no use to anyone any more.
                _ = status.until_ended() => return,
            }
        };
        if self.missing() > 0 {
            self.changed.notify_one();
        }
        match waited {
            Ok(open) => {
                let home: Arc<dyn Home> = Arc::clone(&self) as Arc<dyn Home>;
                let answer = Box::new(TlsAnswer { unanswered: Some((connection, home)) });
                let incoming = self.incoming().clone();
                // Where nobody takes flows any more, the answer says so as it is dropped.
                if let Some(incoming) = incoming {
                    let _nobody = incoming.send(Incoming { open, answer }).await;
                }
            }
            Err(error) => {
                tracing::trace!(address = %self.address, %error, "a flow connection is gone");
                connection.abort();
            }
        }
    }
}

impl Home for Spares {
    fn welcome(self: Arc<Self>, connection: Connection) {
        if self.shared.status.ended().is_none() {
            tokio::spawn(self.wait_for_flow(connection));
        }
    }

    fn session(&self) -> &Shared {
        &self.shared
    }
}

impl fmt::Debug for Spares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spares")
            .field("address", &self.address)
            .field("wanted", &self.wanted)
            .field("idle", &self.idle)
            .finish_non_exhaustive()
    }
}

/// Counts as an idle connection, as long as it lives.
struct IdleCount<'a>(&'a Spares);

impl<'a> IdleCount<'a> {
    fn new(spares: &'a Spares) -> Self {
        spares.idle.fetch_add(1, Ordering::Relaxed);
        Self(spares)
    }
}

impl Drop for IdleCount<'_> {
    fn drop(&mut self) {
        self.0.idle.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn keep_ready(spares: Weak<Spares>, status: crate::session::Status) {
    let ended = status.until_ended();
    tokio::pin!(ended);
    loop {
        let Some(spares) = spares.upgrade() else { return };
        if status.ended().is_some() {
            spares.incoming().take();
            return;
        }
        for _ in 0..spares.missing() {
            spares.dialling.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(Arc::clone(&spares).dial());
        }
        tokio::select! {
            () = spares.changed.notified() => {}
            _ = &mut ended => {}
        }
    }
}

/// The next flow that the gateway wants to open here.
async fn next_open(connection: &mut Connection) -> io::Result<Open> {
    loop {
        let (kind, payload) = connection.next_frame().await?;
        match kind {
            Kind::Open => match control::decode_bare::<Open>(&payload) {
                Ok(Decoded::Message(open)) => return Ok(open),
                Ok(Decoded::Unknown(detail)) => {
                    let refused = Refused { reason: RefusedReason::NoEndpoint, detail };
                    connection.send(Kind::Refused, &control::encode_bare(&refused))?;
                }
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            },
            Kind::Ping => connection.send(Kind::Pong, &[])?,
            // Late words about the flow before.
            Kind::Reset => {}
            Kind::Join
            | Kind::Accepted
            | Kind::Refused
            | Kind::Data
            | Kind::Fin
            | Kind::Datagram
            | Kind::Pong => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// The answer to a flow.
struct TlsAnswer {
    unanswered: Option<(Connection, Arc<dyn Home>)>,
}

impl Answer for TlsAnswer {
    fn accept(mut self: Box<Self>) -> BoxFuture<'static, io::Result<Box<dyn Flow>>> {
        let unanswered = self.unanswered.take();
        Box::pin(async move {
            let (mut connection, home) = unanswered.ok_or(io::ErrorKind::NotConnected)?;
            connection.send(Kind::Accepted, &[])?;
            connection.flush().await?;
            Ok(Box::new(TlsFlow::new(connection, home)) as Box<dyn Flow>)
        })
    }

    fn refuse(mut self: Box<Self>, why: Refused) -> BoxFuture<'static, ()> {
        let unanswered = self.unanswered.take();
        Box::pin(async move {
            if let Some((mut connection, home)) = unanswered {
                let said = connection.send(Kind::Refused, &control::encode_bare(&why));
                if said.is_ok() && connection.flush().await.is_ok() {
                    home.welcome(connection);
                }
            }
        })
    }
}

impl Drop for TlsAnswer {
    fn drop(&mut self) {
        if let Some((mut connection, home)) = self.unanswered.take() {
            let detail = "the agent gave the flow up".to_owned();
            let refused = Refused { reason: RefusedReason::NoEndpoint, detail };
            let said = connection.send(Kind::Refused, &control::encode_bare(&refused));
            // Dropped elsewhere, there is nobody to wait for the next flow.
            if said.is_ok()
                && !connection.has_unsent()
                && tokio::runtime::Handle::try_current().is_ok()
            {
                home.welcome(connection);
            }
        }
    }
}
