//! The gateway's end: opens flows.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::future::BoxFuture;
use tunnel_proto::control;
use tunnel_proto::frame::Kind;
use tunnel_proto::message::{Open, Protocol, Refused};

use super::carried::{Carried, Counted};
use super::flow::QuicFlow;
use super::frames::{Beginning, nonsense, understand};
use crate::link::{Carrier, Flow, Link, Measured, OpenError};
use crate::session::Ended;

/// A session's flows over QUIC.
#[derive(Debug)]
pub(super) struct QuicLink(pub(super) Arc<Carried>);

impl QuicLink {
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
        let (kind, payload, ahead) = stream.receive().await?;
        carried.status.heard();
        match kind {
            Kind::Accepted => {
                let streams = stream.into_streams()?;
                Ok(Ok(QuicFlow::new(streams, ahead, registered, home)))
            }
            Kind::Refused => {
                let refused = understand(&payload)?;
                stream.finish();
                Ok(Err(refused))
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
