//! The gateway's end of a new connection.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use quinn::crypto::rustls::HandshakeData;
use quinn::{Connection, Endpoint, Incoming, SendStream, ServerConfig, TokioRuntime};
use rand::Rng as _;
use rustls::pki_types::CertificateDer;
use tokio::sync::oneshot;
use tunnel_proto::frame::{Kind, TOKEN};

use super::carried::Carried;
use super::frames::{Beginning, nonsense};
use super::link::QuicLink;
use super::{code, setup};
use crate::acceptor::{Arrival, Entrance};
use crate::peer::Identity;
use crate::session::{Channel, GatewaySession, Status};
use crate::trust::alpn;

/// Handshakes under way with addresses that nobody has proved to be at. Beyond, an address must
/// be proved first (RFC 9000 section 8.1.2), which costs a round trip.
const UNPROVED: usize = 64;

/// Accepts sessions on a socket until the future is dropped. Sessions in being go on.
pub(crate) async fn accept(socket: UdpSocket, entrance: Arc<Entrance>) {
    let address = socket.local_addr().ok();
    let mut config = Config { source: None, made: None };
    let endpoint = match config.current(&entrance) {
        Some(current) => {
            setup::widen(&socket);
            let runtime = Arc::new(TokioRuntime);
            Endpoint::new(setup::endpoint(), Some((*current).clone()), socket, runtime)
        }
        None => Err(io::Error::other("the TLS configuration cannot be used for QUIC")),
    };
    let endpoint = match endpoint {
        Ok(endpoint) => endpoint,
        Err(error) => {
            tracing::warn!(?address, %error, "no sessions over quic");
            return;
        }
    };
    let unproved = Arc::new(AtomicUsize::new(0));
    while let Some(incoming) = endpoint.accept().await {
        let Some(current) = config.current(&entrance) else {
            incoming.refuse();
            continue;
        };
        if let Some(unproved) = admit(&incoming, &unproved) {
            tokio::spawn(handshake(incoming, current, Arc::clone(&entrance), unproved));
        } else if incoming.retry().is_err() {
            entrance.count_busy();
        }
    }
}

/// The configuration, made anew when its source has changed.
struct Config {
    source: Option<Arc<rustls::ServerConfig>>,
    made: Option<Arc<ServerConfig>>,
}

impl Config {
    fn current(&mut self, entrance: &Entrance) -> Option<Arc<ServerConfig>> {
        let source = entrance.handshakes.config();
        if !self.source.as_ref().is_some_and(|it| Arc::ptr_eq(it, &source)) {
            self.made = match setup::server(&source)? {
                Ok(config) => Some(Arc::new(config)),
                Err(error) => {
                    tracing::warn!(%error, "the TLS configuration cannot be used for QUIC");
                    None
                }
            };
            self.source = Some(source);
        }
        self.made.clone()
    }
}

/// Counts a handshake with an unproved address, until dropped.
struct Unproved(Option<Arc<AtomicUsize>>);

impl Drop for Unproved {
    fn drop(&mut self) {
        if let Some(count) = &self.0 {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// `None` when the address must be proved first.
fn admit(incoming: &Incoming, unproved: &Arc<AtomicUsize>) -> Option<Unproved> {
    if incoming.remote_address_validated() {
        return Some(Unproved(None));
    }
    if unproved.load(Ordering::Relaxed) >= UNPROVED {
        return None;
    }
    unproved.fetch_add(1, Ordering::Relaxed);
    Some(Unproved(Some(Arc::clone(unproved))))
}

async fn handshake(
    incoming: Incoming,
    config: Arc<ServerConfig>,
    entrance: Arc<Entrance>,
    unproved: Unproved,
) {
    let address = incoming.remote_address();
    let Some(place) = entrance.half_open.enter(address.ip()) else {
        entrance.count_busy();
        incoming.refuse();
        return;
    };
    let connected = async {
        let connection = incoming.accept_with(config)?.await?;
        drop(unproved);
        match protocol(&connection) {
            Some(name) if name == alpn::QUIC => {
                session(connection, address, &entrance).await.map(Some)
            }
            Some(name) if name == alpn::FLOW => join(connection, &entrance).await.map(|()| None),
            Some(_) | None => Err(nonsense("no protocol was agreed on")),
        }
    };
    match tokio::time::timeout(entrance.settings.patience, connected).await {
        Ok(Ok(session)) => {
            drop(place);
            if let Some(session) = session {
                entrance.arrive(Arrival::Session(Box::new(session))).await;
            }
        }
        Ok(Err(error)) => {
            tracing::info!(%address, %error, "a connection over quic came to nothing");
            entrance.count_failed();
        }
        Err(_) => {
            tracing::info!(%address, "a connection over quic took too long");
            entrance.count_failed();
        }
    }
}

async fn session(
    connection: Connection,
    address: SocketAddr,
    entrance: &Entrance,
) -> io::Result<GatewaySession> {
    // Closes the connection on every way out but the last.
    let unfinished = Unfinished::new(connection.clone());
    let peer = peer(&connection, entrance)?;
    let (send, recv) = connection.accept_bi().await?;
    let status = Status::new();
    let (send, said) = ControlSend::new(send);
    let channel = Channel::new(recv, send);
    let (hello, prepared) = entrance.greet(channel, &peer, status.clone()).await?;
    unfinished.finish();
    let link = Arc::new(QuicLink(Carried::start(connection, status, Some(said))));
    let control = entrance.welcome(prepared, &hello, address, rand::rng().random());
    Ok(GatewaySession { peer, hello, address, link, control })
}

/// Adds a connection to a session that has its control channel elsewhere.
async fn join(connection: Connection, entrance: &Entrance) -> io::Result<()> {
    let unfinished = Unfinished::new(connection.clone());
    let peer = peer(&connection, entrance)?;
    let (send, recv) = connection.accept_bi().await?;
    let mut stream = Beginning::new(send, recv);
    let (kind, payload, _) = stream.receive().await?;
    let token: Option<[u8; TOKEN]> = payload.try_into().ok();
    let (Kind::Join, Some(token)) = (kind, token) else {
        return Err(nonsense("expected a token"));
    };
    let session = entrance.sides.get(&token).filter(|it| it.peer == peer);
    let session = session.ok_or_else(|| nonsense("the token of no session"))?;
    unfinished.finish();
    let carried = Carried::start(connection, session.status.clone(), None);
    session.attach(Arc::new(QuicLink(carried)));
    stream.send(Kind::Accepted, &[]).await?;
    stream.finish();
    Ok(())
}

fn peer(connection: &Connection, entrance: &Entrance) -> io::Result<Identity> {
    let peer = chain(connection).and_then(|chain| entrance.handshakes.peer(&chain));
    peer.ok_or_else(|| io::ErrorKind::PermissionDenied.into())
}

/// The protocol that was agreed on.
fn protocol(connection: &Connection) -> Option<Vec<u8>> {
    connection.handshake_data()?.downcast::<HandshakeData>().ok()?.protocol
}

/// The certificates that the other end has shown.
pub(super) fn chain(connection: &Connection) -> Option<Vec<CertificateDer<'static>>> {
    connection.peer_identity()?.downcast().ok().map(|it| *it)
}

/// A connection that is closed when this is dropped, unless it became a session.
pub(super) struct Unfinished(Option<Connection>);

impl Unfinished {
    pub(super) fn new(connection: Connection) -> Self {
        Self(Some(connection))
    }

    pub(super) fn finish(mut self) {
        self.0 = None;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(connection) = &self.0 {
            connection.close(code::NONSENSE, b"");
        }
    }
}

/// The control channel's way out. Urgent; and given back when the last message is in it, so that
/// the connection is not closed before it has arrived.
#[derive(Debug)]
pub(super) struct ControlSend {
    stream: Option<SendStream>,
    back: Option<oneshot::Sender<SendStream>>,
}

impl ControlSend {
    pub(super) fn new(stream: SendStream) -> (Self, oneshot::Receiver<SendStream>) {
        // Fails only where it is over already.
        let _over = stream.set_priority(1);
        let (back, said) = oneshot::channel();
        (Self { stream: Some(stream), back: Some(back) }, said)
    }
}

impl Drop for ControlSend {
    fn drop(&mut self) {
        if let (Some(stream), Some(back)) = (self.stream.take(), self.back.take()) {
            let _nobody_waits = back.send(stream);
        }
    }
}

impl tokio::io::AsyncWrite for ControlSend {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        match &mut self.stream {
            Some(stream) => std::pin::Pin::new(stream).poll_write(cx, bytes).map_err(Into::into),
            None => std::task::Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        _cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        if let Some(stream) = &mut self.stream {
            // Finished or stopped already: there is nothing more to say.
            let _over = stream.finish();
        }
        std::task::Poll::Ready(Ok(()))
    }
}
