//! A way from this process's loopback into a network namespace, for one TCP port.
//!
//! A cluster's API server listens only inside the cluster's own namespaces; nothing of it is
//! reachable from other machines, and no route or interface is added to this machine.

use std::fs::File;
use std::io::copy;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::spawn;

use anyhow::Context as _;
use nix::sched::{CloneFlags, setns};

use super::namespace::Holder;

/// Listens on a free port of the loopback interface and connects onwards inside a namespace.
///
/// It works as long as this process lives; a connection is refused inside when the target is gone.
pub(super) fn into_namespace(holder: &Holder, target: SocketAddr) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen on the loopback interface")?;
    let address = listener.local_addr().context("a listener without an address")?;
    let namespace = File::open(holder.network_namespace()).context("cannot open a network namespace")?;
    let namespace = Arc::new(namespace);
    spawn(move || {
        for connection in listener.incoming().flatten() {
            let namespace = Arc::clone(&namespace);
            // A thread of its own, which may change its namespace because it does nothing else.
            spawn(move || {
                let _connection_over = forward(&connection, &namespace, target);
            });
        }
    });
    Ok(address)
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
