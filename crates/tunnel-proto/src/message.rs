//! What agent and gateway say to each other on the control channel, and with each flow.
//!
//! Encoded as CBOR (RFC 8949) with numbered fields: a field that a reader does not know is
//! skipped, a field that a writer does not know is absent. A number, once given, is never given
//! to something else.

mod report;

use std::net::{IpAddr, SocketAddr};

use minicbor::{Decode, Encode};

pub use report::{PortReport, PortState, Probed, QuotaReport, Reached, Report, SessionReport};

/// The version of these messages. Sides with different versions speak the lower one.
pub const VERSION: u16 = 1;

/// What an agent says to a gateway.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
pub enum ToGateway {
    /// Begins a session.
    #[n(0)]
    Hello(#[n(0)] Hello),
    /// What the gateway shall listen on from now on, complete.
    #[n(1)]
    Desired(#[n(0)] Desired),
    /// Which backends this agent can reach: what changed since it last said so.
    #[n(2)]
    Serving(#[n(0)] Vec<Serving>),
    /// Asks for a [`ToAgent::Pong`] with the same number.
    #[n(3)]
    Ping(#[n(0)] u64),
    /// Answers a [`ToAgent::Ping`].
    #[n(4)]
    Pong(#[n(0)] u64),
    /// The agent is going away: no new flows, please.
    #[n(5)]
    Drain,
    /// The certificate that the gateway asked for.
    #[n(6)]
    Certificate(#[n(0)] Certificate),
    /// The first half of adoption: the agent knows the one-time secret.
    #[n(7)]
    Adopt(#[n(0)] Proof),
    /// The second half of adoption: the secret itself, sent once the gateway has proved itself.
    #[n(8)]
    Reveal(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
}

/// What a gateway says to an agent.
#[derive(Clone, Debug, Decode, Encode, PartialEq)]
pub enum ToAgent {
    /// Accepts a session.
    #[n(0)]
    Welcome(#[n(0)] Welcome),
    /// What the gateway does and sees.
    #[n(1)]
    Report(#[n(0)] Report),
    /// Asks for a [`ToGateway::Pong`] with the same number.
    #[n(3)]
    Ping(#[n(0)] u64),
    /// Answers a [`ToGateway::Ping`].
    #[n(4)]
    Pong(#[n(0)] u64),
    /// The gateway is going away: go on with the flows that are open, expect no new ones.
    #[n(5)]
    Drain,
    /// A newer session of the same agent has taken over.
    #[n(6)]
    Evicted {
        /// The epoch of the newer session.
        #[n(0)]
        by: u64,
    },
    /// The gateway needs a certificate: a PKCS #10 request (RFC 2986), DER.
    #[n(7)]
    CertificateWanted(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// The gateway's half of adoption.
    #[n(8)]
    Adopting(#[n(0)] Proof),
    /// How many idle flow connections the agent should keep ready (carriers that have a
    /// connection for each flow).
    #[n(9)]
    Spare(#[n(0)] u32),
}

/// Begins a session.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
pub struct Hello {
    /// The newest [`VERSION`] that the agent speaks.
    #[n(0)]
    pub version: u16,
    /// The agent's name; must be the one in its certificate.
    #[n(1)]
    pub agent: String,
    /// The node that the agent runs on, if it runs on one.
    #[n(2)]
    pub node: Option<String>,
    /// Grows with each session of this agent. A gateway keeps the session with the highest.
    #[n(3)]
    pub epoch: u64,
    /// The program's version, for people.
    #[n(4)]
    pub program: String,
}

/// Accepts a session.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
pub struct Welcome {
    /// The version that both sides speak.
    #[n(0)]
    pub version: u16,
    /// The gateway's name; must be the one in its certificate.
    #[n(1)]
    pub gateway: String,
    /// What each flow connection of this session presents first.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub token: [u8; 16],
    /// Where the gateway saw the agent come from.
    #[n(3)]
    pub agent_address: SocketAddr,
    /// Idle flow connections to keep ready, to begin with.
    #[n(4)]
    pub spare: u32,
    /// The program's version, for people.
    #[n(5)]
    pub program: String,
}

/// What a gateway shall listen on.
#[derive(Clone, Debug, Default, Decode, Encode, Eq, PartialEq)]
pub struct Desired {
    /// Orders the wishes of several agents: a gateway ignores a wish that is older than the one it has.
    #[n(0)]
    pub revision: u64,
    /// Every port, ordered by address, protocol and port; each triple at most once.
    #[n(1)]
    pub ports: Vec<PublishedPort>,
    /// The traffic that the cluster wants to stay within. A gateway's own configuration can be
    /// stricter, never laxer.
    #[n(2)]
    pub quota: Option<QuotaWish>,
}

/// How much traffic a month may have, and what happens beyond.
#[derive(Clone, Copy, Debug, Decode, Encode, Eq, PartialEq)]
pub struct QuotaWish {
    /// Bytes a month, both directions.
    #[n(0)]
    pub bytes: u64,
    /// The day of the month, in UTC, on which a new month begins; later than the month's last day
    /// means its last day.
    #[n(1)]
    pub reset_day: u8,
    /// What happens beyond.
    #[n(2)]
    pub action: QuotaAction,
    /// For [`QuotaAction::Shape`]: bits a second, both directions together.
    #[n(3)]
    pub shape_bits_per_second: u64,
}

/// What happens when a month's traffic is used up.
#[derive(Clone, Copy, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(index_only)]
pub enum QuotaAction {
    /// It is said, and nothing else.
    #[n(0)]
    Warn,
    /// Flows become slow.
    #[n(1)]
    Shape,
    /// New flows are refused, and open ones are closed.
    #[n(2)]
    Stop,
}

/// A gateway address and port that leads to backends.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
pub struct PublishedPort {
    /// One of the gateway's addresses; `None` means all of them.
    #[n(0)]
    pub address: Option<IpAddr>,
    /// The port.
    #[n(1)]
    pub port: u16,
    /// The protocol.
    #[n(2)]
    pub protocol: Protocol,
    /// Who asked for it, for messages: `Service web/blog`, `Gateway infra/public listener https`.
    #[n(3)]
    pub owner: String,
    /// Where it leads.
    #[n(4)]
    pub route: Route,
    /// Who may connect; empty means everyone.
    #[n(5)]
    pub allow_from: Vec<Range>,
    /// What one source address may do.
    #[n(6)]
    pub limits: Limits,
    /// How long a UDP flow lives without a datagram, in seconds; 0 means the gateway's default.
    #[n(7)]
    pub idle_seconds: u32,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, Decode, Encode, Eq, Ord, PartialEq, PartialOrd)]
#[cbor(index_only)]
pub enum Protocol {
    /// TCP.
    #[n(0)]
    Tcp,
    /// UDP.
    #[n(1)]
    Udp,
}

/// Where a published port leads.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
pub enum Route {
    /// Every flow to one backend.
    #[n(0)]
    Backend(#[n(0)] String),
    /// By the server name in the visitor's TLS greeting (RFC 6066 section 3), which stays unbroken.
    #[n(1)]
    ServerName(#[n(0)] Vec<NamedBackend>),
    /// Listened on, and every flow refused: nothing to lead to yet.
    #[n(2)]
    Nowhere,
}

impl Route {
    /// The key that is named where nobody shall answer: a server name that belongs to somebody who
    /// has nothing for it. No agent ever serves it.
    pub const NOBODY: &'static str = "nobody";
}

/// A backend for the visitors that ask for a name.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
pub struct NamedBackend {
    /// A host name in lower case, `*.example.com`, or empty for every name and for none. The most
    /// specific match wins: whole names before wildcards, longer wildcards before shorter.
    #[n(0)]
    pub name: String,
    /// The backend's key; agents know what it stands for.
    #[n(1)]
    pub backend: String,
}

/// An address range in CIDR notation.
#[derive(Clone, Copy, Debug, Decode, Encode, Eq, Ord, PartialEq, PartialOrd)]
pub struct Range {
    /// The network address.
    #[n(0)]
    pub address: IpAddr,
    /// How many leading bits count.
    #[n(1)]
    pub prefix: u8,
}

/// What one source address may do at a published port; 0 means no limit.
#[derive(Clone, Copy, Debug, Decode, Default, Encode, Eq, PartialEq)]
pub struct Limits {
    /// New connections a second.
    #[n(0)]
    pub new_per_second: u32,
    /// Connections open at one time.
    #[n(1)]
    pub open: u32,
}

/// Whether an agent can serve a backend.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
pub struct Serving {
    /// The backend's key.
    #[n(0)]
    pub backend: String,
    /// How well.
    #[n(1)]
    pub reach: Reach,
}

/// How well an agent can serve a backend. Greater is better.
#[derive(Clone, Copy, Debug, Decode, Encode, Eq, Ord, PartialEq, PartialOrd)]
#[cbor(index_only)]
pub enum Reach {
    /// No ready endpoint, or none that this agent may use.
    #[n(0)]
    None,
    /// Ready endpoints on other nodes.
    #[n(1)]
    Remote,
    /// A ready endpoint on the agent's own node.
    #[n(2)]
    Local,
}

/// A certificate for the gateway.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
pub struct Certificate {
    /// X.509, DER; empty when the present one stays and only the authorities change.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub certificate: Vec<u8>,
    /// Every authority to trust from now on, X.509, DER: one, or two while one replaces the other.
    #[n(1)]
    pub authorities: Vec<minicbor::bytes::ByteVec>,
}

/// Shows knowledge of the one-time secret on this very TLS session: an HMAC over its exporter
/// (RFC 8446 section 7.5) and the side's name.
#[derive(Clone, Copy, Debug, Decode, Encode, Eq, PartialEq)]
pub struct Proof(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 32]);

/// Opens a flow; from gateway to agent, first thing on the flow's channel.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
pub struct Open {
    /// The backend's key.
    #[n(0)]
    pub backend: String,
    /// The transport.
    #[n(1)]
    pub protocol: Protocol,
    /// The visitor.
    #[n(2)]
    pub visitor: SocketAddr,
    /// The address and port that the visitor dialled.
    #[n(3)]
    pub dialled: SocketAddr,
    /// The name that the visitor asked for, if it was looked at.
    #[n(4)]
    pub server_name: Option<String>,
    /// The gateway probes: there is no visitor, and the flow ends as soon as the backend has
    /// answered. With the PROXY protocol, version 2, the command is `LOCAL`.
    #[cbor(n(5), default)]
    pub probe: bool,
}

/// Why an agent takes no flow.
#[derive(Clone, Debug, Decode, Encode, Eq, PartialEq)]
pub struct Refused {
    /// What kind of refusal it is.
    #[n(0)]
    pub reason: RefusedReason,
    /// In words.
    #[n(1)]
    pub detail: String,
}

/// What kind of refusal it is.
#[derive(Clone, Copy, Debug, Decode, Encode, Eq, PartialEq)]
#[cbor(index_only)]
pub enum RefusedReason {
    /// This agent does not know the backend, or no endpoint is ready: another agent may.
    #[n(0)]
    NoEndpoint,
    /// The backend refused the connection: another agent would fare no better.
    #[n(1)]
    BackendRefused,
    /// The backend did not answer in time.
    #[n(2)]
    BackendTimeout,
    /// The agent is going away: ask another.
    #[n(3)]
    Draining,
    /// By weight, this flow falls to a backend that is invalid (Gateway API, `BackendRef`).
    #[n(4)]
    InvalidBackend,
}
