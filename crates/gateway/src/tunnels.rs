//! The tunnel port: takes agents in.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tunnel::acceptor::{Acceptor, AcceptorSettings, Arrival, Sockets};
use tunnel_proto::message;

use crate::error::GatewayError;
use crate::gateway::{Inner, Note};
use crate::{session, socket};

/// How often the UDP port is tried again while a predecessor still has it.
const AGAIN: Duration = Duration::from_millis(500);

/// The tunnel port at work. Accepts until dropped; sessions go on.
#[derive(Debug)]
pub(crate) struct Tunnels {
    listeners: Vec<(SocketAddr, TcpListener)>,
    accepting: JoinSet<()>,
}

impl Tunnels {
    /// Opens the tunnel port where `handed` does not have it already.
    pub(crate) fn open(
        addresses: &[SocketAddr],
        handed: Vec<(SocketAddr, TcpListener)>,
    ) -> Result<Self, GatewayError> {
        let mut handed = handed;
        let mut listeners = Vec::new();
        for address in addresses {
            let listener = match handed.iter().position(|(at, _)| at == address) {
                Some(index) => handed.swap_remove(index).1,
                None => socket::listen(*address).map_err(|source| GatewayError::TunnelPort {
                    address: *address,
                    holder: socket::holder(message::Protocol::Tcp, *address),
                    source,
                })?,
            };
            listeners.push((*address, listener));
        }
        Ok(Self { listeners, accepting: JoinSet::new() })
    }

    /// The listening sockets, and where they were asked to be bound.
    pub(crate) fn listeners(&self) -> &[(SocketAddr, TcpListener)] {
        &self.listeners
    }

    /// Takes agents in. Must be called within a tokio runtime.
    pub(crate) fn start(&mut self, inner: &Arc<Inner>) -> Result<(), GatewayError> {
        let system =
            |source| GatewayError::System { what: "the tunnel port cannot be used", source };
        let tcp: io::Result<Vec<_>> = self.listeners.iter().map(|(_, it)| it.try_clone()).collect();
        let tcp = tcp.map_err(system)?;
        let acceptor = accept(inner, Sockets { tcp, udp: Vec::new() })?;
        self.accepting.spawn(take_in(Arc::clone(inner), acceptor));
        for (address, _) in &self.listeners {
            self.accepting.spawn(take_in_by_udp(Arc::clone(inner), *address));
        }
        Ok(())
    }

    /// Takes nobody in any more; the sockets stay.
    pub(crate) async fn stop(&mut self) {
        self.accepting.shutdown().await;
    }
}

fn accept(inner: &Arc<Inner>, sockets: Sockets) -> Result<Acceptor, GatewayError> {
    let handshakes = inner.trust.handshakes().map_err(GatewayError::Trust)?;
    let settings = AcceptorSettings {
        gateway: inner.config().name.clone(),
        program: inner.program.clone(),
        ..AcceptorSettings::default()
    };
    Acceptor::start(sockets, handshakes, settings)
        .map_err(|source| GatewayError::System { what: "the tunnel port cannot be used", source })
}

/// The UDP port may still be a predecessor's, which has sessions there until they have drained: a
/// connection of QUIC cannot change hands.
async fn take_in_by_udp(inner: Arc<Inner>, address: SocketAddr) {
    let udp = loop {
        match bind(address) {
            Ok(socket) => break socket,
            Err(error) => {
                let holder = socket::holder(message::Protocol::Udp, address);
                inner.note(
                    Note::TunnelUdp,
                    Some(format!(
                        "tunnels over UDP are not possible: {address}: {error}; {holder}"
                    )),
                );
            }
        }
        sleep(AGAIN).await;
    };
    inner.note(Note::TunnelUdp, None);
    match accept(&inner, Sockets { tcp: Vec::new(), udp: vec![udp] }) {
        Ok(acceptor) => take_in(inner, acceptor).await,
        Err(error) => tracing::error!(%error, "tunnels over UDP are not possible"),
    }
}

fn bind(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

async fn take_in(inner: Arc<Inner>, mut acceptor: Acceptor) {
    while let Some(arrival) = acceptor.next().await {
        match arrival {
            Arrival::Session(it) => {
                tokio::spawn(session::serve(Arc::clone(&inner), *it));
            }
            Arrival::Adoption(it) => {
                let inner = Arc::clone(&inner);
                tokio::spawn(async move {
                    let address = it.address;
                    match tunnel::adoption::serve(*it, &inner.trust).await {
                        Ok(by) => tracing::info!(%by, %address, "adopted"),
                        Err(error) => tracing::warn!(%address, %error, "not adopted"),
                    }
                });
            }
        }
    }
}
