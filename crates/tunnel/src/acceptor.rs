//! The gateway's entrance: takes connections on the tunnel port, whichever carrier they come by,
//! and yields sessions.
//!
//! Which sessions count, and what becomes of an older one of the same agent, is not decided here.

mod entrance;
mod half_open;
mod sockets;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tunnel_proto::message::{ToAgent, ToGateway};

use crate::peer::ServerHandshakes;
use crate::session::{Adoption, GatewaySession};

pub(crate) use entrance::Entrance;
pub(crate) use half_open::HalfOpen;
pub use sockets::Sockets;

/// How a gateway accepts.
#[derive(Clone, Debug)]
pub struct AcceptorSettings {
    /// The gateway's name, told to agents.
    pub gateway: String,
    /// The program's version, told to agents.
    pub program: String,
    /// Idle flow connections that a new session begins with.
    pub spare: u32,
    /// Handshakes under way at one time, in total.
    pub half_open: usize,
    /// Handshakes under way at one time from one source: an IPv4 address, or an IPv6 /64.
    pub half_open_per_source: usize,
    /// How long a peer may take from its connection to its greeting.
    pub patience: Duration,
}

impl Default for AcceptorSettings {
    fn default() -> Self {
        Self {
            gateway: String::new(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            spare: 4,
            half_open: 4096,
            half_open_per_source: 512,
            patience: Duration::from_secs(5),
        }
    }
}

/// Who has come.
#[derive(Debug)]
pub enum Arrival {
    /// An agent's session.
    Session(Box<GatewaySession>),
    /// An agent that wants to adopt this gateway.
    Adoption(Box<Adoption<ToAgent, ToGateway>>),
}

/// Accepts sessions until it is dropped. Sessions in being go on without it.
#[derive(Debug)]
pub struct Acceptor {
    arrivals: mpsc::Receiver<Arrival>,
    entrance: Arc<Entrance>,
    addresses: Vec<SocketAddr>,
    // Ends the accepting when dropped.
    accepting: JoinSet<()>,
}

/// Arrivals that may wait to be taken.
const WAITING: usize = 64;

impl Acceptor {
    /// Begins to accept on these sockets. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// When a socket cannot be used.
    pub fn start(
        sockets: Sockets,
        handshakes: Arc<dyn ServerHandshakes>,
        settings: AcceptorSettings,
    ) -> io::Result<Self> {
        let (sender, arrivals) = mpsc::channel(WAITING);
        let entrance = Arc::new(Entrance::new(handshakes, settings, sender));
        let (mut accepting, mut addresses) = (JoinSet::new(), Vec::new());
        for listener in sockets.tcp {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            addresses.push(listener.local_addr()?);
            accepting.spawn(crate::tls::accept(listener, Arc::clone(&entrance)));
        }
        for socket in sockets.udp {
            accepting.spawn(crate::quic::accept(socket, Arc::clone(&entrance)));
        }
        Ok(Self { arrivals, entrance, addresses, accepting })
    }

    /// Accepts on one more socket, for carriers over UDP: one that somebody else had at the start.
    /// Must be called within a tokio runtime.
    pub fn add_udp(&mut self, socket: std::net::UdpSocket) {
        self.accepting.spawn(crate::quic::accept(socket, Arc::clone(&self.entrance)));
    }

    /// The next one to come.
    pub async fn next(&mut self) -> Option<Arrival> {
        self.arrivals.recv().await
    }

    /// Where it listens with TCP.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What has been turned away so far.
    #[must_use]
    pub fn turned_away(&self) -> TurnedAway {
        self.entrance.turned_away()
    }
}

/// Connections that became no session, since the start.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TurnedAway {
    /// Too many handshakes were under way.
    pub busy: u64,
    /// The handshake failed, or nothing that makes sense came after it.
    pub failed: u64,
}
