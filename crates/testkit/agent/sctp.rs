//! SCTP: the kernel's where it has one.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use crate::message::{Answer, Probe};

/// A socket of the kernel's SCTP, or `None` when this kernel has none.
pub(crate) fn kernel_socket(domain: Domain) -> io::Result<Option<Socket>> {
    match Socket::new(domain, Type::STREAM, Some(Protocol::SCTP)) {
        Ok(socket) => Ok(Some(socket)),
        Err(error) => match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EPROTONOSUPPORT | Errno::ESOCKTNOSUPPORT) => Ok(None),
            Some(_) | None => Err(error),
        },
    }
}

/// A listening socket of the kernel's SCTP. It is used through the standard library's type for
/// TCP: the calls are the same.
pub(crate) fn kernel_listener(at: SocketAddr) -> io::Result<Option<TcpListener>> {
    let Some(socket) = kernel_socket(Domain::for_address(at))? else { return Ok(None) };
    socket.bind(&at.into())?;
    socket.listen(128)?;
    Ok(Some(socket.into()))
}

pub(crate) struct Server;
impl Server {
    pub(crate) fn bind(_: SocketAddr) -> io::Result<Self> {
        Err(io::Error::other("this kernel has no SCTP"))
    }
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([0, 0, 0, 0], 0))
    }
    pub(crate) fn run(&self, _: &str, _: &UnixStream) {}
}
pub(crate) struct Association;
impl Association {
    pub(crate) fn open(_: &Probe, _: Instant) -> io::Result<Self> {
        Err(io::Error::other("this kernel has no SCTP"))
    }
    pub(crate) fn ask(&mut self, _: Instant, _: Duration) -> io::Result<Answer> {
        Err(io::Error::other("this kernel has no SCTP"))
    }
}
