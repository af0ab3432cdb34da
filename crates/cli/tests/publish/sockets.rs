//! Plain sockets of this process that belong to machines of the lab.

use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::Context as _;
use testkit::Machine;

/// A listener on every address of a machine; it stays there whichever thread uses it.
pub(crate) fn listen(machine: &Machine, port: u16) -> anyhow::Result<TcpListener> {
    let at = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let bound = machine.enter(|| TcpListener::bind(at))?;
    bound.with_context(|| format!("listen on {port} of {}", machine.name()))
}

/// A connection that begins at a machine, and does not wait for ever.
pub(crate) fn connect(machine: &Machine, to: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = machine.enter(|| TcpStream::connect_timeout(&to, Duration::from_secs(5)))?;
    let stream = stream.with_context(|| format!("{} connects to {to}", machine.name()))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.set_write_timeout(Some(Duration::from_secs(20)))?;
    Ok(stream)
}
