//! Hands the listening sockets of one process to the next, so that no visitor is refused while a
//! gateway is upgraded.
//!
//! The next process asks at a Unix socket in the state directory. Both then have the sockets, and
//! visitors wait in the kernel for whoever takes them:
//!
//! ```text
//! next      -> present   take
//! present   -> next      sockets, in parts of at most 64, and an empty part
//!                        (takes neither visitors nor agents any more, tells agents to go on)
//! next      -> present   ready        agents have come, or it has waited for them long enough
//! present   -> next      stopped      the next one has it all; flows go on to their end here
//! ```
//!
//! Should the next process end before it is ready, the present one goes on as if nothing had been.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use minicbor::{Decode, Encode};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use socket2::{Domain, SockAddr, Socket, Type};

/// Sockets in one message; the kernel takes at most 253.
const PART: usize = 64;

/// The longest message.
const LONGEST: usize = 64 * 1024;

/// How long one side waits for the other's next word, unless that has to wait for agents.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the present process waits for the next one to be ready.
const READY: Duration = Duration::from_secs(60);

const TAKE: &[u8] = b"portcullis-handover/1 take";
const IS_READY: &[u8] = b"ready";
const STOPPED: &[u8] = b"stopped";

/// What a socket is for.
#[derive(Clone, Copy, Debug, Decode, Encode, Eq, Ord, PartialEq, PartialOrd)]
#[cbor(index_only)]
pub(crate) enum Purpose {
    /// Tunnels over TCP.
    #[n(0)]
    Tunnel,
    /// A published TCP port.
    #[n(1)]
    Tcp,
    /// A published UDP port.
    #[n(2)]
    Udp,
    /// Metrics over TCP.
    #[n(3)]
    Metrics,
}

/// A socket that changes hands.
#[derive(Debug)]
pub(crate) struct Handed {
    pub(crate) purpose: Purpose,
    /// Where it was asked to be bound.
    pub(crate) address: SocketAddr,
    pub(crate) socket: OwnedFd,
}

#[derive(Debug, Decode, Encode)]
struct Described {
    #[n(0)]
    purpose: Purpose,
    #[n(1)]
    address: SocketAddr,
}

/// Where the present process is asked.
fn path(state: &Path) -> PathBuf {
    state.join("handover.sock")
}

/// The present process's end: waits to be asked.
#[derive(Debug)]
pub(crate) struct Offer {
    socket: Socket,
}

/// A next process that has asked.
#[derive(Debug)]
pub(crate) struct Next {
    socket: Socket,
}

/// The next process's end: it has the sockets, and has not said that it is ready.
#[derive(Debug)]
pub(crate) struct Present {
    socket: Socket,
}

impl Offer {
    /// Waits at the socket of this state directory. Whoever waited there before waits in vain.
    pub(crate) fn open(state: &Path) -> io::Result<Self> {
        let path = path(state);
        let new = path.with_extension("new");
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
        socket.bind(&SockAddr::unix(&new)?)?;
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600))?;
        socket.listen(1)?;
        std::fs::rename(&new, &path)?;
        Ok(Self { socket })
    }

    /// Waits until another process of our own user asks. Blocks the thread.
    pub(crate) fn wait(&self) -> io::Result<Next> {
        loop {
            let (socket, _) = self.socket.accept()?;
            let peer = rustix::net::sockopt::socket_peercred(&socket)?;
            let own = rustix::process::geteuid();
            if peer.uid != own && !peer.uid.is_root() {
                tracing::warn!(uid = peer.uid.as_raw(), "somebody else asked for our sockets");
                continue;
            }
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.set_write_timeout(Some(PATIENCE))?;
            let mut word = [0; 64];
            match receive(&socket, &mut word) {
                Ok((length, _)) if word.get(..length) == Some(TAKE) => {
                    return Ok(Next { socket });
                }
                Ok(_) | Err(_) => tracing::warn!("somebody asked for our sockets in other words"),
            }
        }
    }
}

impl Next {
    /// Gives the sockets. Blocks the thread.
    pub(crate) fn give(&self, sockets: &[(Purpose, SocketAddr, BorrowedFd<'_>)]) -> io::Result<()> {
        for part in sockets.chunks(PART) {
            let described: Vec<Described> = part
                .iter()
                .map(|(purpose, address, _)| Described { purpose: *purpose, address: *address })
                .collect();
            let text = minicbor::to_vec(&described).map_err(io::Error::other)?;
            let descriptors: Vec<BorrowedFd<'_>> = part.iter().map(|(_, _, it)| *it).collect();
            send(&self.socket, &text, &descriptors)?;
        }
        let none: Vec<Described> = Vec::new();
        send(&self.socket, &minicbor::to_vec(&none).map_err(io::Error::other)?, &[])
    }

    /// Waits until the next process is ready. Blocks the thread.
    pub(crate) fn wait_ready(&self) -> io::Result<()> {
        self.socket.set_read_timeout(Some(READY))?;
        expect(&self.socket, IS_READY)
    }

    /// Says that we take no visitors any more.
    pub(crate) fn stopped(&self) -> io::Result<()> {
        send(&self.socket, STOPPED, &[])
    }
}

/// Asks the process that has this state directory for its sockets; `None` when there is none.
/// Blocks the thread.
pub(crate) fn take(state: &Path) -> io::Result<Option<(Vec<Handed>, Present)>> {
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
    match socket.connect(&SockAddr::unix(path(state))?) {
        Ok(()) => {}
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    }
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    send(&socket, TAKE, &[])?;
    let mut handed = Vec::new();
    let mut text = vec![0; LONGEST];
    loop {
        let (length, descriptors) = receive(&socket, &mut text)?;
        let described: Vec<Described> =
            minicbor::decode(text.get(..length).unwrap_or_default()).map_err(io::Error::other)?;
        if described.is_empty() {
            return Ok(Some((handed, Present { socket })));
        }
        if described.len() != descriptors.len() {
            return Err(io::Error::other("a socket was lost on its way"));
        }
        let sockets = described.into_iter().zip(descriptors);
        handed.extend(sockets.map(|(it, socket)| Handed {
            purpose: it.purpose,
            address: it.address,
            socket,
        }));
    }
}

impl Present {
    /// Says that we are ready, and waits until the present process takes no visitors any more.
    /// Blocks the thread.
    pub(crate) fn ready(self) -> io::Result<()> {
        send(&self.socket, IS_READY, &[])?;
        expect(&self.socket, STOPPED)
    }
}

fn expect(socket: &Socket, expected: &[u8]) -> io::Result<()> {
    let mut word = [0; 64];
    let (length, _) = receive(socket, &mut word)?;
    if word.get(..length) == Some(expected) {
        return Ok(());
    }
    Err(io::Error::other("the other process has ended, or says something else"))
}

fn send(socket: &Socket, text: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PART))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many sockets for one message"));
    }
    sendmsg(socket.as_fd(), &[IoSlice::new(text)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive(socket: &Socket, text: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PART))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(text)];
    let received = recvmsg(socket.as_fd(), &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    Ok((received.bytes, descriptors))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use anyhow::Context as _;

    use super::*;

    #[test]
    fn sockets_change_hands_and_stay_open() -> anyhow::Result<()> {
        let directory = tempfile::tempdir()?;
        let offer = Offer::open(directory.path())?;
        let listeners: Vec<TcpListener> =
            (0..200).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<io::Result<_>>()?;
        let first = listeners.first().map(TcpListener::local_addr).transpose()?;
        let first = first.context("there are 200")?;
        let present = std::thread::spawn(move || -> io::Result<()> {
            let next = offer.wait()?;
            let sockets =
                listeners.iter().map(|it| Ok((Purpose::Tcp, it.local_addr()?, it.as_fd())));
            next.give(&sockets.collect::<io::Result<Vec<_>>>()?)?;
            next.wait_ready()?;
            drop(listeners);
            next.stopped()
        });
        let (handed, ready) = take(directory.path())?.context("somebody is there")?;
        assert_eq!(handed.len(), 200);
        ready.ready()?;
        present.join().map_err(|_| anyhow::anyhow!("a panic"))??;
        // Only the socket that was handed over is left.
        TcpStream::connect(first)?;
        let found = handed.iter().find(|it| it.address == first).context("it came along")?;
        let listener = TcpListener::from(found.socket.try_clone()?);
        assert_eq!(listener.accept()?.0.local_addr()?, first);
        Ok(())
    }

    #[test]
    fn where_nobody_is_nothing_is_taken() -> anyhow::Result<()> {
        let directory = tempfile::tempdir()?;
        assert!(take(directory.path())?.is_none());
        drop(Offer::open(directory.path())?);
        assert!(take(directory.path())?.is_none(), "its socket is still there, but it is not");
        Ok(())
    }

    #[test]
    fn a_next_process_that_ends_early_changes_nothing() -> anyhow::Result<()> {
        let directory = tempfile::tempdir()?;
        let offer = Offer::open(directory.path())?;
        let next = std::thread::scope(|scope| {
            let taken = scope.spawn(|| take(directory.path()));
            let next = offer.wait()?;
            next.give(&[])?;
            drop(taken.join().map_err(|_| anyhow::anyhow!("a panic"))??);
            Ok::<_, anyhow::Error>(next)
        })?;
        assert!(next.wait_ready().is_err());
        Ok(())
    }
}
