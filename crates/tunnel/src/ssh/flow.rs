//! A visitor's connection, as a channel of the SSH session.

use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::future::BoxFuture;
use russh::client::{ChannelOpenHandle, Msg};
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tunnel_proto::message::Refused;

use crate::link::{Answer, DatagramFlow, Ending, Flow, Meter};

/// How much is read from a backend at once.
const READ: usize = 32 << 10;

/// What happened at one published port.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) open: AtomicU64,
    pub(super) total: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) sent: AtomicU64,
}

/// A visitor who waits for an answer.
pub(super) struct Visitor {
    /// Confirms the channel, unless that has been done.
    pub(super) reply: Option<ChannelOpenHandle>,
    pub(super) read: ChannelReadHalf,
    pub(super) write: ChannelWriteHalf<Msg>,
    /// What the visitor has said already.
    pub(super) received: Bytes,
    pub(super) counters: Arc<Counters>,
}

impl Answer for Visitor {
    fn accept(self: Box<Self>) -> BoxFuture<'static, io::Result<Box<dyn Flow>>> {
        Box::pin(async move {
            let Self { reply, read, write, received, counters } = *self;
            if let Some(reply) = reply {
                reply.accept().await;
            }
            counters.total.fetch_add(1, Ordering::Relaxed);
            counters.open.fetch_add(1, Ordering::Relaxed);
            let open = Open(counters);
            Ok(Box::new(SshFlow { read, write, received, open }) as Box<dyn Flow>)
        })
    }

    fn refuse(self: Box<Self>, _why: Refused) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            self.counters.failed.fetch_add(1, Ordering::Relaxed);
            // Unconfirmed, dropping it says no.
            if self.reply.is_none() {
                let _gone = self.write.close().await;
            }
        })
    }
}

/// Counts a flow as long as it is open.
struct Open(Arc<Counters>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

struct SshFlow {
    read: ChannelReadHalf,
    write: ChannelWriteHalf<Msg>,
    received: Bytes,
    open: Open,
}

impl Flow for SshFlow {
    fn relay(
        self: Box<Self>,
        plain: TcpStream,
        first: Bytes,
        meter: Arc<Meter>,
    ) -> BoxFuture<'static, Ending> {
        Box::pin(async move {
            let Self { read, write, received, open } = *self;
            let (from_plain, to_plain) = plain.into_split();
            let out = outward(from_plain, &write, first, &meter, &open.0);
            let back = inward(read, to_plain, received, &meter, &open.0);
            // The first that breaks off ends the other as well.
            let ended = tokio::try_join!(out, back);
            let (ending, plain) = match ended {
                Ok((from_plain, to_plain)) => (Ending::Closed, from_plain.reunite(to_plain).ok()),
                Err(ending) => (ending, None),
            };
            drop(plain);
            let _gone = write.close().await;
            ending
        })
    }

    /// There are no datagrams here; whoever asks gets a flow that has ended.
    fn into_datagrams(self: Box<Self>) -> Box<dyn DatagramFlow> {
        Box::new(NoDatagrams)
    }
}

async fn outward(
    mut plain: OwnedReadHalf,
    channel: &ChannelWriteHalf<Msg>,
    first: Bytes,
    meter: &Meter,
    counters: &Counters,
) -> Result<OwnedReadHalf, Ending> {
    let count = |bytes: usize| {
        meter.add_out(bytes);
        counters.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    };
    if !first.is_empty() {
        count(first.len());
        channel.data_bytes(first).await.map_err(|_| Ending::Lost)?;
    }
    let mut space = vec![0; READ];
    loop {
        let read = plain.read(&mut space).await.map_err(|_| Ending::PlainReset)?;
        if read == 0 {
            channel.eof().await.map_err(|_| Ending::Lost)?;
            return Ok(plain);
        }
        count(read);
        let bytes = Bytes::copy_from_slice(space.get(..read).unwrap_or_default());
        channel.data_bytes(bytes).await.map_err(|_| Ending::Lost)?;
    }
}

async fn inward(
    mut channel: ChannelReadHalf,
    mut plain: OwnedWriteHalf,
    received: Bytes,
    meter: &Meter,
    counters: &Counters,
) -> Result<OwnedWriteHalf, Ending> {
    let mut next = Some(received);
    loop {
        if let Some(bytes) = next.take().filter(|it| !it.is_empty()) {
            meter.add_back(bytes.len());
            counters.received.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            plain.write_all(&bytes).await.map_err(|_| Ending::PlainReset)?;
        }
        match channel.wait().await {
            Some(ChannelMsg::Data { data }) => next = Some(data),
            Some(ChannelMsg::Eof) => {
                // The backend may have gone first.
                let _gone = plain.shutdown().await;
                return Ok(plain);
            }
            // Without an end of data before it: broken off.
            Some(ChannelMsg::Close) => return Err(reset(&plain, Ending::FarReset)),
            None => return Err(reset(&plain, Ending::Lost)),
            Some(_) => {}
        }
    }
}

/// A backend must not take a broken connection for one that ended.
fn reset(plain: &OwnedWriteHalf, ending: Ending) -> Ending {
    let stream: &TcpStream = plain.as_ref();
    let socket = socket2::SockRef::from(stream);
    if socket.set_linger(Some(std::time::Duration::ZERO)).is_err() {
        let _gone = socket.shutdown(Shutdown::Both);
    }
    ending
}

struct NoDatagrams;

impl DatagramFlow for NoDatagrams {
    fn send(&self, _payload: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn receive(&self) -> BoxFuture<'_, Option<Bytes>> {
        Box::pin(async { None })
    }
}
