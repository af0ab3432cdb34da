//! What both ends hold of a session, whatever carries it: messages in and out, the round-trip
//! time, whether it has ended and why.

mod channel;
mod control;
mod ended;
mod status;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::mpsc;
use tunnel_proto::message::{Hello, ToAgent, ToGateway, Welcome};

use crate::link::{Carrier, Incoming, Link};
use crate::peer::Identity;

pub(crate) use channel::Channel;
pub(crate) use control::Prepared;
pub use control::{Control, Message, Outbox, Signal};
pub use ended::Ended;
pub use status::Status;

/// The gateway's end of a session.
///
/// A newer session of the same agent takes over by [`Self::evict`].
#[derive(Debug)]
pub struct GatewaySession {
    /// The agent, as its certificate says.
    pub peer: Identity,
    /// How the agent introduced itself; its name is the one in the certificate.
    pub hello: Hello,
    /// Where the agent comes from.
    pub address: SocketAddr,
    /// Opens flows.
    pub link: Arc<dyn Link>,
    /// Messages. Hello, pings and pongs have been taken care of.
    pub control: Control<ToAgent, ToGateway>,
}

impl GatewaySession {
    /// Which carrier it is.
    #[must_use]
    pub fn carrier(&self) -> Carrier {
        self.link.carrier()
    }

    /// Gives way to a newer session of the same agent, and tells the agent so. Flows that are open
    /// go on until they end by themselves.
    pub fn evict(self, by: u64) {
        let _ended_already = self.control.send(ToAgent::Evicted { by });
        self.control.status().end(Ended::Evicted { by });
    }
}

/// The agent's end of a session.
#[derive(Debug)]
pub struct AgentSession {
    /// The gateway, as its certificate says.
    pub peer: Identity,
    /// How the gateway accepted.
    pub welcome: Welcome,
    /// Which carrier it is.
    pub carrier: Carrier,
    /// The gateway's address that answered.
    pub address: SocketAddr,
    /// Messages. Welcome, pings, pongs and evictions have been taken care of.
    pub control: Control<ToGateway, ToAgent>,
    /// Flows that the gateway wants to open. Ends with the session.
    pub flows: mpsc::Receiver<Incoming>,
    /// Where other connections of this session put theirs.
    pub(crate) more: mpsc::WeakSender<Incoming>,
}

/// The control channel of a gateway that has no certificate yet.
#[derive(Debug)]
pub struct Adoption<Out, In> {
    /// Where the other end is.
    pub address: SocketAddr,
    /// Who the other end is. An agent's certificate has been checked; a gateway has yet to prove
    /// that it is who it should be.
    pub peer: Identity,
    /// The TLS session's exporter (RFC 8446 section 7.5) for [`tunnel_proto::message::Proof`],
    /// with the label [`crate::adoption::EXPORTER_LABEL`] and no context.
    pub exporter: [u8; 32],
    /// Messages.
    pub control: Control<Out, In>,
}
