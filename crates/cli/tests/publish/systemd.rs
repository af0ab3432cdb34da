//! What systemd does for a gateway: it keeps the sockets while one process follows another.

use std::collections::BTreeMap;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::Signal;
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use testkit::Protocol::Tcp;
use testkit::probe::Probe;
use testkit::wait;

use crate::objects::Service;
use crate::place::{ONE, PATIENCE, Place, at, finish, none_failed_or_slow};

/// The first descriptor that the next process is given. Higher than any that is in use by chance.
const FIRST: i32 = 700;

/// The next process waits for agents, whose first attempt to come back may be a second away.
const RESTARTED: Duration = Duration::from_secs(3);

#[test]
fn a_restart_under_systemd_refuses_nobody() -> anyhow::Result<()> {
    let Some(place) = Place::empty("systemd", ONE)? else { return Ok(()) };
    place.create_gateway(1, "", &[])?;
    let systemd = Systemd::new(&place)?;
    place.start_gateway_in(1, &[("NOTIFY_SOCKET", &systemd.path), ("FDSTORE", "4096")])?;
    place.start_agent(1)?;
    place.wait_connected(1, 1)?;
    place.write("blog", &Service::default().yaml())?;
    place.reached(at(1, 443), Tcp)?;
    let mut store = BTreeMap::new();
    wait::until_ok("systemd has the sockets", PATIENCE, || {
        systemd.receive(&mut store)?;
        let has = |port: &str| store.keys().any(|it| it.starts_with("tcp-") && it.ends_with(port));
        Ok((has("_443") && has("_80")).then_some(()))
    })?;

    let prober = place
        .visitor()
        .prober(Probe::new(at(1, 443), Tcp).within(2 * RESTARTED), Duration::from_millis(20))?;
    let some = || {
        wait::until_ok("visitors come", PATIENCE, || Ok((!prober.read()?.is_empty()).then_some(())))
    };
    some()?;
    place.with_gateway(1, |it| it.signal(Signal::SIGTERM))?;
    let status = place.with_gateway(1, |it| it.wait(PATIENCE))?;
    assert!(status.success(), "{status}");
    systemd.receive(&mut store)?;
    // Whoever comes now waits in the kernel: nobody else has the sockets.
    let handed = hand_over(&store)?;
    let names: Vec<&str> = store.keys().map(String::as_str).collect();
    place.start_gateway_in(
        1,
        &[
            ("NOTIFY_SOCKET", &systemd.path),
            ("FDSTORE", "4096"),
            ("LISTEN_FDS", &handed.len().to_string()),
            ("LISTEN_FDS_FIRST_FD", &FIRST.to_string()),
            ("LISTEN_FDNAMES", &names.join(":")),
        ],
    )?;
    drop(handed);
    place.reached(at(1, 443), Tcp)?;
    none_failed_or_slow(&finish(prober)?, RESTARTED);

    // A port that is closed is no longer kept.
    place.remove("blog")?;
    wait::until_ok("systemd lets go of the sockets", PATIENCE, || {
        systemd.receive(&mut store)?;
        Ok(store.keys().all(|it| !it.ends_with("_443") && !it.ends_with("_80")).then_some(()))
    })
}

/// The sockets, one after the other from [`FIRST`] on, for a process that is started next.
fn hand_over(store: &BTreeMap<String, OwnedFd>) -> anyhow::Result<Vec<OwnedFd>> {
    let mut handed = Vec::new();
    for (expected, socket) in (FIRST..).zip(store.values()) {
        let copy = fcntl_dupfd_cloexec(socket, FIRST)?;
        anyhow::ensure!(copy.as_raw_fd() == expected, "descriptor {expected} is in use");
        fcntl_setfd(&copy, FdFlags::empty())?;
        handed.push(copy);
    }
    Ok(handed)
}

/// The part of systemd that is told things, and keeps sockets (`sd_notify(3)`).
struct Systemd {
    socket: UnixDatagram,
    path: String,
}

impl Systemd {
    fn new(place: &Place) -> anyhow::Result<Self> {
        let path = place.path("notify");
        let socket = UnixDatagram::bind(&path)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, path: path.display().to_string() })
    }

    /// Does what it has been told since.
    fn receive(&self, store: &mut BTreeMap<String, OwnedFd>) -> anyhow::Result<()> {
        loop {
            let mut text = [0; 512];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut slices = [IoSliceMut::new(&mut text)];
            let received =
                recvmsg(&self.socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC);
            let length = match received {
                Ok(received) => received.bytes,
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let sockets = control.drain().filter_map(|it| {
                if let RecvAncillaryMessage::ScmRights(sockets) = it { Some(sockets) } else { None }
            });
            let socket = sockets.flatten().next();
            let text = std::str::from_utf8(&text[..length])?;
            let name = text.lines().find_map(|it| it.strip_prefix("FDNAME="));
            if text.starts_with("FDSTORE=1") {
                let name = name.context("a socket without a name")?;
                store.insert(name.to_owned(), socket.context("a name without a socket")?);
            } else if text.starts_with("FDSTOREREMOVE=1") {
                store.remove(name.context("no name")?);
            }
        }
    }
}
