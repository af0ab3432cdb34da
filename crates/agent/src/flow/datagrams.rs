//! Carries datagrams between a flow and an endpoint.

use std::cell::RefCell;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use tokio::net::UdpSocket;
use tunnel::link::{DatagramFlow, Meter};

use crate::transparent;

/// The longest datagram of IPv4 and, without jumbograms, IPv6.
const LONGEST: usize = 65_535;

/// How many datagrams of one flow are carried before others have their turn.
const AT_ONCE: usize = 64;

thread_local! {
    /// Where datagrams are received. Most flows are idle most of the time, so none has its own.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; LONGEST]);
}

/// A socket that speaks to `endpoint` and hears nobody else; with `visitor`, as if from there.
///
/// # Errors
///
/// When the system does not permit it.
pub(crate) async fn socket(
    endpoint: SocketAddr,
    visitor: Option<SocketAddr>,
) -> io::Result<UdpSocket> {
    if let Some(visitor) = visitor {
        return transparent::udp(visitor, endpoint);
    }
    let any: SocketAddr = match endpoint {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(endpoint).await?;
    Ok(socket)
}

/// How carrying datagrams ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Over {
    /// The gateway has ended the flow, or the session is gone.
    Flow,
    /// `moved` completed: the endpoint is no longer the right one.
    Moved,
}

/// Carries datagrams until the flow ends or `moved` completes.
///
/// `header` goes before the first datagram to the endpoint. What an endpoint refuses (nobody
/// listens yet) is lost, as datagrams may be.
pub(crate) async fn carry(
    flow: &dyn DatagramFlow,
    socket: &UdpSocket,
    header: &mut Bytes,
    meter: &Arc<Meter>,
    moved: impl Future<Output = ()>,
) -> Over {
    let inward = async {
        while let Some(payload) = flow.receive().await {
            meter.add_back(payload.len());
            let prefix = std::mem::take(header);
            let _lost_at_worst = if prefix.is_empty() {
                socket.send(&payload).await
            } else {
                socket.send(&[prefix, payload].concat()).await
            };
        }
    };
    let outward = async {
        loop {
            if socket.readable().await.is_err() {
                // The socket is beyond repair; the flow goes on one way until it ends.
                std::future::pending::<()>().await;
            }
            BUFFER.with_borrow_mut(|buffer| {
                for _ in 0..AT_ONCE {
                    // What the endpoint refused before is told here, once, and then is over.
                    let Ok(length) = socket.try_recv(buffer) else { break };
                    meter.add_out(length);
                    let _full_queue = flow.send(buffer.get(..length).unwrap_or_default());
                }
            });
        }
    };
    tokio::select! {
        () = inward => Over::Flow,
        () = outward => Over::Flow,
        () = moved => Over::Moved,
    }
}
