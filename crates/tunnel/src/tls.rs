//! The carrier over TLS 1.3 and TCP: a control connection, and connections that carry one flow
//! after another.
//!
//! Every flow has a connection of its own while it lasts: what one reader leaves unread holds up
//! no other. The agent dials them all and keeps some ready, so a new visitor waits for no dial and
//! no handshake. Bytes are framed ([`tunnel_proto::frame`]), so that a connection outlives its
//! flow; nothing but TCP limits how much is on the way.

mod adopt;
mod connection;
mod datagrams;
mod flow;
mod handshake;
mod open;
mod pool;
mod records;
mod relay;
mod scratch;
mod spares;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicUsize};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tunnel_proto::frame::{Kind, TOKEN};
use tunnel_proto::message::{ToAgent, ToGateway, Welcome};

use crate::acceptor::{Arrival, Entrance};
use crate::auto::Sided;
use crate::dialler::{self, DialError, DiallerSettings, Turn};
use crate::link::Carrier;
use crate::peer::Identity;
use crate::session::{AgentSession, Channel, Control, Ended, GatewaySession, Status};
use crate::trust::alpn;

use connection::{Connection, Established};
use flow::Shared;
use handshake::Handshake;
use open::TlsLink;
use pool::Pool;
use spares::Spares;

/// Flows that may wait for the agent to take them.
const WAITING: usize = 256;

/// How long accepting pauses when the system has no file descriptor left.
const PAUSE: Duration = Duration::from_millis(50);

/// A gateway's flow connections of one session, as long as it lives.
#[derive(Clone, Debug)]
pub(crate) struct WeakPool(Weak<Pool>);

impl WeakPool {
    pub(crate) fn is_alive(&self) -> bool {
        self.0.strong_count() > 0
    }
}

/// Accepts connections for ever.
pub(crate) async fn accept(listener: TcpListener, entrance: Arc<Entrance>) {
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a tunnel connection cannot be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Some(place) = entrance.half_open.enter(address.ip()) else {
            entrance.count_busy();
            continue;
        };
        let entrance = Arc::clone(&entrance);
        tokio::spawn(async move {
            let entered = enter(stream, address, &entrance);
            match tokio::time::timeout(entrance.settings.patience, entered).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    entrance.count_failed();
                    tracing::info!(%address, %error, "a tunnel connection is turned away");
                }
                Err(_) => entrance.count_failed(),
            }
            drop(place);
        });
    }
}

async fn enter(mut stream: TcpStream, address: SocketAddr, entrance: &Entrance) -> io::Result<()> {
    connection::set_up(&stream)?;
    let (received, adopts) = greeting(&mut stream).await?;
    let config = entrance.handshakes.config();
    if adopts {
        let config = for_adoption(&config);
        return adopt::receive(stream, received, address, config, entrance).await;
    }
    let handshake = Handshake::server(&config, &[alpn::CONTROL, alpn::FLOW])?;
    let established = Connection::establish(stream, handshake, received).await?;
    let Established { connection, chain, alpn } = established;
    let peer = entrance.handshakes.peer(&chain).ok_or(io::ErrorKind::PermissionDenied)?;
    if alpn == alpn::CONTROL {
        begin(connection, peer, address, entrance).await
    } else if alpn == alpn::FLOW {
        join(connection, &peer, entrance).await
    } else {
        Err(nonsense("no protocol was agreed on"))
    }
}

/// Reads the beginning of a TLS handshake. Returns it, and whether it asks for adoption.
async fn greeting(stream: &mut TcpStream) -> io::Result<(Vec<u8>, bool)> {
    let (mut received, mut looked) = (Vec::with_capacity(2 << 10), 0);
    let mut acceptor = rustls::server::Acceptor::default();
    loop {
        if stream.read_buf(&mut received).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while looked < received.len() {
            looked += acceptor.read_tls(&mut received.get(looked..).unwrap_or_default())?;
        }
        if let Some(accepted) = acceptor.accept().map_err(|(error, _)| nonsense(error))? {
            let hello = accepted.client_hello();
            let adopts = hello.alpn().is_some_and(|mut it| it.any(|it| it == alpn::ADOPT));
            return Ok((received, adopts));
        }
    }
}

fn for_adoption(config: &ServerConfig) -> Arc<ServerConfig> {
    let mut config = config.clone();
    config.alpn_protocols = vec![alpn::ADOPT.to_vec()];
    Arc::new(config)
}

/// Begins a session as the gateway.
async fn begin(
    mut connection: Connection,
    peer: Identity,
    address: SocketAddr,
    entrance: &Entrance,
) -> io::Result<()> {
    let status = Status::new();
    connection.belongs_to(status.clone());
    let channel = Channel::over(connection);
    let (hello, prepared) = entrance.greet(channel, &peer, status.clone()).await?;
    let joined = status.clone();
    let shared = Shared::new(status);
    let outbox = prepared.control.outbox().clone();
    let pool = Pool::new(peer.clone(), shared, outbox, entrance.settings.spare);
    let token = rand::random();
    // Before the agent can know the token.
    entrance.expect_flows(token, WeakPool(Arc::downgrade(&pool)));
    let tls = Arc::new(TlsLink { pool });
    let link = Arc::new(Sided::new(peer.clone(), joined, tls));
    entrance.sides.expect(token, &link);
    let control = entrance.welcome(prepared, &hello, address, token);
    let session = GatewaySession { peer, hello, address, link, control };
    entrance.arrive(Arrival::Session(Box::new(session))).await;
    Ok(())
}

/// Adds a flow connection to its session.
async fn join(mut connection: Connection, peer: &Identity, entrance: &Entrance) -> io::Result<()> {
    let (kind, payload) = connection.next_frame().await?;
    let token: Option<[u8; TOKEN]> = payload.try_into().ok();
    let (Kind::Join, Some(token)) = (kind, token) else {
        return Err(nonsense("expected a token"));
    };
    let pool = entrance.pool(&token).and_then(|it| it.0.upgrade());
    match pool {
        Some(pool) if pool.peer == *peer => {
            pool.add(connection);
            Ok(())
        }
        _ => Err(nonsense("the token of no session")),
    }
}

/// Dials a gateway as an agent.
pub(crate) async fn dial(
    settings: &DiallerSettings,
    epoch: u64,
    turn: &Turn,
) -> Result<AgentSession, DialError> {
    let mut addresses = dialler::resolve(&settings.endpoints).await?;
    loop {
        let stream = dialler::connect(&addresses).await?;
        let address = stream.peer_addr().ok().filter(|it| addresses.contains(it));
        let address = address.or(addresses.first().copied()).ok_or(DialError::NoEndpoint)?;
        match shake(stream, settings).await {
            Ok((connection, peer)) => {
                let _turn = turn.lock().await;
                return greet(connection, peer, address, settings, epoch).await;
            }
            Err(source) => {
                // Perhaps another address leads to whom it should.
                addresses.retain(|it| *it != address);
                if addresses.is_empty() {
                    return Err(DialError::Handshake { address, source });
                }
            }
        }
    }
}

/// Whether a handshake with the gateway succeeds on this connection, which is then closed.
pub(crate) async fn try_out(stream: TcpStream, settings: &DiallerSettings) -> io::Result<()> {
    shake(stream, settings).await.map(drop)
}

async fn shake(
    stream: TcpStream,
    settings: &DiallerSettings,
) -> io::Result<(Connection, Identity)> {
    connection::set_up(&stream)?;
    let handshakes = &settings.handshakes;
    let (config, name) = (handshakes.config(), handshakes.server_name());
    let handshake = Handshake::client(&config, name, alpn::CONTROL)?;
    let established = Connection::establish(stream, handshake, Vec::new()).await?;
    let Established { connection, chain, alpn } = established;
    let peer = handshakes.peer(&chain).ok_or(io::ErrorKind::PermissionDenied)?;
    if alpn != alpn::CONTROL {
        return Err(nonsense("no protocol was agreed on"));
    }
    Ok((connection, peer))
}

async fn greet(
    mut connection: Connection,
    peer: Identity,
    address: SocketAddr,
    settings: &DiallerSettings,
    epoch: u64,
) -> Result<AgentSession, DialError> {
    let status = Status::new();
    connection.belongs_to(status.clone());
    let mut channel = Channel::over(connection);
    let broken = |source| DialError::Handshake { address, source };
    channel.sending.send(&ToGateway::Hello(settings.hello(epoch))).await.map_err(broken)?;
    let welcome: Welcome = match channel.receiving.next::<ToAgent>(|| ()).await.map_err(broken)? {
        Some(ToAgent::Welcome(welcome)) => welcome,
        Some(ToAgent::Evicted { by }) => {
            return Err(DialError::Refused { address, ended: Ended::Evicted { by } });
        }
        Some(_) => return Err(broken(nonsense("expected a welcome"))),
        None => return Err(DialError::Refused { address, ended: Ended::There }),
    };
    channel.trust();
    let (incoming, flows) = mpsc::channel(WAITING);
    let more = incoming.downgrade();
    let spares = Arc::new(Spares {
        handshakes: Arc::clone(&settings.handshakes),
        address,
        gateway: peer.clone(),
        token: welcome.token,
        most: settings.most_flows,
        incoming: Mutex::new(Some(incoming)),
        shared: Shared::new(status.clone()),
        wanted: AtomicU32::new(0),
        idle: AtomicUsize::new(0),
        dialling: AtomicUsize::new(0),
        changed: Notify::new(),
    });
    spares.want(welcome.spare);
    spares.start();
    let control = Control::prepare(channel, status, move |message| {
        let ToAgent::Spare(wanted) = message else { return false };
        spares.want(*wanted);
        true
    })
    .start();
    Ok(AgentSession { peer, welcome, carrier: Carrier::Tls, address, control, flows, more })
}

fn nonsense(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
