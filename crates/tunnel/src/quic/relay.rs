//! Bytes of one flow between a socket and a stream, both ways.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use quinn::{ReadError, RecvStream, SendStream, WriteError};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::carried::Carried;
use super::unread::UNREAD_AFTER;
use crate::link::{Ending, Meter};

/// How many bytes are read at once from the plain side.
const READ: usize = 64 << 10;

/// How many pieces, each about a packet, are taken from the stream at once.
const PIECES: usize = 32;

thread_local! {
    /// Where bytes are read from plain sides: what waits in a stream is then no longer than what
    /// was read.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ]);
}

/// Relays until both directions have ended, or something broke. `first` goes to the far end first,
/// `ahead` to the plain side.
pub(super) async fn relay(
    (send, recv): (&mut SendStream, &mut RecvStream),
    plain: &TcpStream,
    (first, ahead): (Bytes, Bytes),
    meter: &Meter,
    carried: &Carried,
) -> Ending {
    let up = up(plain, send, first, meter, carried);
    let down = down(recv, plain, ahead, meter, carried);
    match tokio::try_join!(up, down) {
        Ok(((), ())) => Ending::Closed,
        Err(ending) => ending,
    }
}

async fn up(
    plain: &TcpStream,
    send: &mut SendStream,
    first: Bytes,
    meter: &Meter,
    carried: &Carried,
) -> Result<(), Ending> {
    let mut bytes = first;
    loop {
        if !bytes.is_empty() {
            let length = bytes.len();
            // Before the other end can know of it.
            meter.add_out(length);
            carried.count(length);
            send.write_chunk(bytes).await.map_err(|it| unwritten(&it))?;
        }
        bytes = match take(plain) {
            Ok(bytes) if bytes.is_empty() => {
                let _stopped = send.finish();
                return Ok(());
            }
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                plain.readable().await.map_err(|_| Ending::PlainReset)?;
                Bytes::new()
            }
            Err(_) => return Err(Ending::PlainReset),
        };
        tokio::task::coop::consume_budget().await;
    }
}

fn take(plain: &TcpStream) -> io::Result<Bytes> {
    BUFFER.with_borrow_mut(|buffer| {
        let length = plain.try_read(buffer)?;
        Ok(Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default()))
    })
}

async fn down(
    recv: &mut RecvStream,
    plain: &TcpStream,
    ahead: Bytes,
    meter: &Meter,
    carried: &Carried,
) -> Result<(), Ending> {
    let mut pieces = [const { Bytes::new() }; PIECES];
    pieces[0] = ahead;
    let mut count = 1;
    loop {
        pass_on(plain, pieces.get_mut(..count).unwrap_or_default(), meter, carried).await?;
        match recv.read_chunks(&mut pieces).await {
            Ok(Some(read)) => count = read,
            Ok(None) => break,
            Err(ReadError::Reset(_)) => return Err(Ending::FarReset),
            Err(
                ReadError::ConnectionLost(_)
                | ReadError::ClosedStream
                | ReadError::IllegalOrderedRead
                | ReadError::ZeroRttRejected,
            ) => return Err(Ending::Lost),
        }
        carried.heard();
        tokio::task::coop::consume_budget().await;
    }
    // Fails where the plain side is gone already, which reading from it will tell.
    let _gone = SockRef::from(plain).shutdown(Shutdown::Write);
    Ok(())
}

/// Writes all of `pieces`, and leaves them empty.
async fn pass_on(
    plain: &TcpStream,
    pieces: &mut [Bytes],
    meter: &Meter,
    carried: &Carried,
) -> Result<(), Ending> {
    loop {
        let mut slices = [IoSlice::new(&[]); PIECES];
        let mut count = 0;
        let full = pieces.iter().filter(|it| !it.is_empty());
        for (slice, piece) in slices.iter_mut().zip(full) {
            *slice = IoSlice::new(piece);
            count += 1;
        }
        if count == 0 {
            return Ok(());
        }
        let written = plain.try_write_vectored(slices.get(..count).unwrap_or_default());
        let mut written = match written {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                until_writable(plain, carried).await?;
                continue;
            }
            Err(_) => return Err(Ending::PlainReset),
        };
        meter.add_back(written);
        carried.count(written);
        for piece in &mut *pieces {
            let used = written.min(piece.len());
            written -= used;
            if used == piece.len() {
                *piece = Bytes::new();
            } else {
                piece.advance(used);
            }
        }
    }
}

/// Waits until the plain side takes more. One that does not for long counts as unread meanwhile.
async fn until_writable(plain: &TcpStream, carried: &Carried) -> Result<(), Ending> {
    let writable = plain.writable();
    tokio::pin!(writable);
    let writable = match timeout(UNREAD_AFTER, &mut writable).await {
        Ok(writable) => writable,
        Err(_) => {
            let unread = carried.unread.note(&carried.connection);
            tokio::select! {
                writable = writable => writable,
                () = unread.until_broken_off() => {
                    tracing::info!("a flow that nobody reads is broken off: there are too many");
                    return Err(Ending::PlainReset);
                }
            }
        }
    };
    writable.map_err(|_| Ending::PlainReset)
}

fn unwritten(error: &WriteError) -> Ending {
    match error {
        WriteError::Stopped(_) => Ending::FarReset,
        WriteError::ConnectionLost(_) | WriteError::ClosedStream | WriteError::ZeroRttRejected => {
            Ending::Lost
        }
    }
}

/// Breaks a plain connection off: its other side sees a reset.
pub(super) fn reset(plain: TcpStream) {
    // Fails only where it is broken already.
    let _broken = SockRef::from(&plain).set_linger(Some(Duration::ZERO));
}
