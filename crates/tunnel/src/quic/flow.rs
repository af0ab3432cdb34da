//! One flow on a stream.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use quinn::{RecvStream, SendStream};
use tokio::net::TcpStream;

use super::carried::Counted;
use super::datagrams::{Registered, StreamDatagrams};
use super::frames::break_off;
use super::relay;
use crate::link::{DatagramFlow, Ending, Flow, Meter};

/// An open flow on a stream. Dropped, it is broken off.
#[derive(Debug)]
pub(super) struct QuicFlow {
    streams: Option<(SendStream, RecvStream)>,
    /// Came with the answer.
    ahead: Bytes,
    registered: Option<Registered>,
    home: Counted,
}

impl QuicFlow {
    /// `registered` is there for a UDP flow.
    pub(super) fn new(
        streams: (SendStream, RecvStream),
        ahead: Bytes,
        registered: Option<Registered>,
        home: Counted,
    ) -> Self {
        Self { streams: Some(streams), ahead, registered, home }
    }

    async fn run(mut self, plain: TcpStream, first: Bytes, meter: Arc<Meter>) -> Ending {
        let Some((mut send, mut recv)) = self.streams.take() else { return Ending::Lost };
        let carried = Arc::clone(&self.home.0);
        let ahead = std::mem::take(&mut self.ahead);
        let relayed =
            relay::relay((&mut send, &mut recv), &plain, (first, ahead), &meter, &carried);
        let ending = tokio::select! {
            biased;
            ending = relayed => ending,
            () = carried.status.until_dead() => Ending::Lost,
        };
        if ending == Ending::Closed {
            // The connection must not be closed before what was sent has arrived.
            tokio::spawn(async move {
                let _gone = send.stopped().await;
                drop(self);
            });
        } else {
            break_off(&mut send, &mut recv);
            relay::reset(plain);
        }
        ending
    }
}

impl Flow for QuicFlow {
    fn relay(
        self: Box<Self>,
        plain: TcpStream,
        first: Bytes,
        meter: Arc<Meter>,
    ) -> BoxFuture<'static, Ending> {
        Box::pin((*self).run(plain, first, meter))
    }

    fn into_datagrams(mut self: Box<Self>) -> Box<dyn DatagramFlow> {
        let home = Counted::new(Arc::clone(&self.home.0));
        match (self.registered.take(), self.streams.take()) {
            (Some(registered), Some(streams)) => {
                Box::new(StreamDatagrams::new(home, registered, streams))
            }
            // Asked for on a flow that was opened for TCP: it carries none.
            (_, streams) => {
                self.streams = streams;
                Box::new(NoDatagrams)
            }
        }
    }
}

struct NoDatagrams;

impl DatagramFlow for NoDatagrams {
    fn send(&self, _payload: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn receive(&self) -> BoxFuture<'_, Option<Bytes>> {
        Box::pin(std::future::ready(None))
    }
}

impl Drop for QuicFlow {
    fn drop(&mut self) {
        if let Some((send, recv)) = &mut self.streams {
            break_off(send, recv);
        }
    }
}
