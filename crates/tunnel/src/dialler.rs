//! The agent's way to a gateway: names resolved anew each time, addresses of both families raced.
//!
//! When to dial again after a failure is not decided here; [`tunnel_proto`] does that.

mod resolve;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tunnel_proto::message::{Hello, VERSION};

use crate::peer::ClientHandshakes;
use crate::session::{AgentSession, Ended};

/// A name or an address, and a port, that a gateway can be dialled at.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Endpoint {
    /// A DNS name or an IP address.
    pub host: String,
    /// The tunnel port.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// How an agent dials one gateway.
#[derive(Clone)]
pub struct DiallerSettings {
    /// Where the gateway is: any of these is the same machine.
    pub endpoints: Vec<Endpoint>,
    /// For the TLS handshakes, of the session and of flow connections.
    pub handshakes: Arc<dyn ClientHandshakes>,
    /// The agent's name; must be the one in its certificate.
    pub agent: String,
    /// The node that the agent runs on, if it runs on one.
    pub node: Option<String>,
    /// The program's version, told to gateways.
    pub program: String,
    /// How long the whole of a dial may take.
    pub patience: Duration,
    /// Flow connections of one session that may be open at one time.
    pub most_flows: usize,
}

impl DiallerSettings {
    /// With everything that has a sensible default.
    #[must_use]
    pub fn new(
        endpoints: Vec<Endpoint>,
        handshakes: Arc<dyn ClientHandshakes>,
        agent: &str,
    ) -> Self {
        Self {
            endpoints,
            handshakes,
            agent: agent.to_owned(),
            node: None,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            patience: Duration::from_secs(5),
            most_flows: 65_536,
        }
    }

    pub(crate) fn hello(&self, epoch: u64) -> Hello {
        Hello {
            version: VERSION,
            agent: self.agent.clone(),
            node: self.node.clone(),
            epoch,
            program: self.program.clone(),
        }
    }
}

impl fmt::Debug for DiallerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiallerSettings")
            .field("endpoints", &self.endpoints)
            .field("agent", &self.agent)
            .finish_non_exhaustive()
    }
}

/// Why a gateway could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No endpoint has an address.
    #[error("`{endpoint}` cannot be resolved")]
    Resolve {
        /// The last one that was tried.
        endpoint: Endpoint,
        /// What the resolver said.
        #[source]
        source: io::Error,
    },
    /// No address answered.
    #[error("{address} cannot be connected to")]
    Connect {
        /// The last one that failed.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Whoever answered is not who it should be, or does not speak as it should.
    #[error("the handshake with {address} failed")]
    Handshake {
        /// Who answered.
        address: SocketAddr,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// The gateway did not want the session.
    #[error("{address} wants no session: {ended}")]
    Refused {
        /// Who answered.
        address: SocketAddr,
        /// How it said so.
        ended: Ended,
    },
    /// It took too long.
    #[error("not within {0:?}")]
    Late(Duration),
    /// There is no endpoint at all.
    #[error("no endpoint is known")]
    NoEndpoint,
}

/// Dials a gateway over TLS and TCP.
///
/// `epoch` orders the sessions of this agent: each must be greater than the one before.
///
/// # Errors
///
/// Why there is no session.
pub async fn dial(settings: &DiallerSettings, epoch: u64) -> Result<AgentSession, DialError> {
    dial_in_turn(settings, epoch, &Turn::default()).await
}

/// Who of several that dial the same gateway may say hello to it. Two that did so would throw each
/// other out there.
pub(crate) type Turn = tokio::sync::Mutex<()>;

/// The same, beside others.
pub(crate) async fn dial_in_turn(
    settings: &DiallerSettings,
    epoch: u64,
    turn: &Turn,
) -> Result<AgentSession, DialError> {
    let session = crate::tls::dial(settings, epoch, turn);
    match tokio::time::timeout(settings.patience, session).await {
        Ok(result) => result,
        Err(_) => Err(DialError::Late(settings.patience)),
    }
}

/// Every address of every endpoint, as resolved now, the families taking turns (RFC 8305
/// section 4).
///
/// # Errors
///
/// When there is none.
pub async fn resolve(endpoints: &[Endpoint]) -> Result<Vec<SocketAddr>, DialError> {
    resolve::addresses(endpoints).await
}

/// How long an address has a head start before the next one is tried (RFC 8305 section 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// Connects to the first address that answers; each has a head start before the next.
pub(crate) async fn connect(addresses: &[SocketAddr]) -> Result<TcpStream, DialError> {
    let mut attempts = futures::stream::FuturesUnordered::new();
    let mut waiting = addresses.iter().copied();
    let mut failed = None;
    loop {
        if let Some(address) = waiting.next() {
            attempts.push(async move { (address, TcpStream::connect(address).await) });
        } else if attempts.is_empty() {
            return Err(failed.unwrap_or(DialError::NoEndpoint));
        }
        let wait = if waiting.len() == 0 { Duration::MAX } else { HEAD_START };
        let next = futures::StreamExt::next(&mut attempts);
        match tokio::time::timeout(wait, next).await {
            Ok(Some((_, Ok(stream)))) => return Ok(stream),
            Ok(Some((address, Err(source)))) => {
                failed = Some(DialError::Connect { address, source });
            }
            Ok(None) | Err(_) => {}
        }
    }
}
