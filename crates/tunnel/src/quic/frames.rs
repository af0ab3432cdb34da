//! The frame or two with which a flow's stream begins.

use std::io;

use bytes::Bytes;
use quinn::{RecvStream, SendStream};
use tunnel_proto::control::{self, Decoded};
use tunnel_proto::frame::{self, Decoder, Kind, Piece};

use super::code;

/// Both halves of a stream that has not become a flow. Dropped, it is broken off.
#[derive(Debug)]
pub(super) struct Beginning(Option<(SendStream, RecvStream)>);

impl Beginning {
    pub(super) fn new(send: SendStream, recv: RecvStream) -> Self {
        Self(Some((send, recv)))
    }

    /// Sends a frame.
    pub(super) async fn send(&mut self, kind: Kind, payload: &[u8]) -> io::Result<()> {
        let bytes = frame::encode(kind, payload).map_err(nonsense)?;
        let (send, _) = self.0.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        send.write_all(&bytes).await?;
        Ok(())
    }

    /// Receives one frame, and the bytes that came with it.
    pub(super) async fn receive(&mut self) -> io::Result<(Kind, Vec<u8>, Bytes)> {
        let (_, recv) = self.0.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut decoder = Decoder::new();
        loop {
            let Some(chunk) = recv.read_chunk(usize::MAX, true).await? else {
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            let mut input = &chunk.bytes[..];
            match decoder.next(&mut input).map_err(nonsense)? {
                Some(Piece::Frame(kind, payload)) => {
                    let ahead = chunk.bytes.slice_ref(input);
                    return Ok((kind, payload.into_owned(), ahead));
                }
                Some(Piece::Data(_)) => return Err(nonsense("data before an answer")),
                None => {}
            }
        }
    }

    /// The stream, which is a flow from now on.
    pub(super) fn into_streams(mut self) -> io::Result<(SendStream, RecvStream)> {
        self.0.take().ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }

    /// Lets go of the stream in order: what was sent arrives.
    pub(super) fn finish(mut self) {
        if let Some((mut send, mut recv)) = self.0.take() {
            let _gone = send.finish();
            let _gone = recv.stop(code::OVER);
        }
    }
}

impl Drop for Beginning {
    fn drop(&mut self) {
        if let Some((send, recv)) = &mut self.0 {
            break_off(send, recv);
        }
    }
}

/// Breaks both directions off.
pub(super) fn break_off(send: &mut SendStream, recv: &mut RecvStream) {
    // Fails only where it is over already.
    let _over = send.reset(code::BROKEN_OFF);
    let _over = recv.stop(code::BROKEN_OFF);
}

/// Decodes a payload that must be understood.
pub(super) fn understand<T>(payload: &[u8]) -> io::Result<T>
where
    T: for<'a> minicbor::Decode<'a, ()>,
{
    match control::decode_bare(payload).map_err(nonsense)? {
        Decoded::Message(message) => Ok(message),
        Decoded::Unknown(what) => Err(nonsense(what)),
    }
}

pub(super) fn nonsense(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
