//! Tells when somebody else changed this machine's firewall, or anything changed its addresses.
//!
//! Listens where `nft monitor` and `ip monitor` listen, at the kernel's netlink groups, but without
//! those programs: nothing has to be kept alive, a change of ten thousand elements is not printed
//! and read back, and an idle machine costs nothing. What has changed is not told; whoever needs to
//! know looks.
//!
//! Changes made with the old `iptables-legacy` programs are announced by no kernel.

mod answers;
mod message;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt,
    socket, sockopt,
};
use tokio::io::unix::AsyncFd;

pub(crate) use answers::Answers;

use crate::OwnProcesses;

/// `1 << (NFNLGRP_NFTABLES - 1)` of `linux/netfilter/nfnetlink.h`.
const FIREWALL: u32 = 1 << 6;

/// `RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR` of `linux/rtnetlink.h`.
const ADDRESSES: u32 = 0x1 | 0x10 | 0x100;

/// How much the kernel may keep for us, in bytes, while we do other things. What does not fit is
/// lost, and told as a change of unknown origin.
const BACKLOG: usize = 4 << 20;

/// Larger than any packet of messages that the kernel makes.
const PACKET: usize = 64 << 10;

/// Something of this machine changed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LocalChange {
    /// A transaction of nftables, or of iptables on top of it, that was none of ours.
    Firewall(ChangedBy),
    /// An address or an interface came, went or changed.
    Addresses,
}

/// Who made a change.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ChangedBy {
    /// This process.
    Process {
        /// Its number, as seen from outside of all containers.
        pid: u32,
        /// The beginning of its name.
        name: String,
    },
    /// Nobody knows: there were more changes than we could read.
    Unknown,
}

/// Waits for changes of this machine that are none of ours.
#[derive(Debug)]
pub struct LocalChanges {
    firewall: AsyncFd<OwnedFd>,
    addresses: AsyncFd<OwnedFd>,
    own: OwnProcesses,
}

impl LocalChanges {
    /// Starts to listen. Changes made by the processes in `own` are not told.
    ///
    /// Our own are recognised by their process number. In a container with process numbers of its
    /// own the kernel tells others, and then our changes are told as well.
    ///
    /// # Errors
    ///
    /// Fails when the kernel permits no such socket, as it does without `CAP_NET_ADMIN`.
    ///
    /// # Panics
    ///
    /// Panics outside of a Tokio runtime.
    pub fn watch(own: OwnProcesses) -> io::Result<Self> {
        Ok(Self {
            firewall: listen(SockProtocol::NetlinkNetFilter, FIREWALL)?,
            addresses: listen(SockProtocol::NetlinkRoute, ADDRESSES)?,
            own,
        })
    }

    /// Waits for the next change. Changes that came together are told once.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// Fails when the kernel cannot be listened to any more.
    pub async fn next(&mut self) -> io::Result<LocalChange> {
        loop {
            let changed = tokio::select! {
                ready = self.firewall.readable() => {
                    let mut ready = ready?;
                    let mut by = None;
                    let drained = drain(ready.get_inner(), |packet| {
                        for maker in message::generations(packet) {
                            if !maker.is_one_of(&self.own) {
                                by = Some(maker);
                            }
                        }
                    });
                    ready.clear_ready();
                    match drained? {
                        Drained::Everything => by.map(LocalChange::Firewall),
                        Drained::SomeLost => Some(LocalChange::Firewall(ChangedBy::Unknown)),
                    }
                }
                ready = self.addresses.readable() => {
                    let mut ready = ready?;
                    let drained = drain(ready.get_inner(), |_packet| {});
                    ready.clear_ready();
                    drained?;
                    Some(LocalChange::Addresses)
                }
            };
            if let Some(changed) = changed {
                return Ok(changed);
            }
        }
    }
}

impl ChangedBy {
    fn is_one_of(&self, own: &OwnProcesses) -> bool {
        match self {
            Self::Process { pid, .. } => own.contains(*pid),
            Self::Unknown => false,
        }
    }
}

fn listen(protocol: SockProtocol, groups: u32) -> io::Result<AsyncFd<OwnedFd>> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
    // Without the right to force it, the system's limit has to do.
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &BACKLOG);
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    #[expect(
        deprecated,
        reason = "the other ways are unsafe; an `OwnedFd` is one for all its life"
    )]
    AsyncFd::new(socket)
}

enum Drained {
    Everything,
    SomeLost,
}

/// Takes all packets that are there.
fn drain(socket: &OwnedFd, mut each: impl FnMut(&[u8])) -> io::Result<Drained> {
    let mut packet = vec![0; PACKET];
    let mut drained = Drained::Everything;
    loop {
        match recv(socket.as_raw_fd(), &mut packet, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => each(packet.get(..length).unwrap_or_default()),
            Err(Errno::EAGAIN) => return Ok(drained),
            Err(Errno::EINTR) => {}
            Err(Errno::ENOBUFS) => drained = Drained::SomeLost,
            Err(errno) => return Err(errno.into()),
        }
    }
}
