//! Sockets, TLS, QUIC and timers around [`tunnel_proto`].
//!
//! An agent dials and a gateway accepts; both then hold a session, whatever carries it. A *carrier*
//! moves the control channel and the flows of one session; [`link`] says what every carrier does,
//! and each passes the same tests.

pub mod link;
