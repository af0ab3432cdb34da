//! The gateway's end: opens flows.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::future::BoxFuture;
use tunnel_proto::control::{self, Decoded};
use tunnel_proto::frame::Kind;
use tunnel_proto::message::{Open, Protocol, Refused, RefusedReason};

use super::carried::{Carried, Counted};
use super::code;
use super::flow::QuicFlow;
use super::frames::{Beginning, nonsense};
use crate::link::{Carrier, Flow, Link, Measured, OpenError};
use crate::session::Ended;

/// A session's flows over QUIC.
#[derive(Debug)]
pub(crate) struct QuicLink(pub(super) Arc<Carried>);

impl QuicLink {
    /// Whether flows can be opened.
    pub(crate) fn is_up(&self) -> bool {
        self.0.connection.close_reason().is_none() && self.0.status.ended().is_none()
    }

    /// Lets the flows that are open go on, and then closes the connection.
    pub(crate) fn retire(&self) {
        let carried = Arc::clone(&self.0);
        tokio::spawn(async move {
            carried.idle().await;
            carried.connection.close(code::OVER, b"");
        });
    }

    async fn ask(&self, open: Open) -> io::Result<Result<QuicFlow, Refused>> {
        let carried = &self.0;
        let (send, recv) = carried.connection.open_bi().await?;
        // Before the agent can send any.
        let registered = match open.protocol {
            Protocol::Tcp => None,
            Protocol::Udp => Some(carried.datagrams.register(send.id().index())),
        };
        let home = Counted::new(Arc::clone(carried));
        let mut stream = Beginning::new(send, recv);
        stream.send(Kind::Open, &control::encode_bare(&open)).await?;
        let (kind, payload, ahead) = match stream.receive().await {
            Ok(answer) => answer,
            // The agent broke the stream off, and the connection lives.
            Err(error) if carried.connection.close_reason().is_none() && is_end(&error) => {
                return Ok(Err(no_endpoint("the agent gave no answer")));
            }
            Err(error) => return Err(error),
        };
        carried.heard();
        match kind {
            Kind::Accepted => {
                let streams = stream.into_streams()?;
                Ok(Ok(QuicFlow::new(streams, ahead, registered, home)))
            }
            Kind::Refused => {
                stream.finish();
                Ok(Err(match control::decode_bare(&payload).map_err(nonsense)? {
                    Decoded::Message(refused) => refused,
                    Decoded::Unknown(detail) => no_endpoint(&detail),
                }))
            }
            Kind::Join
            | Kind::Open
            | Kind::Data
            | Kind::Fin
            | Kind::Reset
            | Kind::Datagram
            | Kind::Ping
            | Kind::Pong => Err(nonsense(format!("{kind:?} is no answer"))),
        }
    }
}

fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof)
}

/// A refusal after which another agent is asked.
fn no_endpoint(detail: &str) -> Refused {
    Refused { reason: RefusedReason::NoEndpoint, detail: detail.to_owned() }
}

impl Link for QuicLink {
    fn carrier(&self) -> Carrier {
        Carrier::Quic
    }

    fn open(&self, open: Open) -> BoxFuture<'_, Result<Box<dyn Flow>, OpenError>> {
        Box::pin(async {
            if self.0.status.ended().is_some() {
                return Err(OpenError::Ended);
            }
            let asked = tokio::select! {
                asked = self.ask(open) => asked,
                _ = self.0.status.until_ended() => return Err(OpenError::Ended),
            };
            match asked {
                Ok(Ok(flow)) => Ok(Box::new(flow) as Box<dyn Flow>),
                Ok(Err(refused)) => Err(OpenError::Refused(refused)),
                Err(error) => {
                    tracing::debug!(%error, "a flow could not be opened over quic");
                    Err(OpenError::Ended)
                }
            }
        })
    }

    fn measured(&self) -> Measured {
        let path = self.0.connection.stats().path;
        Measured {
            round_trip: Some(path.rtt),
            packets_sent: path.sent_packets,
            packets_lost: path.lost_packets,
            bytes: self.0.bytes.load(Ordering::Relaxed),
            flows: self.0.flows(),
        }
    }

    fn close(&self) {
        self.0.status.end(Ended::Here);
    }
}
