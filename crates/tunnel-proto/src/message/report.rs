//! What a gateway tells of itself: its ports, its sessions, its traffic.

use std::net::{IpAddr, SocketAddr};

use minicbor::{Decode, Encode};

use super::{Protocol, QuotaAction};

/// What a gateway does and sees. Sent after every change, and every few seconds.
#[derive(Clone, Debug, Decode, Default, Encode, PartialEq)]
pub struct Report {
    /// The revision of the wish that is in force.
    #[n(0)]
    pub revision: u64,
    /// Each published port of this cluster.
    #[n(1)]
    pub ports: Vec<PortReport>,
    /// Each session of this cluster's agents.
    #[n(2)]
    pub sessions: Vec<SessionReport>,
    /// The addresses that the gateway offers.
    #[n(3)]
    pub addresses: Vec<IpAddr>,
    /// Traffic in the current period, if it is counted.
    #[n(4)]
    pub quota: Option<QuotaReport>,
    /// What a person should know about the gateway, one sentence each: limits that are kept by the
    /// program because the kernel's are not available, socket buffers that are small.
    #[cbor(n(5), default)]
    pub notes: Vec<String>,
}

/// The state of a published port.
#[derive(Clone, Debug, Decode, Encode, PartialEq)]
pub struct PortReport {
    /// As wished.
    #[n(0)]
    pub address: Option<IpAddr>,
    /// As wished.
    #[n(1)]
    pub port: u16,
    /// As wished.
    #[n(2)]
    pub protocol: Protocol,
    /// What became of it.
    #[n(3)]
    pub state: PortState,
    /// Flows open now.
    #[n(4)]
    pub open: u64,
    /// Flows since the gateway began to count.
    #[n(5)]
    pub total: u64,
    /// Bytes from visitors.
    #[n(6)]
    pub received: u64,
    /// Bytes to visitors.
    #[n(7)]
    pub sent: u64,
    /// Flows that no agent took.
    #[n(8)]
    pub failed: u64,
    /// What the last probe of the public port found, once there was one.
    #[n(9)]
    pub probed: Option<Probed>,
}

/// A probe: the gateway dials its own public port through the kernel, and the flow goes the whole
/// way to the backend.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
pub struct Probed {
    /// When, in seconds since 1970.
    #[n(0)]
    pub at: u64,
    /// How far it came.
    #[n(1)]
    pub reached: Reached,
}

/// How far a probe came. Everything but [`Reached::Backend`] names the hop that fails.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
pub enum Reached {
    /// The backend answered, after this many microseconds.
    #[n(0)]
    Backend(#[n(0)] u64),
    /// The gateway does not have the port.
    #[n(1)]
    NotBound(#[n(0)] String),
    /// The port is bound, but connections do not come through: a packet filter.
    #[n(2)]
    Filtered(#[n(0)] String),
    /// No agent is connected.
    #[n(3)]
    NoLink,
    /// No connected agent has taken the flow.
    #[n(4)]
    Agent(#[n(0)] String),
    /// An agent took it, and the backend did not answer.
    #[n(5)]
    Endpoint(#[n(0)] String),
}

/// What became of a published port.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
pub enum PortState {
    /// It listens.
    #[n(0)]
    Listening,
    /// The gateway's own configuration does not grant it to this cluster.
    #[n(1)]
    NotGranted(#[n(0)] String),
    /// Someone else has it: another cluster or another program, named where that is known.
    #[n(2)]
    InUse(#[n(0)] String),
    /// The system refused it.
    #[n(3)]
    Failed(#[n(0)] String),
}

/// One agent's session as the gateway sees it.
#[derive(Clone, Debug, Decode, Encode, PartialEq)]
pub struct SessionReport {
    /// The agent.
    #[n(0)]
    pub agent: String,
    /// Its node.
    #[n(1)]
    pub node: Option<String>,
    /// The carrier, as in `quic` and `tls`.
    #[n(2)]
    pub carrier: String,
    /// Where it comes from.
    #[n(3)]
    pub address: SocketAddr,
    /// The smoothed round-trip time in microseconds; 0 when not yet known.
    #[n(4)]
    pub round_trip_us: u64,
    /// Flows open now.
    #[n(5)]
    pub flows: u64,
    /// Seconds since it began.
    #[n(6)]
    pub age_seconds: u64,
}

/// Traffic of the current period.
#[derive(Clone, Copy, Debug, Decode, Encode, Eq, PartialEq)]
pub struct QuotaReport {
    /// Bytes counted so far, both directions.
    #[n(0)]
    pub used: u64,
    /// Bytes allowed.
    #[n(1)]
    pub limit: u64,
    /// Seconds since 1970 when the next period begins.
    #[n(2)]
    pub resets_at: u64,
    /// What happens beyond; `None` from a gateway that does not tell.
    #[n(3)]
    pub action: Option<QuotaAction>,
    /// For [`QuotaAction::Shape`]: bits a second.
    #[n(4)]
    pub shape_bits_per_second: Option<u64>,
}
