//! The tunnel port: takes agents in.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::task::JoinSet;
use tokio::time::interval;
use tunnel::acceptor::{Acceptor, AcceptorSettings, Arrival, Sockets};
use tunnel_proto::message;

use crate::error::GatewayError;
use crate::inner::{Inner, Note};
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
        let what = "the tunnel port cannot be used";
        let system = |source| GatewayError::System { what, source };
        let handshakes = inner.trust.handshakes().map_err(GatewayError::Trust)?;
        let settings = AcceptorSettings {
            gateway: inner.config().name.clone(),
            program: inner.program.clone(),
            ..AcceptorSettings::default()
        };
        let mut sockets = Sockets::default();
        let mut missing = Vec::new();
        for (address, listener) in &self.listeners {
            sockets.tcp.push(listener.try_clone().map_err(system)?);
            match bind(*address) {
                Ok(socket) => sockets.udp.push(socket),
                Err(_) => missing.push(*address),
            }
        }
        let acceptor = Acceptor::start(sockets, handshakes, settings).map_err(system)?;
        self.accepting.spawn(take_in(Arc::clone(inner), acceptor, missing));
        Ok(())
    }

    /// Takes nobody in any more; the sockets stay.
    pub(crate) async fn stop(&mut self) {
        self.accepting.shutdown().await;
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

async fn take_in(inner: Arc<Inner>, mut acceptor: Acceptor, mut missing: Vec<SocketAddr>) {
    let mut again = interval(AGAIN);
    loop {
        tokio::select! {
            arrival = acceptor.next() => match arrival {
                Some(arrival) => receive(&inner, arrival),
                None => return,
            },
            _ = again.tick(), if !missing.is_empty() => {
                missing.retain(|address| add_udp(&inner, &mut acceptor, *address));
            }
        }
    }
}

fn receive(inner: &Arc<Inner>, arrival: Arrival) {
    let inner = Arc::clone(inner);
    match arrival {
        Arrival::Session(it) => {
            tokio::spawn(session::serve(inner, *it));
        }
        Arrival::Adoption(it) => {
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

/// Tries to have the UDP port, which may still be a predecessor's: that has sessions there until
/// they have drained, as a connection of QUIC cannot change hands. Returns whether it is missing.
fn add_udp(inner: &Inner, acceptor: &mut Acceptor, address: SocketAddr) -> bool {
    match bind(address) {
        Ok(socket) => {
            acceptor.add_udp(socket);
            inner.note(Note::TunnelUdp, None);
            false
        }
        Err(error) => {
            let holder = socket::holder(message::Protocol::Udp, address);
            let why = format!("tunnels over UDP are not possible: {address}: {error}; {holder}");
            inner.note(Note::TunnelUdp, Some(why));
            true
        }
    }
}
