//! Sockets, TLS, QUIC and timers around [`tunnel_proto`].
//!
//! An agent dials and a gateway accepts; both then hold a session, whatever carries it. A *carrier*
//! moves the control channel and the flows of one session; [`link`] says what every carrier does,
//! and each passes the same tests.
//!
//! A gateway starts an [`acceptor::Acceptor`] and takes sessions from it; an agent calls
//! [`dialler::dial`]. What both then hold is in [`session`].

pub mod acceptor;
pub mod adoption;
pub mod auto;
pub mod cut;
pub mod dialler;
pub mod link;
pub mod peer;
pub mod quic;
pub mod session;
pub mod ssh;
pub mod trust;
pub mod windows;

mod tls;
