//! Ends a visitor's TLS: the backend gets what was inside.
//!
//! The tunnel carries bytes of a socket, so the bytes of TLS pass through a pair of sockets on
//! loopback, at whose other end they are decrypted.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustls::ServerConfig;
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional_with_sizes};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tunnel::link::{Ending, Flow, Meter};

/// How long a visitor may take for its handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long a visitor may take to hear that its handshake has failed.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What is read at once: a record (RFC 8446 section 5.1).
const PIECE: usize = 16 * 1024;

/// Carries a flow between the gateway and `backend`, and ends its TLS.
pub(super) async fn relay(
    flow: Box<dyn Flow>,
    config: Arc<ServerConfig>,
    backend: TcpStream,
    meter: Arc<Meter>,
) -> Ending {
    let (near, far) = match pair().await {
        Ok(pair) => pair,
        Err(error) => {
            tracing::warn!(%error, "no sockets to end TLS with");
            return Ending::PlainReset;
        }
    };
    let relay = flow.relay(near, Bytes::new(), meter);
    let (ending, ()) = tokio::join!(relay, end(far, config, backend));
    ending
}

/// Ends TLS between a visitor's bytes and a backend.
async fn end(visitor: TcpStream, config: Arc<ServerConfig>, mut backend: TcpStream) {
    let accepting = TlsAcceptor::from(config).accept(visitor).into_fallible();
    let mut inside = match timeout(HANDSHAKE, accepting).await {
        Ok(Ok(inside)) => inside,
        Ok(Err((error, mut visitor))) => {
            tracing::debug!(%error, "a visitor and this agent do not agree on TLS");
            // The alert is on its way and must not be overtaken by a reset.
            let _gone = visitor.shutdown().await;
            let mut rest = [0; 512];
            let drained = async { while visitor.read(&mut rest).await.is_ok_and(|it| it > 0) {} };
            let _gone_or_slow = timeout(LAST_WORDS, drained).await;
            return reset_on_close(&visitor);
        }
        // Dropped: the visitor sees the end.
        Err(_) => return,
    };
    if let Err(error) = copy_bidirectional_with_sizes(&mut inside, &mut backend, PIECE, PIECE).await
    {
        tracing::debug!(%error, "a flow whose TLS ends here broke off");
        // One side broke off; the other side must not take that for an end.
        reset_on_close(inside.get_ref().0);
        reset_on_close(&backend);
    }
}

/// Makes the close of a connection a reset.
fn reset_on_close(stream: &TcpStream) {
    // A connection that is gone already needs no reset.
    let _gone = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Two sockets, each the other's peer.
async fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let near = TcpStream::connect(listener.local_addr()?).await?;
    let own = near.local_addr()?;
    let far = loop {
        // Somebody else of this machine may have connected first.
        let (far, from) = listener.accept().await?;
        if from == own {
            break far;
        }
    };
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    Ok((near, far))
}

#[cfg(test)]
mod tests;
