//! Whether a published port can be reached, and if not, at which hop it ends.
//!
//! The gateway dials its own port through the kernel, as a visitor would, from a socket whose
//! address it has told the listener before. Behind the listener the probe goes the way of every
//! flow: to an agent, and by the agent to the backend. What lies before the machine, such as a
//! provider's filter, cannot be seen from here.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::time::{Instant, timeout};
use tunnel_proto::choice::Failure;
use tunnel_proto::message::{Open, Protocol, Reached, RefusedReason, Route};

use crate::listener::{Listener, Wished};
use crate::opening;
use crate::port::canonical;

/// How long a probe may take to get through the kernel.
const THROUGH_KERNEL: Duration = Duration::from_secs(3);

/// How long a listener that was reached may take to say so.
const NOTICED: Duration = Duration::from_millis(500);

/// How long it may take in all: agents have ten seconds.
const ALL: Duration = Duration::from_secs(12);

/// Probes a port, and keeps what was found.
pub(crate) async fn probe(listener: Arc<Listener>) {
    let reached = match dial(&listener).await {
        Ok(reached) => reached,
        Err(error) => Reached::Filtered(error.to_string()),
    };
    // A port that shall lead nowhere fails nobody: visitors get as far as was wished.
    let as_wished =
        matches!(reached, Reached::Endpoint(_)) && backends(&listener.wish()).is_empty();
    listener.reached((!as_wished).then_some(reached));
}

/// The backends that a port leads to, each with a name that leads there.
fn backends(wished: &Wished) -> Vec<(&str, Option<&str>)> {
    let mut backends: Vec<_> = match &wished.port.route {
        Route::Backend(backend) => vec![(backend.as_str(), None)],
        Route::ServerName(names) => {
            names.iter().map(|it| (it.backend.as_str(), Some(it.name.as_str()))).collect()
        }
        Route::Nowhere => Vec::new(),
    };
    backends.retain(|(backend, _)| *backend != Route::NOBODY);
    backends.dedup_by_key(|(backend, _)| *backend);
    backends
}

async fn dial(listener: &Listener) -> io::Result<Reached> {
    let Some(bound) = listener.sockets().first().map(|it| it.address()) else {
        return Ok(Reached::NotBound("it has no socket".to_owned()));
    };
    let to = SocketAddr::new(reachable(bound.ip()), bound.port());
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // From the very address that is dialled: the kernel would choose the same, but only when it
    // connects, and the listener has to know before.
    let from = SocketAddr::new(if to.ip().is_unspecified() { any } else { to.ip() }, 0);
    let failed = |what: &str| Ok(Reached::Filtered(format!("{what} {to}")));
    match listener.key.protocol {
        Protocol::Tcp => {
            let socket = Socket::new(Domain::for_address(from), Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            socket.bind(&from.into())?;
            let socket = TcpSocket::from_std_stream(socket.into());
            let answer = listener.probes.expect(canonical(socket.local_addr()?));
            match timeout(THROUGH_KERNEL, socket.connect(to)).await {
                Ok(Ok(stream)) => {
                    let found = timeout(ALL, answer).await;
                    drop(stream);
                    match found {
                        Ok(Ok(reached)) => Ok(reached),
                        Ok(Err(_)) | Err(_) => failed("connected, but not to this gateway:"),
                    }
                }
                // A listener that knows at once what to say may reset before we have noticed that
                // we were connected.
                Ok(Err(error)) => match timeout(NOTICED, answer).await {
                    Ok(Ok(reached)) => Ok(reached),
                    Ok(Err(_)) | Err(_) => Ok(Reached::Filtered(format!("{to}: {error}"))),
                },
                Err(_) => failed("no connection within 3 s to"),
            }
        }
        Protocol::Udp => {
            let socket = UdpSocket::bind(from).await?;
            let answer = listener.probes.expect(canonical(socket.local_addr()?));
            socket.send_to(&[], to).await?;
            match timeout(ALL, answer).await {
                Ok(Ok(reached)) => Ok(reached),
                Ok(Err(_)) | Err(_) => failed("no datagram arrives at"),
            }
        }
    }
}

/// Asks agents for each backend of the port, as for a visitor. Called when a probe has come in.
pub(crate) async fn behind(listener: &Listener, from: SocketAddr) -> Reached {
    let wished = listener.wish();
    let backends = backends(&wished);
    if backends.is_empty() {
        return Reached::Endpoint("nothing to lead to yet".to_owned());
    }
    let began = Instant::now();
    for (backend, name) in backends {
        let open = Open {
            backend: backend.to_owned(),
            protocol: listener.key.protocol,
            visitor: from,
            dialled: SocketAddr::new(from.ip(), listener.key.port),
            server_name: name.filter(|it| !it.is_empty()).map(str::to_owned),
            probe: true,
        };
        let named = |why: String| match name {
            Some(name) if !name.is_empty() => format!("{name}: {why}"),
            Some(_) | None => why,
        };
        if let Err(failure) = opening::open(&listener.cluster, &open, Duration::ZERO).await {
            return match failure {
                Failure::NoLink if listener.cluster.members().is_empty() => Reached::NoLink,
                Failure::NoLink => {
                    Reached::Endpoint(named("no connected agent has a ready endpoint".to_owned()))
                }
                Failure::Lost | Failure::Silence => Reached::Agent(named(failure.to_string())),
                Failure::Refused(refused) => match refused.reason {
                    RefusedReason::Draining => Reached::Agent(named(refused.detail)),
                    RefusedReason::NoEndpoint
                    | RefusedReason::BackendRefused
                    | RefusedReason::BackendTimeout
                    | RefusedReason::InvalidBackend => Reached::Endpoint(named(refused.detail)),
                },
            };
        }
    }
    Reached::Backend(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX))
}

/// An address of this machine that a socket bound to `address` is reached by.
fn reachable(address: IpAddr) -> IpAddr {
    if !address.is_unspecified() {
        return address;
    }
    match crate::addresses::global().first() {
        Some(address) => *address,
        None => Ipv4Addr::LOCALHOST.into(),
    }
}
