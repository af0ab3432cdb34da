//! Flows that have to be slow, where the kernel may not see to it.
//!
//! A TCP flow then goes through a pair of sockets on loopback, between which the bytes wait for
//! their turn; datagrams that come too early are dropped.

use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};

/// What goes at once.
const PIECE: usize = 16 * 1024;

/// A rate that the flows of a cluster share, both directions together.
#[derive(Debug)]
pub(crate) struct Rate {
    bytes_per_second: f64,
    /// Until when what has gone already is enough.
    busy_until: Mutex<Instant>,
}

impl Rate {
    /// A rate of at least 8 kbit/s.
    pub(crate) fn new(bits_per_second: u64) -> Arc<Self> {
        let bits = u32::try_from(bits_per_second.max(8000)).unwrap_or(u32::MAX);
        Arc::new(Self {
            bytes_per_second: f64::from(bits) / 8.0,
            busy_until: Mutex::new(Instant::now()),
        })
    }

    /// Takes a turn for so many bytes; returns how long to wait for it.
    fn turn(&self, bytes: usize) -> Duration {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let takes = Duration::from_secs_f64(f64::from(bytes) / self.bytes_per_second);
        let now = Instant::now();
        let mut until = self.busy_until.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = (*until).max(now);
        *until = begin + takes;
        begin.saturating_duration_since(now)
    }

    /// Takes a turn for a datagram, if it need not wait for long.
    pub(crate) fn now(&self, bytes: usize) -> bool {
        {
            let until = self.busy_until.lock().unwrap_or_else(PoisonError::into_inner);
            if *until > Instant::now() + Duration::from_millis(100) {
                return false;
            }
        }
        self.turn(bytes);
        true
    }

    /// A connection whose other end is `stream`, slowed down.
    pub(crate) async fn through(self: &Arc<Self>, stream: TcpStream) -> io::Result<TcpStream> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let near = TcpStream::connect(listener.local_addr()?).await?;
        let far = loop {
            // Somebody else of this machine may have connected first.
            let (far, from) = listener.accept().await?;
            if from == near.local_addr()? {
                break far;
            }
        };
        let rate = Arc::clone(self);
        tokio::spawn(async move {
            let (mut visitor_in, mut visitor_out) = stream.into_split();
            let (mut far_in, mut far_out) = far.into_split();
            let ended = tokio::try_join!(
                rate.copy(&mut visitor_in, &mut far_out),
                rate.copy(&mut far_in, &mut visitor_out),
            );
            // One that broke off breaks the other off too, by being dropped.
            let _broken = ended;
        });
        Ok(near)
    }

    async fn copy(
        &self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<()> {
        let mut buffer = vec![0; PIECE];
        loop {
            let length = from.read(&mut buffer).await?;
            if length == 0 {
                return to.shutdown().await;
            }
            sleep(self.turn(length)).await;
            to.write_all(buffer.get(..length).unwrap_or_default()).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn turns_are_as_far_apart_as_the_rate_says() {
        let rate = Rate::new(80_000);
        assert_eq!(rate.turn(10_000), Duration::ZERO);
        assert_eq!(rate.turn(10_000), Duration::from_secs(1));
        assert_eq!(rate.turn(1), Duration::from_secs(2));
        assert!(!rate.now(1000));
        tokio::time::advance(Duration::from_secs(3)).await;
        assert!(rate.now(1000));
        assert_eq!(rate.turn(1), Duration::from_millis(100));
    }
}
