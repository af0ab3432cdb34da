//! Connects to the first endpoint that answers.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::transparent;

/// How long an endpoint may be silent before the next one is tried beside it. The gateway asks
/// another agent after 250 ms: an endpoint that died without a word must not cost the visitor that.
const HEAD_START: Duration = Duration::from_millis(100);

/// How long all endpoints together may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(2);

/// How many endpoints are tried at most.
const MOST: usize = 4;

/// Why no endpoint could be connected to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// Every endpoint refused, or could not be reached.
    #[error("{endpoint} cannot be connected to: {source}")]
    Refused {
        /// The last one that was tried.
        endpoint: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// None answered in time.
    #[error("{endpoint} did not answer within {DEADLINE:?}")]
    Late {
        /// The first one that was tried.
        endpoint: SocketAddr,
    },
    /// The visitor's address cannot be shown to the backend.
    #[error("the visitor's address cannot be shown to {endpoint}: {source}")]
    Transparent {
        /// The endpoint.
        endpoint: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// There is no endpoint.
    #[error("no endpoint is ready")]
    None,
}

/// Connects to the first of `endpoints` that answers; with `visitor`, as if from there.
///
/// # Errors
///
/// Why none could be connected to.
pub(crate) async fn connect(
    endpoints: &[SocketAddr],
    visitor: Option<SocketAddr>,
) -> Result<(TcpStream, SocketAddr), ConnectError> {
    let Some(first) = endpoints.first().copied() else { return Err(ConnectError::None) };
    let deadline = Instant::now() + DEADLINE;
    let mut waiting = endpoints.iter().copied().take(MOST);
    let mut attempts = FuturesUnordered::new();
    let mut failed = None;
    loop {
        if let Some(endpoint) = waiting.next() {
            attempts.push(async move { (endpoint, attempt(endpoint, visitor).await) });
        } else if attempts.is_empty() {
            return Err(failed.unwrap_or(ConnectError::None));
        }
        // The last one has all the time that is left.
        let until = match waiting.len() {
            0 => deadline,
            _ => deadline.min(Instant::now() + HEAD_START),
        };
        match timeout_at(until, attempts.next()).await {
            Ok(Some((endpoint, Ok(stream)))) => return Ok((stream, endpoint)),
            Ok(Some((_, Err(error)))) => failed = Some(error),
            Ok(None) => {}
            Err(_) if until >= deadline => {
                return Err(failed.unwrap_or(ConnectError::Late { endpoint: first }));
            }
            Err(_) => {}
        }
    }
}

async fn attempt(
    endpoint: SocketAddr,
    visitor: Option<SocketAddr>,
) -> Result<TcpStream, ConnectError> {
    let refused = |source| ConnectError::Refused { endpoint, source };
    let stream = match visitor {
        Some(visitor) => {
            let socket = transparent::tcp(visitor, endpoint)
                .map_err(|source| ConnectError::Transparent { endpoint, source })?;
            socket.connect(endpoint).await
        }
        None => dial(endpoint).await,
    };
    let stream = stream.map_err(refused)?;
    // The visitor's own segments decide when something is sent, not a timer here.
    let _slower_at_worst = stream.set_nodelay(true);
    Ok(stream)
}

/// Connects. An endpoint on this machine has answered before the second call, which saves the way
/// through the runtime that a visitor would wait for.
async fn dial(endpoint: SocketAddr) -> io::Result<TcpStream> {
    let (domain, kind) = (Domain::for_address(endpoint), Type::STREAM.nonblocking());
    let socket = Socket::new(domain, kind, Some(Protocol::TCP))?;
    let mut connected = socket.connect(&endpoint.into());
    if is_under_way(&connected) {
        connected = socket.connect(&endpoint.into());
    }
    let waits = is_under_way(&connected);
    if !waits {
        connected?;
    }
    let stream = TcpStream::from_std(socket.into())?;
    if waits {
        stream.writable().await?;
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
    }
    Ok(stream)
}

fn is_under_way(connected: &io::Result<()>) -> bool {
    let errno = connected.as_ref().err().and_then(Errno::from_io_error);
    matches!(errno, Some(Errno::INPROGRESS | Errno::ALREADY))
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    #[tokio::test]
    async fn the_next_endpoint_is_tried_when_one_refuses() {
        let (up, down) = (listener().await, refusing().await);
        let endpoints = [down, up.local_addr().expect("bound")];
        let (_, connected) = connect(&endpoints, None).await.expect("one of two is up");
        assert_eq!(connected, endpoints[1]);
    }

    #[tokio::test]
    async fn a_silent_endpoint_costs_its_head_start_and_no_more() {
        let up = listener().await;
        let (silent, _held) = silent().await;
        let begun = std::time::Instant::now();
        let endpoints = [silent, up.local_addr().expect("bound")];
        let (_, connected) = connect(&endpoints, None).await.expect("one of two is up");
        assert_eq!(connected, endpoints[1]);
        assert!(begun.elapsed() >= HEAD_START, "the first one was tried first");
        assert!(begun.elapsed() < DEADLINE / 2, "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn what_refused_is_told() {
        let down = refusing().await;
        let error = connect(&[down], None).await.expect_err("nobody listens");
        assert!(matches!(error, ConnectError::Refused { endpoint, .. } if endpoint == down));
        assert!(matches!(connect(&[], None).await, Err(ConnectError::None)));
    }

    async fn listener() -> TcpListener {
        TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port")
    }

    async fn refusing() -> SocketAddr {
        listener().await.local_addr().expect("bound")
    }

    /// A listener whose queue is full answers no more (Linux drops the SYN).
    async fn silent() -> (SocketAddr, (TcpSocketHeld, Vec<TcpStream>)) {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        let listener = socket.listen(1).expect("listens");
        let address = listener.local_addr().expect("bound");
        let mut held = Vec::new();
        while let Ok(Ok(stream)) =
            tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await
        {
            held.push(stream);
        }
        (address, (listener, held))
    }

    type TcpSocketHeld = TcpListener;
}
