//! A connection for adoption, which needs an exporter and so a TLS connection of the other kind.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::acceptor::{Arrival, Entrance};
use crate::adoption::EXPORTER_LABEL;
use crate::session::{Adoption, Channel, Control, Status};

/// Shakes hands with an agent that wants to adopt, `received` having been read before.
pub(super) async fn receive(
    stream: TcpStream,
    received: Vec<u8>,
    address: SocketAddr,
    config: Arc<ServerConfig>,
    entrance: &Entrance,
) -> io::Result<()> {
    let stream = Begun { received, at: 0, stream };
    let stream = TlsAcceptor::from(config).accept(stream).await?;
    let (_, tls) = stream.get_ref();
    let chain = tls.peer_certificates().unwrap_or_default();
    let peer = entrance.handshakes.peer(chain).ok_or(io::ErrorKind::PermissionDenied)?;
    let exporter = tls.export_keying_material([0; 32], EXPORTER_LABEL, None);
    let exporter = exporter.map_err(io::Error::other)?;
    let control = Control::start(Channel::over(stream), Status::new());
    let adoption = Adoption { address, peer, exporter, control };
    entrance.arrive(Arrival::Adoption(Box::new(adoption))).await;
    Ok(())
}

/// A stream of which something was read already.
#[derive(Debug)]
struct Begun {
    received: Vec<u8>,
    at: usize,
    stream: TcpStream,
}

impl AsyncRead for Begun {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        space: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let rest = self.received.get(self.at..).unwrap_or_default();
        if rest.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, space);
        }
        let taken = rest.len().min(space.remaining());
        space.put_slice(rest.get(..taken).unwrap_or_default());
        self.at += taken;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Begun {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
