//! A flow of datagrams on a connection, each in a frame of its own.

use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::{Mutex, mpsc};
use tunnel_proto::frame::{Kind, LONGEST_OTHER};

use super::connection::Connection;
use super::flow::Counted;
use crate::link::DatagramFlow;

/// Datagrams that wait in either direction; what comes beyond is dropped, as UDP does.
const WAITING: usize = 256;

/// How long the other end may take to end the flow too.
const SETTLE: Duration = Duration::from_secs(2);

/// A flow of datagrams. The connection is with a task of its own.
#[derive(Debug)]
pub(super) struct Datagrams {
    outgoing: mpsc::Sender<Bytes>,
    incoming: Mutex<mpsc::Receiver<Bytes>>,
}

impl Datagrams {
    pub(super) fn start(connection: Connection, home: Counted) -> Self {
        let (outgoing, to_send) = mpsc::channel(WAITING);
        let (received, incoming) = mpsc::channel(WAITING);
        tokio::spawn(carry(connection, home, to_send, received));
        Self { outgoing, incoming: Mutex::new(incoming) }
    }
}

impl DatagramFlow for Datagrams {
    fn send(&self, payload: &[u8]) -> io::Result<()> {
        if payload.len() > LONGEST_OTHER {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        match self.outgoing.try_send(Bytes::copy_from_slice(payload)) {
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn receive(&self) -> BoxFuture<'_, Option<Bytes>> {
        Box::pin(async { self.incoming.lock().await.recv().await })
    }
}

async fn carry(
    mut connection: Connection,
    home: Counted,
    mut to_send: mpsc::Receiver<Bytes>,
    received: mpsc::Sender<Bytes>,
) {
    let status = home.session().status.clone();
    let carried = tokio::select! {
        carried = both_ways(&mut connection, &mut to_send, &received, &home) => carried,
        () = status.until_dead() => Err(io::ErrorKind::NotConnected.into()),
    };
    drop(received);
    drop(to_send);
    let Ok(there_ended) = carried else { return connection.abort() };
    let settled = tokio::time::timeout(SETTLE, async {
        connection.send(Kind::Fin, &[])?;
        connection.flush().await?;
        if there_ended {
            return Ok(());
        }
        loop {
            let kind = connection.next_frame().await?.0;
            if matches!(kind, Kind::Fin | Kind::Reset) {
                return Ok(());
            }
            if kind != Kind::Datagram {
                return Err(io::Error::from(io::ErrorKind::InvalidData));
            }
        }
    });
    match settled.await {
        Ok(Ok(())) => home.welcome(connection),
        _ => connection.abort(),
    }
}

/// Carries datagrams until one end ends the flow. Returns whether that was the other end.
async fn both_ways(
    connection: &mut Connection,
    to_send: &mut mpsc::Receiver<Bytes>,
    received: &mpsc::Sender<Bytes>,
    home: &Counted,
) -> io::Result<bool> {
    let meter = &home.session().meter;
    poll_fn(|cx| {
        loop {
            let mut moved = false;
            if connection.poll_flush(cx)?.is_ready() {
                match to_send.poll_recv(cx) {
                    Poll::Ready(Some(payload)) => {
                        connection.send(Kind::Datagram, &payload)?;
                        meter.add_out(payload.len());
                        moved = true;
                    }
                    Poll::Ready(None) => return Poll::Ready(Ok(false)),
                    Poll::Pending => {}
                }
            }
            match connection.poll_receive(cx, |_, _, pieces| pieces.is_empty())? {
                Poll::Ready((true, Some((Kind::Datagram, payload)))) => {
                    meter.add_back(payload.len());
                    // Nobody takes them as fast as they come: this one is lost.
                    let _lost = received.try_send(payload.into());
                    moved = true;
                }
                Poll::Ready((true, Some((Kind::Fin | Kind::Reset, _)))) => {
                    return Poll::Ready(Ok(true));
                }
                Poll::Ready((true, None)) => moved = true,
                Poll::Ready(_) => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
                Poll::Pending => {}
            }
            if !moved {
                connection.rest();
                return Poll::Pending;
            }
        }
    })
    .await
}
