//! systemd: what the service tells it, and the sockets that it keeps for the service's next start.
//!
//! The protocol is a datagram of text to a Unix socket (`sd_notify(3)`). Without systemd nothing
//! here does anything.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::{Mutex, MutexGuard, PoisonError};

use listenfd::ListenFd;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg_addr};

use crate::handover::{Handed, Purpose};
use crate::inner::Inner;
use crate::listener::Bound;

/// The names of the sockets that systemd keeps for us.
static KEPT: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Tells systemd something.
pub(crate) fn tell(text: &str) {
    send(text, &[]);
}

/// Lets systemd keep every published port's socket, and let go of those that are closed.
pub(crate) fn keep(inner: &Inner) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let bound: BTreeMap<String, Bound> = inner
        .table()
        .listeners()
        .flat_map(|it| it.sockets())
        .map(|it| (name(purpose(&it), it.address()), it))
        .collect();
    let mut kept = lock();
    for gone in kept.iter().filter(|it| !bound.contains_key(*it)) {
        send(&format!("FDSTOREREMOVE=1\nFDNAME={gone}"), &[]);
    }
    kept.retain(|it| bound.contains_key(it));
    for (name, socket) in bound {
        if !kept.contains(&name) {
            send(&format!("FDSTORE=1\nFDPOLL=0\nFDNAME={name}"), &[socket.as_fd()]);
            kept.insert(name);
        }
    }
}

/// Whether systemd is known to keep sockets for us: since version 254 it says so, with older ones
/// the unit can (`Environment=FDSTORE=1024`).
pub(crate) fn is_kept() -> bool {
    let store = std::env::var("FDSTORE").ok().and_then(|it| it.parse::<u32>().ok());
    store.is_some_and(|it| it > 0) && std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// Takes the sockets that systemd kept since the last start.
pub(crate) fn take() -> Vec<Handed> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut from_environment = ListenFd::from_env();
    let mut handed = Vec::new();
    for (index, name) in names.split(':').enumerate().take(from_environment.len()) {
        let Some((purpose, address)) = named(name) else { continue };
        let socket: Option<OwnedFd> = match purpose {
            Purpose::Tunnel | Purpose::Tcp | Purpose::Metrics => {
                from_environment.take_tcp_listener(index).ok().flatten().map(Into::into)
            }
            Purpose::Udp => from_environment.take_udp_socket(index).ok().flatten().map(Into::into),
        };
        if let Some(socket) = socket {
            lock().insert(name.to_owned());
            handed.push(Handed { purpose, address, socket });
        }
    }
    handed
}

fn purpose(bound: &Bound) -> Purpose {
    match bound {
        Bound::Tcp(..) => Purpose::Tcp,
        Bound::Udp(..) => Purpose::Udp,
    }
}

/// A socket's name; names have no colons.
fn name(purpose: Purpose, address: SocketAddr) -> String {
    let purpose = match purpose {
        Purpose::Tunnel => "tunnel",
        Purpose::Tcp => "tcp",
        Purpose::Udp => "udp",
        Purpose::Metrics => "metrics",
    };
    format!("{purpose}-{}", address.to_string().replace(':', "_"))
}

fn named(name: &str) -> Option<(Purpose, SocketAddr)> {
    let (purpose, address) = name.split_once('-')?;
    let purpose = match purpose {
        "tunnel" => Purpose::Tunnel,
        "tcp" => Purpose::Tcp,
        "udp" => Purpose::Udp,
        "metrics" => Purpose::Metrics,
        _ => return None,
    };
    Some((purpose, address.replace('_', ":").parse().ok()?))
}

fn send(text: &str, descriptors: &[BorrowedFd<'_>]) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let Ok(socket) = UnixDatagram::unbound() else { return };
    let path = path.to_string_lossy();
    let address = match path.strip_prefix('@') {
        Some(name) => rustix::net::SocketAddrUnix::new_abstract_name(name.as_bytes()),
        None => rustix::net::SocketAddrUnix::new(path.as_bytes()),
    };
    let Ok(address) = address else { return };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return;
    }
    let text = [IoSlice::new(text.as_bytes())];
    if let Err(error) = sendmsg_addr(&socket, &address, &text, &mut ancillary, SendFlags::NOSIGNAL)
    {
        tracing::warn!(%error, "systemd cannot be told");
    }
}

fn lock() -> MutexGuard<'static, BTreeSet<String>> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_known_again_by_its_name() {
        for address in ["0.0.0.0:443", "[::]:443", "[2001:db8::1]:53", "192.0.2.1:8000"] {
            let address: SocketAddr = address.parse().expect("an address");
            let name = name(Purpose::Udp, address);
            assert!(!name.contains(':'), "{name}");
            assert_eq!(named(&name), Some((Purpose::Udp, address)));
        }
        assert_eq!(named("stored"), None);
    }
}
