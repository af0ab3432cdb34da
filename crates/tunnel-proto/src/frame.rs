//! What goes over a connection that carries one flow after another.
//!
//! Four bytes, then the payload: one byte of [`Kind`], three bytes of payload length, big-endian.
//! A flow ends when both sides have sent [`Kind::Fin`] or [`Kind::Reset`]; then the connection is
//! ready for the next one.

/// Bytes before each payload.
pub const HEADER: usize = 4;

/// The longest payload of a [`Kind::Data`] frame.
pub const LONGEST_DATA: usize = 256 * 1024;

/// The longest payload of every other frame.
pub const LONGEST_OTHER: usize = 66_000;

/// What a frame is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Kind {
    /// First on a connection, from the agent: the session's token.
    Join = 1,
    /// From the gateway: a flow begins ([`crate::message::Open`]).
    Open = 2,
    /// From the agent: the backend has answered.
    Accepted = 3,
    /// From the agent: no ([`crate::message::Refused`]); the connection is ready for the next flow.
    Refused = 4,
    /// Bytes of the flow.
    Data = 5,
    /// No more bytes from this side.
    Fin = 6,
    /// The flow is broken off from this side.
    Reset = 7,
    /// One UDP datagram.
    Datagram = 8,
    /// Asks whether an idle connection is alive.
    Ping = 9,
    /// It is.
    Pong = 10,
}
