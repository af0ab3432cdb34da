//! The agent's end: dials, and takes the flows that the gateway opens.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream, TokioRuntime};
use tokio::sync::mpsc;
use tunnel_proto::control;
use tunnel_proto::frame::{Kind, TOKEN};
use tunnel_proto::message::{Open, Protocol, Refused, ToAgent, ToGateway};

use super::accept::{ControlSend, Unfinished, chain};
use super::carried::{Carried, Counted};
use super::datagrams::Registered;
use super::flow::QuicFlow;
use super::frames::{Beginning, nonsense, understand};
use super::setup;
use crate::dialler::{DialError, DiallerSettings, Turn, resolve};
use crate::link::{Answer, Carrier, Flow, Incoming};
use crate::session::{AgentSession, Channel, Control, Ended, Status};
use crate::trust::alpn;

/// How long an address has a head start before the next one is tried (RFC 8305 section 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// Flows that may wait to be taken.
const WAITING: usize = 1024;

/// How long a gateway may take to say what it wants of a stream that it opened.
const PATIENCE: Duration = Duration::from_secs(5);

/// Dials a gateway over QUIC.
///
/// `epoch` orders the sessions of this agent: each must be greater than the one before.
///
/// # Errors
///
/// Why there is no session.
pub async fn dial(settings: &DiallerSettings, epoch: u64) -> Result<AgentSession, DialError> {
    dial_in_turn(settings, epoch, &Turn::default()).await
}

/// The same, beside others.
pub(crate) async fn dial_in_turn(
    settings: &DiallerSettings,
    epoch: u64,
    turn: &Turn,
) -> Result<AgentSession, DialError> {
    let session = async {
        let addresses = resolve(&settings.endpoints).await?;
        let (connection, address) = connect(settings, &addresses, alpn::QUIC).await?;
        let _turn = turn.lock().await;
        let greeted = greet(settings, epoch, connection, address).await;
        greeted.map_err(|source| match source {
            Greeted::Failed(source) => DialError::Handshake { address, source },
            Greeted::Refused(ended) => DialError::Refused { address, ended },
        })
    };
    match tokio::time::timeout(settings.patience, session).await {
        Ok(result) => result,
        Err(_) => Err(DialError::Late(settings.patience)),
    }
}

/// Connects beside a session that has its control channel elsewhere.
///
/// # Errors
///
/// Why nothing came of it.
pub(crate) async fn join(
    settings: &DiallerSettings,
    token: [u8; TOKEN],
    status: &Status,
) -> Result<Joined, DialError> {
    let joined = async {
        let addresses = resolve(&settings.endpoints).await?;
        let (connection, address) = connect(settings, &addresses, alpn::FLOW).await?;
        let presented = present(settings, &connection, &token).await;
        presented.map_err(|source| DialError::Handshake { address, source })?;
        Ok(Joined(Carried::start(connection, status.clone(), None)))
    };
    match tokio::time::timeout(settings.patience, joined).await {
        Ok(result) => result,
        Err(_) => Err(DialError::Late(settings.patience)),
    }
}

async fn present(
    settings: &DiallerSettings,
    connection: &Connection,
    token: &[u8; TOKEN],
) -> io::Result<()> {
    let unfinished = Unfinished::new(connection.clone());
    let peer = chain(connection).and_then(|chain| settings.handshakes.peer(&chain));
    peer.ok_or_else(|| nonsense("it is not the gateway that was dialled"))?;
    let (send, recv) = connection.open_bi().await?;
    let mut stream = Beginning::new(send, recv);
    stream.send(Kind::Join, token).await?;
    match stream.receive().await? {
        (Kind::Accepted, ..) => {}
        (kind, ..) => return Err(nonsense(format!("{kind:?} is no answer"))),
    }
    stream.finish();
    unfinished.finish();
    Ok(())
}

/// A connection beside a session.
pub(crate) struct Joined(Arc<Carried>);

impl Joined {
    /// Hands over the flows that the gateway opens on it, until it is closed or the session ends.
    pub(crate) async fn take_flows(self, flows: mpsc::Sender<Incoming>) {
        take_flows(self.0, flows).await;
    }
}

/// Connects to the first address that answers; each has a head start before the next.
async fn connect(
    settings: &DiallerSettings,
    addresses: &[SocketAddr],
    protocol: &[u8],
) -> Result<(Connection, SocketAddr), DialError> {
    let mut attempts = FuturesUnordered::new();
    let mut waiting = addresses.iter().copied();
    let mut failed = None;
    loop {
        if let Some(address) = waiting.next() {
            attempts.push(async move { (address, attempt(settings, address, protocol).await) });
        } else if attempts.is_empty() {
            return Err(failed.unwrap_or(DialError::NoEndpoint));
        }
        let wait = if waiting.len() == 0 { Duration::MAX } else { HEAD_START };
        match tokio::time::timeout(wait, attempts.next()).await {
            Ok(Some((address, Ok(connection)))) => return Ok((connection, address)),
            Ok(Some((_, Err(error)))) => failed = Some(error),
            Ok(None) | Err(_) => {}
        }
    }
}

async fn attempt(
    settings: &DiallerSettings,
    address: SocketAddr,
    protocol: &[u8],
) -> Result<Connection, DialError> {
    let unreachable = |source| DialError::Connect { address, source };
    let config = setup::client(&settings.handshakes.config(), protocol).map_err(unreachable)?;
    let name = settings.handshakes.server_name();
    let endpoint = endpoint(address).map_err(unreachable)?;
    let connected = connecting(&endpoint, config, address, &name.to_str()).await;
    connected.map_err(|source| {
        use io::ErrorKind::{ConnectionRefused, TimedOut};
        if matches!(source.kind(), ConnectionRefused | TimedOut) {
            DialError::Connect { address, source }
        } else {
            DialError::Handshake { address, source }
        }
    })
}

async fn connecting(
    endpoint: &Endpoint,
    config: ClientConfig,
    address: SocketAddr,
    name: &str,
) -> io::Result<Connection> {
    let connecting = endpoint.connect_with(config, address, name).map_err(io::Error::other)?;
    Ok(connecting.await?)
}

/// A socket of its own for each connection: it follows the machine to another address.
fn endpoint(address: SocketAddr) -> io::Result<Endpoint> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    setup::widen(&socket);
    Endpoint::new(setup::endpoint(), None, socket, Arc::new(TokioRuntime))
}

enum Greeted {
    Failed(io::Error),
    Refused(Ended),
}

impl From<io::Error> for Greeted {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

async fn greet(
    settings: &DiallerSettings,
    epoch: u64,
    connection: Connection,
    address: SocketAddr,
) -> Result<AgentSession, Greeted> {
    let unfinished = Unfinished::new(connection.clone());
    let peer = chain(&connection).and_then(|chain| settings.handshakes.peer(&chain));
    let peer = peer.ok_or_else(|| nonsense("it is not the gateway that was dialled"))?;
    let (send, recv) = connection.open_bi().await.map_err(io::Error::from)?;
    let status = Status::new();
    let (send, said) = ControlSend::new(send);
    let mut channel = Channel::new(recv, send);
    channel.sending.send(&ToGateway::Hello(settings.hello(epoch))).await?;
    let welcome = match channel.receiving.next::<ToAgent>(|| ()).await? {
        Some(ToAgent::Welcome(welcome)) => welcome,
        Some(ToAgent::Evicted { by }) => return Err(Greeted::Refused(Ended::Evicted { by })),
        Some(other) => return Err(nonsense(format!("expected a welcome, found {other:?}")).into()),
        None => return Err(Greeted::Refused(Ended::There)),
    };
    channel.trust();
    unfinished.finish();
    let carried = Carried::start(connection, status.clone(), Some(said));
    let control = Control::start(channel, status);
    let (sender, flows) = mpsc::channel(WAITING);
    let more = sender.downgrade();
    tokio::spawn(take_flows(carried, sender));
    Ok(AgentSession { peer, welcome, carrier: Carrier::Quic, address, control, flows, more })
}

/// Hands over the flows that the gateway opens, until the session has ended.
async fn take_flows(carried: Arc<Carried>, flows: mpsc::Sender<Incoming>) {
    loop {
        let stream = tokio::select! {
            stream = carried.connection.accept_bi() => stream,
            _ = carried.status.until_ended() => return,
        };
        let Ok((send, recv)) = stream else { return };
        let (carried, flows) = (Arc::clone(&carried), flows.clone());
        tokio::spawn(async move {
            let incoming = incoming(carried, send, recv);
            match tokio::time::timeout(PATIENCE, incoming).await {
                // Nobody takes flows any more: dropped, and so broken off.
                Ok(Ok(incoming)) => drop(flows.send(incoming).await),
                Ok(Err(error)) => tracing::debug!(%error, "a stream that is no flow"),
                Err(_) => tracing::debug!("a stream on which nothing was said"),
            }
        });
    }
}

async fn incoming(
    carried: Arc<Carried>,
    send: SendStream,
    recv: RecvStream,
) -> io::Result<Incoming> {
    let number = send.id().index();
    let home = Counted::new(Arc::clone(&carried));
    let mut stream = Beginning::new(send, recv);
    let (kind, payload, ahead) = stream.receive().await?;
    carried.heard();
    if kind != Kind::Open {
        return Err(nonsense(format!("{kind:?} opens no flow")));
    }
    let open: Open = understand(&payload)?;
    let registered = match open.protocol {
        Protocol::Tcp => None,
        Protocol::Udp => Some(carried.datagrams.register(number)),
    };
    Ok(Incoming { open, answer: Box::new(QuicAnswer { stream, ahead, registered, home }) })
}

/// Dropped, the stream is broken off.
struct QuicAnswer {
    stream: Beginning,
    ahead: Bytes,
    registered: Option<Registered>,
    home: Counted,
}

impl Answer for QuicAnswer {
    fn accept(mut self: Box<Self>) -> BoxFuture<'static, io::Result<Box<dyn Flow>>> {
        Box::pin(async move {
            self.stream.send(Kind::Accepted, &[]).await?;
            let Self { stream, ahead, registered, home } = *self;
            let flow = QuicFlow::new(stream.into_streams()?, ahead, registered, home);
            Ok(Box::new(flow) as Box<dyn Flow>)
        })
    }

    fn refuse(mut self: Box<Self>, why: Refused) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let told = self.stream.send(Kind::Refused, &control::encode_bare(&why)).await;
            if told.is_ok() {
                self.stream.finish();
            }
        })
    }
}
