//! The carrier over QUIC (RFC 9000): one connection is a session.
//!
//! The agent's first stream is the control channel. A flow is a stream that the gateway opens: a
//! frame says what is wanted, a frame answers, and from there on the stream has the flow's bytes
//! and nothing else. The datagrams of a UDP flow are datagrams (RFC 9221) that begin with the
//! number of the flow's stream; one that is too long for that has a stream of its own.

mod accept;
mod carried;
mod datagrams;
mod dial;
mod flow;
mod frames;
mod link;
mod relay;
mod setup;
#[cfg(test)]
pub(crate) mod stage;
#[cfg(test)]
mod tests;
mod unread;

pub(crate) use accept::accept;
pub use dial::dial;
pub(crate) use dial::{dial_in_turn, join};
pub(crate) use link::QuicLink;

/// Codes with which streams and connections are ended before their time.
mod code {
    use quinn::VarInt;

    /// The session is over.
    pub(super) const OVER: VarInt = VarInt::from_u32(0);
    /// The flow is broken off.
    pub(super) const BROKEN_OFF: VarInt = VarInt::from_u32(1);
    /// What was said makes no sense.
    pub(super) const NONSENSE: VarInt = VarInt::from_u32(2);
}
