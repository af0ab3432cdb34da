//! A TLS connection over TCP that carries frames, or the bytes of a control channel.

use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tunnel_proto::frame::{self, Decoder, Kind, Piece};

use super::handshake::{Handshake, Said, Shaken};
use super::records::{Records, sealed_length};
use super::scratch::{CHUNK, CIPHER, Pieces, Scratch};
use crate::session::Status;

/// How long sent bytes may stay without an acknowledgement (`TCP_USER_TIMEOUT`).
const UNACKNOWLEDGED: Duration = Duration::from_secs(6);

/// How long a connection may be silent before the kernel asks whether it lives. Keeps mappings of
/// routers on the way, too.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// More than any handshake needs to read before it can go on.
const LONGEST_GREETING: usize = 64 << 10;

/// A TLS connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    records: Records,
    /// The beginning of a record whose end has not come yet.
    partial: Vec<u8>,
    /// Decrypted and not yet looked at, from `opened_at` on.
    opened: Vec<u8>,
    opened_at: usize,
    decoder: Decoder,
    /// Encrypted and not yet sent, from `unsent_at` on.
    unsent: Vec<u8>,
    unsent_at: usize,
    closed: bool,
    /// Of the session that it belongs to.
    status: Option<Status>,
}

/// A connection whose ends know each other.
#[derive(Debug)]
pub(super) struct Established {
    pub(super) connection: Connection,
    /// The verified chain of the other end, leaf first.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// The agreed protocol.
    pub(super) alpn: Vec<u8>,
}

/// Settings of every socket in a tunnel.
pub(super) fn set_up(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    // The receive buffer is the kernel's to size: it grows with the path. So does the send buffer,
    // but only up to a limit that is too small for long fat paths.
    if let Some(most) = *SEND_BUFFER {
        socket.set_send_buffer_size(most)?;
    }
    socket.set_tcp_notsent_lowat(UNSENT)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 6);
    socket.set_tcp_keepalive(&keepalive)
}

/// The most that may wait in a socket before it is sent (`TCP_NOTSENT_LOWAT`). What is on the way
/// does not count, so a slow reader holds little memory and a long path is still filled.
const UNSENT: u32 = 512 << 10;

/// The send buffer to ask for, where asking gives more than the kernel would by itself.
static SEND_BUFFER: LazyLock<Option<usize>> = LazyLock::new(|| {
    // Enough for 1 Gbit/s at 100 ms, which the kernel counts with what it needs itself.
    const WISH: usize = 32 << 20;
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).ok()?;
    socket.set_send_buffer_size(WISH).ok()?;
    let given = socket.send_buffer_size().ok()?;
    let limits = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_wmem").ok()?;
    let grows_to: usize = limits.split_whitespace().nth(2)?.parse().ok()?;
    (given > grows_to).then_some(WISH)
});

impl Connection {
    /// Shakes hands. `received` is what was read from the stream before.
    pub(super) async fn establish(
        mut stream: TcpStream,
        mut handshake: Handshake,
        received: Vec<u8>,
    ) -> io::Result<Established> {
        let mut said = Said { received, ..Said::default() };
        loop {
            let shaken;
            (handshake, said, shaken) = handshake.shake_aside(said).await?;
            if !said.out.is_empty() {
                let sent = stream.write_all(&said.out).await;
                said.out.clear();
                if shaken.is_ok() {
                    sent?;
                }
            }
            match shaken? {
                Shaken::Done => break,
                Shaken::More if said.received.len() > LONGEST_GREETING => {
                    return Err(nonsense("a handshake that is too long"));
                }
                Shaken::More => {}
            }
            said.received.reserve(2 << 10);
            if stream.read_buf(&mut said.received).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let Said { mut received, plain: opened, out: _ } = said;
        let (chain, alpn) = (handshake.peer_certificates().to_vec(), handshake.alpn().to_vec());
        received.shrink_to_fit();
        let connection = Self {
            stream,
            records: handshake.finish()?,
            partial: received,
            opened,
            opened_at: 0,
            decoder: Decoder::new(),
            unsent: Vec::new(),
            unsent_at: 0,
            closed: false,
            status: None,
        };
        Ok(Established { connection, chain, alpn })
    }

    /// Bytes that come from now on are signs of life of this session.
    pub(super) fn belongs_to(&mut self, status: Status) {
        self.status = Some(status);
    }

    /// Breaks it off at once: the other end sees a reset.
    pub(super) fn abort(self) {
        // Without it, what is unsent would still be sent.
        let _already_broken = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// Whether something has not been sent yet.
    pub(super) fn has_unsent(&self) -> bool {
        self.unsent_at < self.unsent.len()
    }

    /// Whether everything has been sent and nothing has come that was not looked at.
    pub(super) fn is_at_rest(&self) -> bool {
        !self.has_unsent()
            && self.opened_at == self.opened.len()
            && self.partial.is_empty()
            && self.decoder.is_between_frames()
            && !self.closed
    }

    /// Encrypts a frame and sends it as far as that goes at once; [`Self::poll_flush`] sends the
    /// rest.
    pub(super) fn send(&mut self, kind: Kind, payload: &[u8]) -> io::Result<()> {
        let header = frame::header(kind, payload.len()).map_err(nonsense)?;
        Scratch::with(|scratch| {
            let Scratch { frame, cipher, .. } = scratch;
            let (front, back) = frame.split_at_mut(header.len());
            front.copy_from_slice(&header);
            let Some(space) = back.get_mut(..payload.len()) else {
                return Err(nonsense("a frame that is too long"));
            };
            space.copy_from_slice(payload);
            self.send_frame(frame, header.len() + payload.len(), cipher)
        })
    }

    /// Encrypts the first `length` bytes of `frame` by way of `cipher` and sends as much as goes.
    fn send_frame(&mut self, frame: &[u8], length: usize, cipher: &mut [u8]) -> io::Result<()> {
        let plain = frame.get(..length).unwrap_or_default();
        let sealed = self.records.seal(plain, cipher)?;
        self.pass_on(cipher.get(..sealed).unwrap_or_default())
    }

    /// Sends records, or keeps them until they can be sent.
    fn pass_on(&mut self, records: &[u8]) -> io::Result<()> {
        let mut sent = 0;
        if self.unsent.is_empty() {
            sent = match self.stream.try_write(records) {
                Ok(sent) => sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error),
            };
        }
        self.unsent.extend_from_slice(records.get(sent..).unwrap_or_default());
        Ok(())
    }

    /// Sends what is left to send.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.unsent_at < self.unsent.len() {
            let rest = self.unsent.get(self.unsent_at..).unwrap_or_default();
            let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unsent_at += sent;
        }
        if self.unsent_at > 0 {
            self.unsent = Vec::new();
            self.unsent_at = 0;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads from `plain` once, and sends what came as a frame. Returns how much came; 0 means the
    /// end. Everything must have been sent before.
    pub(super) fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        plain: &mut TcpStream,
    ) -> Poll<Result<usize, Broken>> {
        Scratch::with(|scratch| {
            let Scratch { frame, cipher, .. } = scratch;
            let (front, back) = frame.split_at_mut(frame::HEADER);
            let mut space = ReadBuf::new(back.get_mut(..CHUNK).unwrap_or_default());
            ready!(Pin::new(plain).poll_read(cx, &mut space)).map_err(|_| Broken::Plain)?;
            let came = space.filled().len();
            if came > 0 {
                let header = frame::header(Kind::Data, came).map_err(|_| Broken::Far)?;
                front.copy_from_slice(&header);
                self.send_frame(frame, frame::HEADER + came, cipher).map_err(|_| Broken::Far)?;
            }
            Poll::Ready(Ok(came))
        })
    }

    /// Keeps less memory until bytes move again.
    pub(super) fn rest(&mut self) {
        self.records.rest();
    }

    /// Receives what there is, up to the first frame that is not [`Kind::Data`], and returns that
    /// frame if there is one. `sink` is given the bytes of the flow before it, as parts of a slice.
    pub(super) fn poll_receive<T>(
        &mut self,
        cx: &mut Context<'_>,
        sink: impl FnOnce(&mut Context<'_>, &[u8], &Pieces) -> T,
    ) -> Poll<io::Result<(T, Option<Frame>)>> {
        Scratch::with(|scratch| {
            scratch.pieces.clear();
            if self.opened_at < self.opened.len() {
                let rest = self.opened.get(self.opened_at..).unwrap_or_default();
                let whole = 0..rest.len();
                let input = std::slice::from_ref(&whole);
                let (used, frame) = split(&mut self.decoder, rest, input, &mut scratch.pieces)?;
                let sunk = sink(cx, rest, &scratch.pieces);
                self.opened_at += used.end;
                if self.opened_at >= self.opened.len() {
                    self.opened = Vec::new();
                    self.opened_at = 0;
                }
                return Poll::Ready(Ok((sunk, frame)));
            }
            ready!(self.poll_open(cx, scratch))?;
            let Scratch { cipher, found, pieces, .. } = scratch;
            let (used, frame) = split(&mut self.decoder, cipher, found, pieces)?;
            for part in found.get(used.part..).unwrap_or_default() {
                let part = part.start.max(used.end)..part.end;
                self.opened.extend_from_slice(cipher.get(part).unwrap_or_default());
            }
            Poll::Ready(Ok((sink(cx, cipher, pieces), frame)))
        })
    }

    /// Reads once and decrypts what came, in [`Scratch::cipher`].
    fn poll_open(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Poll<io::Result<()>> {
        if self.closed {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        let Scratch { cipher, found, .. } = scratch;
        let kept = self.partial.len();
        let Some((front, back)) = cipher.split_at_mut_checked(kept) else {
            return Poll::Ready(Err(nonsense("a record that is too long")));
        };
        // After a handshake there may be whole records already.
        let mut came = 0;
        if !self.has_record() {
            let room = back.len().min(CIPHER);
            let mut space = ReadBuf::new(back.get_mut(..room).unwrap_or_default());
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut space))?;
            came = space.filled().len();
            if came == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            if let Some(status) = &self.status {
                status.heard();
            }
        }
        front.copy_from_slice(&self.partial);
        self.partial.clear();
        found.clear();
        let bytes = cipher.get_mut(..kept + came).unwrap_or_default();
        let opened = self.records.open(bytes, found)?;
        self.closed = opened.closed;
        match bytes.get(opened.used..) {
            Some(rest) if !rest.is_empty() => self.partial.extend_from_slice(rest),
            _ => self.partial = Vec::new(),
        }
        Poll::Ready(Ok(()))
    }

    /// Whether a whole record waits to be decrypted.
    fn has_record(&self) -> bool {
        match self.partial.as_slice() {
            [_, _, _, high, low, rest @ ..] => {
                rest.len() >= usize::from(u16::from_be_bytes([*high, *low]))
            }
            _ => false,
        }
    }

    /// The next frame that is not [`Kind::Data`]; data is dropped. Can be cancelled without loss.
    pub(super) async fn next_frame(&mut self) -> io::Result<Frame> {
        poll_fn(|cx| {
            loop {
                // Frames come even while there is something left to send.
                let _all_sent = self.poll_flush(cx)?;
                match self.poll_receive(cx, |_, _, _| ())? {
                    Poll::Ready(((), Some(frame))) => return Poll::Ready(Ok(frame)),
                    Poll::Ready(((), None)) => {}
                    Poll::Pending => {
                        self.rest();
                        return Poll::Pending;
                    }
                }
            }
        })
        .await
    }

    /// Takes note of what came while nobody waited for anything. Returns whether something came.
    ///
    /// # Errors
    ///
    /// When the connection has ended, or what came makes no sense outside of a flow.
    pub(super) fn look_aside(&mut self) -> io::Result<bool> {
        let cx = &mut Context::from_waker(Waker::noop());
        let mut came = false;
        loop {
            let _all_sent = self.poll_flush(cx)?;
            match self.poll_receive(cx, |_, _, pieces| pieces.is_empty())? {
                Poll::Pending => return Ok(came),
                Poll::Ready((true, None | Some((Kind::Pong | Kind::Reset, _)))) => {}
                Poll::Ready(_) => return Err(nonsense("a frame out of turn")),
            }
            came = true;
        }
    }

    /// As if so much had been sent that the next record needs a new key.
    #[cfg(test)]
    pub(super) fn wear_out_keys(&mut self) {
        self.records.wear_out();
    }

    /// Sends what is left to send.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }
}

/// Where the session has ended because nothing was heard, an orderly end would wait behind what was
/// never acknowledged: a reset goes out at once, and passes where only the other direction is dead.
impl Drop for Connection {
    fn drop(&mut self) {
        let ended = self.status.as_ref().and_then(Status::ended);
        if ended.is_some_and(|it| it.is_silence()) {
            // Fails only where it is broken already.
            let _broken = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

/// Which side of a flow broke.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Broken {
    /// The visitor or the backend.
    Plain,
    /// The tunnel.
    Far,
}

/// A frame that is not [`Kind::Data`].
pub(super) type Frame = (Kind, Vec<u8>);

/// How much of its input [`split`] has used.
struct Used {
    /// The part that was looked at last, and where in the whole it was left.
    part: usize,
    end: usize,
}

/// Finds bytes of the flow in parts of `bytes`, up to the first frame that is something else.
fn split(
    decoder: &mut Decoder,
    bytes: &[u8],
    parts: &[Range<usize>],
    pieces: &mut Pieces,
) -> io::Result<(Used, Option<Frame>)> {
    for (number, part) in parts.iter().enumerate() {
        let mut input = bytes.get(part.clone()).unwrap_or_default();
        while let Some(piece) = decoder.next(&mut input).map_err(nonsense)? {
            let end = part.end - input.len();
            match piece {
                Piece::Data(data) => pieces.push(end - data.len()..end),
                Piece::Frame(kind, payload) => {
                    let frame = (kind, payload.into_owned());
                    return Ok((Used { part: number, end }, Some(frame)));
                }
            }
        }
    }
    let end = parts.last().map_or(0, |it| it.end);
    Ok((Used { part: parts.len(), end }, None))
}

/// Bytes of a control channel.
impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        space: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.opened_at == this.opened.len() {
            if this.closed {
                return Poll::Ready(Ok(()));
            }
            this.opened.clear();
            this.opened_at = 0;
            ready!(Scratch::with(|scratch| {
                ready!(this.poll_open(cx, scratch))?;
                for part in &scratch.found {
                    let part = scratch.cipher.get(part.clone()).unwrap_or_default();
                    this.opened.extend_from_slice(part);
                }
                Poll::Ready(io::Result::Ok(()))
            }))?;
        }
        let rest = this.opened.get(this.opened_at..).unwrap_or_default();
        let taken = rest.len().min(space.remaining());
        space.put_slice(rest.get(..taken).unwrap_or_default());
        this.opened_at += taken;
        if this.opened_at == this.opened.len() {
            this.opened = Vec::new();
            this.opened_at = 0;
            this.records.rest();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(Self::poll_flush(&mut self, cx))?;
        let bytes = bytes.get(..CHUNK).unwrap_or(bytes);
        let this = &mut *self;
        Scratch::with(|scratch| this.send_frame(bytes, bytes.len(), &mut scratch.cipher))?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_flush(&mut self, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut records = vec![0; sealed_length(0)];
        let length = self.records.close(&mut records)?;
        self.pass_on(records.get(..length).unwrap_or_default())?;
        ready!(Self::poll_flush(&mut self, cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn nonsense(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
