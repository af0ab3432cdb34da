//! What every carrier does for a session.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::net::TcpStream;
use tunnel_proto::message::{Open, Refused};

/// Which carrier it is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Carrier {
    /// QUIC (RFC 9000): flows are streams, datagrams are datagrams (RFC 9221).
    Quic,
    /// TLS 1.3 over TCP, a connection for each flow.
    Tls,
    /// A plain OpenSSH server with remote forwarding.
    Ssh,
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Quic => "quic",
            Self::Tls => "tls",
            Self::Ssh => "ssh",
        })
    }
}

/// The gateway's end of a session, as far as flows are concerned.
pub trait Link: fmt::Debug + Send + Sync {
    /// Which carrier it is.
    fn carrier(&self) -> Carrier;

    /// Opens a flow and waits for the agent's answer. Dropping the future gives the flow up: an
    /// answer that comes later is met with a reset.
    fn open(&self, open: Open) -> BoxFuture<'_, Result<Box<dyn Flow>, OpenError>>;

    /// Whether a flow can be opened at once. Otherwise it waits for a connection to be dialled.
    fn is_ready(&self) -> bool {
        true
    }

    /// What the carrier has measured.
    fn measured(&self) -> Measured;

    /// Ends every flow and the session.
    fn close(&self);
}

/// Why a flow could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The agent says no.
    #[error("the agent refused the flow: {}", .0.detail)]
    Refused(Refused),
    /// The session is gone, or went while the answer was awaited.
    #[error("the session has ended")]
    Ended,
    /// No connection was ready and none came in time.
    #[error("no flow connection is ready")]
    NoneReady,
}

/// What a carrier has measured, for the choice of the next carrier and for people.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Measured {
    /// The smoothed round-trip time, if there is one.
    pub round_trip: Option<Duration>,
    /// Packets sent, where the carrier counts them.
    pub packets_sent: u64,
    /// Packets lost, where the carrier counts them.
    pub packets_lost: u64,
    /// Bytes of flows, both directions.
    pub bytes: u64,
    /// Flows open now.
    pub flows: u64,
}

/// An open flow, at either end.
pub trait Flow: Send {
    /// Carries bytes between `plain` and the other end until both directions have ended, or one
    /// end broke off. `first` goes to the other end before what `plain` has. A half-closed
    /// direction stays half-closed; a reset arrives as a reset.
    fn relay(
        self: Box<Self>,
        plain: TcpStream,
        first: Bytes,
        meter: Arc<Meter>,
    ) -> BoxFuture<'static, Ending>;

    /// Uses the flow for datagrams.
    fn into_datagrams(self: Box<Self>) -> Box<dyn DatagramFlow>;
}

/// An open flow of datagrams, at either end. Boundaries are kept; datagrams may be lost, never
/// merged. The flow ends when this is dropped.
pub trait DatagramFlow: Send + Sync {
    /// Sends one datagram, or drops it when the carrier's queue is full. Never waits for the network.
    fn send(&self, payload: &[u8]) -> io::Result<()>;

    /// The next datagram; `None` when the other end has ended the flow or the session is gone.
    fn receive(&self) -> BoxFuture<'_, Option<Bytes>>;
}

/// How a flow ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ending {
    /// Both directions were closed in order.
    Closed,
    /// The plain side broke off.
    PlainReset,
    /// The other end broke off.
    FarReset,
    /// What carried it was lost.
    Lost,
}

/// Bytes of a flow, counted while they flow. Shared by everyone who wants to know.
#[derive(Debug, Default)]
pub struct Meter {
    /// From `plain` to the other end.
    pub out: AtomicU64,
    /// From the other end to `plain`.
    pub back: AtomicU64,
}

impl Meter {
    /// Counts bytes from `plain` to the other end.
    pub fn add_out(&self, bytes: usize) {
        self.out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts bytes from the other end to `plain`.
    pub fn add_back(&self, bytes: usize) {
        self.back.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// A flow that a gateway wants to open, at the agent's end.
pub struct Incoming {
    /// What is wanted.
    pub open: Open,
    /// Says yes or no.
    pub answer: Box<dyn Answer>,
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("open", &self.open).finish_non_exhaustive()
    }
}

/// The agent's answer to an [`Incoming`] flow. Dropped without an answer, the flow is reset.
pub trait Answer: Send {
    /// Takes the flow: say so once the backend has answered.
    fn accept(self: Box<Self>) -> BoxFuture<'static, io::Result<Box<dyn Flow>>>;

    /// Does not take it.
    fn refuse(self: Box<Self>, why: Refused) -> BoxFuture<'static, ()>;
}
