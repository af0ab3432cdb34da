//! Messages on a stream of bytes, as [`tunnel_proto::control`] spells them.

use std::fmt::Debug;
use std::io;

use bytes::{Buf as _, BytesMut};
use minicbor::{Decode, Encode};
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf,
};
use tunnel_proto::control::{self, Decoded, Decoder};

/// How many bytes are read at once. Messages are short; those that are not grow what decodes them.
const READ: usize = 4 << 10;

/// The receiving end of a stream that carries messages.
#[derive(Debug)]
pub(crate) struct Receiving<S> {
    stream: S,
    decoder: Decoder,
    received: BytesMut,
}

impl<S: AsyncRead + Unpin> Receiving<S> {
    /// The next message that this program knows; `None` at the orderly end. `heard` is called for
    /// whatever arrives. Can be cancelled without loss.
    pub(crate) async fn next<M>(&mut self, mut heard: impl FnMut()) -> io::Result<Option<M>>
    where
        M: for<'b> Decode<'b, ()>,
    {
        loop {
            while !self.received.is_empty() {
                let mut input = &self.received[..];
                let decoded = self.decoder.next::<M>(&mut input);
                let used = self.received.len() - input.len();
                self.received.advance(used);
                match decoded.map_err(nonsense)? {
                    Some(Decoded::Message(message)) => return Ok(Some(message)),
                    Some(Decoded::Unknown(what)) => tracing::debug!(what, "a message is skipped"),
                    None => {}
                }
            }
            self.received.reserve(READ);
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return match self.decoder.is_between_messages() {
                    true => Ok(None),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
            heard();
        }
    }
}

/// The sending end of a stream that carries messages.
#[derive(Debug)]
pub(crate) struct Sending<S> {
    stream: S,
}

impl<S: AsyncWrite + Unpin> Sending<S> {
    /// Sends a message. Cancelled halfway, it leaves the channel useless.
    pub(crate) async fn send<M: Encode<()>>(&mut self, message: &M) -> io::Result<()> {
        let bytes = control::encode(message).map_err(nonsense)?;
        self.stream.write_all(&bytes).await?;
        self.stream.flush().await
    }

    /// Says that no message follows.
    pub(crate) async fn finish(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }
}

/// A stream that carries messages both ways.
#[derive(Debug)]
pub(crate) struct Channel<R, W> {
    pub(crate) receiving: Receiving<R>,
    pub(crate) sending: Sending<W>,
}

impl<R, W> Channel<R, W> {
    /// Two streams that have carried nothing yet. Until [`Self::trust`], only short messages are
    /// taken.
    pub(crate) fn new(read: R, write: W) -> Self {
        let decoder = Decoder::new(control::LONGEST_FIRST);
        let receiving = Receiving { stream: read, decoder, received: BytesMut::new() };
        Self { receiving, sending: Sending { stream: write } }
    }

    /// Takes messages of every length from now on.
    pub(crate) fn trust(&mut self) {
        self.receiving.decoder.allow(control::LONGEST);
    }
}

impl<S: AsyncRead + AsyncWrite> Channel<ReadHalf<S>, WriteHalf<S>> {
    /// One stream for both ways.
    pub(crate) fn over(stream: S) -> Self {
        let (read, write) = tokio::io::split(stream);
        Self::new(read, write)
    }
}

fn nonsense(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
