//! The kernel's word that it has taken a transaction, before the program that sent it has ended.
//!
//! When `nft` has deleted something, Linux lets it wait for an RCU grace period as it closes its
//! socket: 5 to 20 ms in which nothing more is decided (`nft_rcv_nl_event`, Linux 6.18). The kernel
//! announces the transaction before that, with the number of the process.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::socket::SockProtocol;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use super::{ChangedBy, Drained, FIREWALL, drain, listen, message};

/// The inode of the first PID namespace: `PROC_PID_INIT_INO` of `linux/proc_ns.h`.
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

/// Where the kernel announces transactions.
///
/// One socket for all clones, opened with the first change and never closed before the last of
/// them: closing it would wait as `nft` does.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answers(Arc<Mutex<Socket>>);

#[derive(Debug, Default)]
enum Socket {
    #[default]
    NotOpened,
    Open(Arc<AsyncMutex<AsyncFd<OwnedFd>>>),
    /// The kernel permits none, or tells other process numbers than we know.
    Useless,
}

/// What is announced from now on. One command at a time can listen.
#[derive(Debug)]
pub(crate) struct Listening(OwnedMutexGuard<AsyncFd<OwnedFd>>);

impl Answers {
    /// Starts to listen; `None` where only the end of a program tells what came of it.
    pub(crate) fn listen(&self) -> Option<Listening> {
        let socket = match &mut *self.lock() {
            Socket::Open(socket) => Arc::clone(socket),
            Socket::Useless => return None,
            unopened @ Socket::NotOpened => match open() {
                Some(socket) => {
                    let socket = Arc::new(AsyncMutex::new(socket));
                    *unopened = Socket::Open(Arc::clone(&socket));
                    socket
                }
                None => {
                    *unopened = Socket::Useless;
                    return None;
                }
            },
        };
        let socket = socket.try_lock_owned().ok()?;
        // What is there already cannot be about a process that does not run yet.
        drain(socket.get_ref(), |_packet| {}).ok()?;
        Some(Listening(socket))
    }

    fn lock(&self) -> MutexGuard<'_, Socket> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listening {
    /// Waits until the kernel has taken a transaction of this process; for ever when it was not
    /// heard, or when there is none.
    pub(crate) async fn transaction_of(&self, process: u32) {
        loop {
            let Ok(mut ready) = self.0.readable().await else { break };
            let mut taken = false;
            let drained = drain(ready.get_inner(), |packet| {
                let is_it = |it: &ChangedBy| matches!(it, ChangedBy::Process { pid, .. } if *pid == process);
                taken |= message::generations(packet).iter().any(is_it);
            });
            ready.clear_ready();
            match drained {
                _ if taken => return,
                Ok(Drained::Everything | Drained::SomeLost) => {}
                Err(_) => break,
            }
        }
        std::future::pending().await
    }
}

fn open() -> Option<AsyncFd<OwnedFd>> {
    // Elsewhere the number of a stranger could be that of our own process.
    let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?;
    let first = namespace.to_str() == Some(FIRST_PID_NAMESPACE);
    first.then(|| listen(SockProtocol::NetlinkNetFilter, FIREWALL).ok()).flatten()
}
