//! The gateway's end of a session over this carrier: opens flows.

use std::io;
use std::sync::Arc;

use futures::future::BoxFuture;
use tunnel_proto::control::{self, Decoded};
use tunnel_proto::frame::Kind;
use tunnel_proto::message::{Open, Refused, RefusedReason};

use super::connection::Connection;
use super::flow::{Home as _, TlsFlow};
use super::pool::Pool;
use crate::link::{Carrier, Flow, Link, Measured, OpenError};
use crate::session::Ended;

/// Connections that may break under one flow before it is given up.
const TRIES: usize = 3;

/// Opens flows on the connections of a pool.
#[derive(Debug)]
pub(super) struct TlsLink {
    pub(super) pool: Arc<Pool>,
}

impl Link for TlsLink {
    fn carrier(&self) -> Carrier {
        Carrier::Tls
    }

    fn open(&self, open: Open) -> BoxFuture<'_, Result<Box<dyn Flow>, OpenError>> {
        Box::pin(async move {
            let open = control::encode_bare(&open);
            for _ in 0..TRIES {
                let connection = self.pool.take().await.ok_or(OpenError::Ended)?;
                let status = &self.pool.session().status;
                let answer = tokio::select! {
                    answer = ask(connection, &open) => answer,
                    () = status.until_dead() => return Err(OpenError::Ended),
                };
                match answer {
                    Ok((connection, None)) => {
                        let home = Arc::clone(&self.pool);
                        return Ok(Box::new(TlsFlow::new(connection, home)) as Box<dyn Flow>);
                    }
                    Ok((connection, Some(refused))) => {
                        Arc::clone(&self.pool).welcome(connection);
                        return Err(OpenError::Refused(refused));
                    }
                    // It broke while it was idle, most likely: the flow has not begun. Others may
                    // have broken with it, and the session's end may be on its way.
                    Err(error) => {
                        tracing::debug!(%error, "a flow connection broke");
                        status.doubt();
                        self.pool.look_at_idle();
                    }
                }
            }
            Err(OpenError::NoneReady)
        })
    }

    fn is_ready(&self) -> bool {
        self.pool.has_idle()
    }

    fn measured(&self) -> Measured {
        let session = self.pool.session();
        Measured {
            round_trip: session.status.round_trip(),
            bytes: session.bytes(),
            flows: session.flows(),
            ..Measured::default()
        }
    }

    fn close(&self) {
        self.pool.session().status.end(Ended::Here);
    }
}

/// Asks for a flow and waits for the answer. Given up, the connection is dropped, and the agent
/// learns from that.
async fn ask(mut connection: Connection, open: &[u8]) -> io::Result<(Connection, Option<Refused>)> {
    connection.send(Kind::Open, open)?;
    loop {
        let (kind, payload) = connection.next_frame().await?;
        match kind {
            Kind::Accepted => return Ok((connection, None)),
            Kind::Refused => {
                let refused = match control::decode_bare::<Refused>(&payload) {
                    Ok(Decoded::Message(refused)) => refused,
                    Ok(Decoded::Unknown(detail)) => {
                        Refused { reason: RefusedReason::NoEndpoint, detail }
                    }
                    Err(error) => {
                        return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                    }
                };
                return Ok((connection, Some(refused)));
            }
            // Late words about the flow before, and an answer to a question.
            Kind::Reset | Kind::Pong => {}
            Kind::Join | Kind::Open | Kind::Data | Kind::Fin | Kind::Datagram | Kind::Ping => {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }
}
