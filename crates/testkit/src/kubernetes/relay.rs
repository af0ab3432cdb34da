//! A way from this process's loopback into a network namespace, for one TCP port.
//!
//! A cluster's API server listens only inside the cluster's own namespaces; nothing of it is
//! reachable from other machines, and no route or interface is added to this machine.

use std::fs::File;
use std::io::copy;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, spawn};

use anyhow::Context as _;
use nix::sched::{CloneFlags, setns};

use super::namespace::Holder;

/// Listens on a free port of the loopback interface and connects onwards inside a namespace,
/// until it is dropped. A connection is closed at once when nothing listens inside.
#[derive(Debug)]
pub(super) struct Relay {
    address: SocketAddr,
    over: Arc<AtomicBool>,
    listening: Option<JoinHandle<()>>,
}

impl Relay {
    pub(super) fn into_namespace(holder: &Holder, target: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .context("cannot listen on the loopback interface")?;
        let address = listener.local_addr().context("a listener without an address")?;
        let namespace =
            File::open(holder.network_namespace()).context("cannot open a network namespace")?;
        let over = Arc::new(AtomicBool::new(false));
        let seen_over = Arc::clone(&over);
        let listening = spawn(move || {
            let namespace = Arc::new(namespace);
            for connection in listener.incoming().flatten() {
                if seen_over.load(Ordering::Acquire) {
                    return;
                }
                let namespace = Arc::clone(&namespace);
                // A thread of its own, which may change its namespace because it does nothing else.
                spawn(move || {
                    let _connection_over = forward(&connection, &namespace, target);
                });
            }
        });
        Ok(Self { address, over, listening: Some(listening) })
    }

    /// Where to connect to.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        // One more connection lets the listener notice.
        let _woken_or_gone = TcpStream::connect(self.address);
        if let Some(listening) = self.listening.take() {
            let _panicked_either_way = listening.join();
        }
    }
}

fn forward(near: &TcpStream, namespace: &File, target: SocketAddr) -> std::io::Result<()> {
    setns(namespace, CloneFlags::CLONE_NEWNET)?;
    let far = TcpStream::connect(target)?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (near_in, far_out) = (near.try_clone()?, far.try_clone()?);
    spawn(move || carry(&near_in, &far_out));
    carry(&far, near);
    Ok(())
}

fn carry(mut from: &TcpStream, mut to: &TcpStream) {
    let _either_way_over = copy(&mut from, &mut to);
    let _already_closed = to.shutdown(Shutdown::Write);
    let _already_closed = from.shutdown(Shutdown::Read);
}
