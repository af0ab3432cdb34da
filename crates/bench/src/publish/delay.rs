//! A wire between two machines on which every packet takes a while: a third machine in between
//! takes frames from one side and puts them out on the other when their time has come.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
    socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};
use testkit::{Lab, Machine};

/// Longer than any frame.
const LONGEST: usize = 10_000;

/// How long a reader waits before it looks whether it is over.
const LOOK_EVERY_MS: i64 = 100;

/// Frames in flight, until it is dropped.
pub(super) struct DelayedWire {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl DelayedWire {
    /// Joins `a` and `b`, which get these addresses on `eth0`.
    pub(super) fn new(
        lab: &Lab,
        a: (&Machine, &str),
        b: (&Machine, &str),
        one_way: Duration,
    ) -> Result<Self> {
        let wire = lab.machine("wire")?;
        for ((machine, address), port) in [(a, "left"), (b, "right")] {
            lab.link(machine, "eth0", &[address], &wire, port, &[])?;
            // Whole frames with whole checksums, as they would be on a real wire.
            let offloads = ["tx", "off", "tso", "off", "gso", "off", "gro", "off"];
            for (on, interface) in [(machine, "eth0"), (&wire, port)] {
                on.run("ip", &["link", "set", interface, "mtu", "9000"])?;
                on.run("ethtool", &[&["-K", interface], &offloads[..]].concat())?;
            }
        }
        let (left, right) = wire.enter(|| anyhow::Ok((open("left")?, open("right")?)))??;
        let (left, right) = (Arc::new(left), Arc::new(right));
        let over = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for (from, to) in [(&left, &right), (&right, &left)] {
            threads.extend(carry(Arc::clone(from), Arc::clone(to), one_way, Arc::clone(&over)));
        }
        Ok(Self { over, threads })
    }
}

impl Drop for DelayedWire {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _panicked = thread.join();
        }
    }
}

/// A socket for the frames of one interface.
fn open(interface: &str) -> Result<OwnedFd> {
    let protocol = SockProtocol::EthAll;
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), protocol)?;
    let mut all = nix::ifaddrs::getifaddrs()?;
    let address = all.find_map(|it| {
        let here = it.interface_name == interface;
        it.address.filter(|_| here)?.as_link_addr().copied()
    });
    bind(socket.as_raw_fd(), &address.context("no such interface")?)?;
    let timeout = TimeVal::milliseconds(LOOK_EVERY_MS);
    setsockopt(&socket, sockopt::ReceiveTimeout, &timeout)?;
    // Bursts wait here; where that is not allowed, the usual limit holds.
    let _limited = setsockopt(&socket, sockopt::RcvBufForce, &(64 << 20));
    let _limited = setsockopt(&socket, sockopt::SndBuf, &(4 << 20));
    Ok(socket)
}

fn carry(
    from: Arc<OwnedFd>,
    to: Arc<OwnedFd>,
    one_way: Duration,
    over: Arc<AtomicBool>,
) -> [JoinHandle<()>; 2] {
    let (sender, frames) = channel::<(Instant, Vec<u8>)>();
    let reads = std::thread::spawn(move || {
        let mut frame = vec![0; LONGEST];
        while !over.load(Ordering::Relaxed) {
            let Ok(length) = recv(from.as_raw_fd(), &mut frame, MsgFlags::empty()) else {
                continue;
            };
            if sender.send((Instant::now() + one_way, frame[..length].to_vec())).is_err() {
                return;
            }
        }
    });
    let writes = std::thread::spawn(move || {
        for (due, frame) in frames {
            let wait = due.saturating_duration_since(Instant::now());
            // Sleeping takes longer than that.
            if wait > Duration::from_micros(200) {
                std::thread::sleep(wait);
            }
            // A frame that cannot be sent is a frame lost, as on every wire.
            let _lost = send(to.as_raw_fd(), &frame, MsgFlags::empty());
        }
    });
    [reads, writes]
}
