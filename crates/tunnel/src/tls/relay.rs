//! Bytes of one flow, both ways, as fast as they go.
//!
//! Both directions are one future. It reads from one side only what the other side has room for:
//! whoever reads slowly slows down his own flow and no other.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::AsyncWrite as _;
use tokio::net::TcpStream;
use tunnel_proto::frame::Kind;

use super::connection::{Broken, Connection};
use super::scratch::Pieces;
use crate::link::{Ending, Meter};

/// Steps of one direction before the other one has its turn, and other flows theirs.
const STEPS: usize = 4;

/// Slices that are written at once: those of one read, and some more.
const SLICES: usize = 16;

/// A flow that moves less than this when it is woken gives its memory back until it is woken again.
const LITTLE: usize = 16 << 10;

/// How a relay ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Relayed {
    pub(super) ending: Ending,
    /// Whether this end has said that nothing follows.
    pub(super) here_ended: bool,
    /// Whether the other end has.
    pub(super) there_ended: bool,
}

/// Relays until both directions have ended, or something broke. Every byte counts in both meters.
pub(super) async fn relay(
    connection: &mut Connection,
    plain: &mut TcpStream,
    meters: [&Meter; 2],
) -> Relayed {
    let mut relay = Relay {
        connection,
        plain,
        meters,
        up: true,
        down: Down::Open,
        unsent: Vec::new(),
        at: 0,
        moved: 0,
    };
    let ending = poll_fn(|cx| relay.poll(cx)).await;
    Relayed { ending, here_ended: !relay.up, there_ended: relay.down != Down::Open }
}

/// Whether anything more comes down.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Down {
    Open,
    /// The other end has ended it; what is unsent is still to be sent.
    Ending,
    Ended,
}

struct Relay<'a> {
    connection: &'a mut Connection,
    plain: &'a mut TcpStream,
    meters: [&'a Meter; 2],
    up: bool,
    down: Down,
    /// For `plain`, from `at` on.
    unsent: Vec<u8>,
    at: usize,
    /// How much has moved since the task was last woken.
    moved: usize,
}

/// What one step came to.
enum Step {
    Moved,
    /// Nothing can be done before the task is woken.
    Waits,
    Over(Ending),
}

impl Relay<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        self.moved = 0;
        let (mut up_waits, mut down_waits) = (false, false);
        while !(up_waits && down_waits) {
            for _ in 0..STEPS {
                if up_waits {
                    break;
                }
                match self.step_up(cx) {
                    Step::Moved => {}
                    Step::Waits => up_waits = true,
                    Step::Over(ending) => return Poll::Ready(ending),
                }
            }
            for _ in 0..STEPS {
                if down_waits {
                    break;
                }
                match self.step_down(cx) {
                    // Whoever has said all waits for the other direction's end, not for a wake.
                    Step::Moved if self.down == Down::Ended => up_waits = false,
                    Step::Moved => {}
                    Step::Waits => down_waits = true,
                    Step::Over(ending) => return Poll::Ready(ending),
                }
            }
        }
        // Whoever moves little at a time may well move nothing for long.
        if self.moved < LITTLE {
            self.connection.rest();
        }
        Poll::Pending
    }

    fn step_up(&mut self, cx: &mut Context<'_>) -> Step {
        match self.connection.poll_flush(cx) {
            Poll::Pending => return Step::Waits,
            Poll::Ready(Err(_)) => return Step::Over(Ending::Lost),
            Poll::Ready(Ok(())) => {}
        }
        if !self.up {
            return if self.down == Down::Ended { Step::Over(Ending::Closed) } else { Step::Waits };
        }
        match self.connection.poll_take(cx, self.plain) {
            Poll::Pending => Step::Waits,
            Poll::Ready(Ok(0)) => {
                self.up = false;
                match self.connection.send(Kind::Fin, &[]) {
                    Ok(()) => Step::Moved,
                    Err(_) => Step::Over(Ending::Lost),
                }
            }
            Poll::Ready(Ok(came)) => {
                self.moved += came;
                self.meters.iter().for_each(|it| it.add_out(came));
                Step::Moved
            }
            Poll::Ready(Err(Broken::Plain)) => Step::Over(Ending::PlainReset),
            Poll::Ready(Err(Broken::Far)) => Step::Over(Ending::Lost),
        }
    }

    fn step_down(&mut self, cx: &mut Context<'_>) -> Step {
        if self.at < self.unsent.len() {
            let rest = self.unsent.get(self.at..).unwrap_or_default();
            return match Pin::new(&mut *self.plain).poll_write(cx, rest) {
                Poll::Pending => Step::Waits,
                Poll::Ready(Ok(sent)) if sent > 0 => {
                    self.at += sent;
                    self.meters.iter().for_each(|it| it.add_back(sent));
                    if self.at == self.unsent.len() {
                        self.unsent = Vec::new();
                        self.at = 0;
                    }
                    Step::Moved
                }
                Poll::Ready(_) => Step::Over(Ending::PlainReset),
            };
        }
        match self.down {
            Down::Open => {}
            Down::Ending => {
                self.down = Down::Ended;
                // Fails where the other side is gone already, which reading will tell.
                let _gone = SockRef::from(&*self.plain).shutdown(Shutdown::Write);
                return Step::Moved;
            }
            // Both are said; nothing of this flow can follow.
            Down::Ended if !self.up => return Step::Waits,
            // It may still break off.
            Down::Ended => {}
        }
        let (plain, unsent, meters) = (&mut *self.plain, &mut self.unsent, self.meters);
        let received = self.connection.poll_receive(cx, |cx, bytes, pieces| {
            self.moved += pieces.iter().map(Range::len).sum::<usize>();
            pass_on(cx, plain, bytes, pieces, unsent, meters)
        });
        match received {
            Poll::Pending => Step::Waits,
            Poll::Ready(Err(_)) => Step::Over(Ending::Lost),
            Poll::Ready(Ok((Err(_), _))) => Step::Over(Ending::PlainReset),
            Poll::Ready(Ok((Ok(()), None))) => Step::Moved,
            Poll::Ready(Ok((Ok(()), Some((Kind::Fin, _))))) if self.down == Down::Open => {
                self.down = Down::Ending;
                Step::Moved
            }
            Poll::Ready(Ok((Ok(()), Some((Kind::Reset, _))))) => Step::Over(Ending::FarReset),
            // Nothing else has a meaning within a flow.
            Poll::Ready(Ok((Ok(()), Some(_)))) => Step::Over(Ending::Lost),
        }
    }
}

/// Writes pieces of `bytes` to `plain`, and what it does not take to `unsent`.
fn pass_on(
    cx: &mut Context<'_>,
    plain: &mut TcpStream,
    bytes: &[u8],
    pieces: &Pieces,
    unsent: &mut Vec<u8>,
    meters: [&Meter; 2],
) -> io::Result<()> {
    let mut slices = [IoSlice::new(&[]); SLICES];
    let mut sent = 0;
    if !pieces.is_empty() {
        for (slice, piece) in slices.iter_mut().zip(pieces) {
            *slice = IoSlice::new(bytes.get(piece.clone()).unwrap_or_default());
        }
        let slices = slices.get(..pieces.len().min(SLICES)).unwrap_or(&slices);
        match Pin::new(plain).poll_write_vectored(cx, slices) {
            Poll::Ready(written) => sent = written?,
            Poll::Pending => {}
        }
        meters.iter().for_each(|it| it.add_back(sent));
    }
    for piece in pieces {
        let piece = bytes.get(piece.clone()).unwrap_or_default();
        let skipped = sent.min(piece.len());
        sent -= skipped;
        unsent.extend_from_slice(piece.get(skipped..).unwrap_or_default());
    }
    Ok(())
}

/// Breaks a plain connection off: its other side sees a reset.
pub(super) fn reset(plain: TcpStream) {
    // Fails only where it is broken already.
    let _broken = SockRef::from(&plain).set_linger(Some(Duration::ZERO));
}
