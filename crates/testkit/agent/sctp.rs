//! SCTP: the kernel's where it has one, else as much of it as a probe needs, over raw sockets.
//!
//! Many kernels track and translate SCTP but cannot speak it (`CONFIG_NF_CT_PROTO_SCTP` without
//! `CONFIG_IP_SCTP`). What a packet filter does to SCTP can be tested there all the same: the
//! handshake, one message each way and the abort are exchanged as real packets with real
//! checksums. There is no retransmission; a lost packet is a lost probe.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use crate::client::{left, read_answer};
use crate::message::{Answer, Probe};
use packet::{Chunk, Kind, Packet};

#[path = "sctp/packet.rs"]
mod packet;
#[path = "sctp/stack.rs"]
mod stack;

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

/// Who has a port of this machine.
#[derive(Clone)]
enum User {
    Listener { at: IpAddr, name: String },
    Client,
}

static PORTS: Mutex<BTreeMap<u16, User>> = Mutex::new(BTreeMap::new());

fn ports() -> MutexGuard<'static, BTreeMap<u16, User>> {
    PORTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A port that is given back when dropped.
struct Port(u16);

impl Port {
    /// Takes a certain port, or any free one for 0.
    fn take(wanted: u16, user: User) -> io::Result<Self> {
        let mut ports = ports();
        let candidates = if wanted == 0 { 32768..=60999 } else { wanted..=wanted };
        // Not always the first: a port that was just given back may still be tracked somewhere.
        let offset = usize::from(rand_u16()) % candidates.len();
        let port = candidates
            .clone()
            .skip(offset)
            .chain(candidates)
            .find(|it| !ports.contains_key(it))
            .ok_or_else(|| io::Error::from_raw_os_error(Errno::EADDRINUSE as i32))?;
        ports.insert(port, user);
        Ok(Self(port))
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        ports().remove(&self.0);
    }
}

/// A number that differs from call to call and from machine to machine.
fn rand_u16() -> u16 {
    use std::hash::{BuildHasher as _, RandomState};
    let random = RandomState::new().hash_one(0);
    u16::from_le_bytes([random.to_le_bytes()[0], random.to_le_bytes()[1]])
}

fn rand_tag() -> u32 {
    (u32::from(rand_u16()) << 16 | u32::from(rand_u16())).max(1)
}

/// An open port of the raw stack. Closed when dropped.
pub(crate) struct Listener {
    address: SocketAddr,
    _port: Port,
}

impl Listener {
    pub(crate) fn bind(at: SocketAddr, name: &str) -> io::Result<Self> {
        stack::start()?;
        let user = User::Listener { at: at.ip(), name: name.to_owned() };
        let port = Port::take(at.port(), user)?;
        Ok(Self { address: SocketAddr::new(at.ip(), port.0), _port: port })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The client's end of an association of the raw stack. Aborted when dropped.
pub(crate) struct Association {
    socket: Socket,
    local: SocketAddr,
    to: SocketAddr,
    own_tag: u32,
    peer_tag: u32,
    tsn: u32,
    _port: Port,
}

impl Association {
    /// Shakes hands with a server.
    pub(crate) fn open(probe: &Probe, begin: Instant) -> io::Result<Self> {
        let port = Port::take(probe.from.map_or(0, |it| it.port()), User::Client)?;
        let socket = Socket::new(Domain::for_address(probe.to), Type::RAW, Some(Protocol::SCTP))?;
        if let Some(from) = probe.from {
            socket.bind(&SocketAddr::new(from.ip(), 0).into())?;
        }
        crate::datagram::report_all_errors(&socket, probe.to.is_ipv6())?;
        // Connected, so that only this server's packets come, and ICMP errors too.
        socket.connect(&SocketAddr::new(probe.to.ip(), 0).into())?;
        let local = socket.local_addr()?.as_socket().map(|it| SocketAddr::new(it.ip(), port.0));
        let local = local.ok_or_else(|| io::Error::other("a raw socket without an address"))?;
        let mut association = Self {
            socket,
            local,
            to: probe.to,
            own_tag: rand_tag(),
            peer_tag: 0,
            tsn: 1,
            _port: port,
        };
        association.shake_hands(begin, probe.deadline)?;
        Ok(association)
    }

    fn shake_hands(&mut self, begin: Instant, deadline: Duration) -> io::Result<()> {
        self.send(&[Chunk::init(Kind::Init, self.own_tag, &[])])?;
        let (peer_tag, cookie) = self.wait_for(begin, deadline, |packet| {
            let answer = packet.chunks.iter().find(|it| it.kind == Kind::InitAck)?;
            answer.tag_and_cookie()
        })?;
        self.peer_tag = peer_tag;
        self.send(&[Chunk { kind: Kind::CookieEcho, flags: 0, value: cookie }])?;
        self.wait_for(begin, deadline, |packet| {
            packet.chunks.iter().any(|it| it.kind == Kind::CookieAck).then_some(())
        })
    }

    /// Asks the server who it is.
    pub(crate) fn ask(&mut self, begin: Instant, deadline: Duration) -> io::Result<Answer> {
        self.send(&[Chunk::data(self.tsn, b"?")])?;
        self.tsn += 1;
        let text = self.wait_for(begin, deadline, |packet| {
            packet.chunks.iter().find(|it| it.kind == Kind::Data)?.text()
        })?;
        read_answer(&text, self.local, begin)
    }

    fn send(&self, chunks: &[Chunk]) -> io::Result<()> {
        let (from, to) = (self.local.port(), self.to.port());
        let bytes = Packet { from, to, tag: self.peer_tag, chunks: chunks.to_vec() }.to_bytes();
        self.socket.send(&bytes).map(|_| ())
    }

    fn wait_for<T>(
        &self,
        begin: Instant,
        deadline: Duration,
        wanted: impl Fn(&Packet) -> Option<T>,
    ) -> io::Result<T> {
        loop {
            self.socket.set_read_timeout(Some(left(begin, deadline)?))?;
            let mut buffer = [0; 2048];
            let length = io::Read::read(&mut &self.socket, &mut buffer)?;
            let Some(packet) = packet::received(&buffer[..length], self.to.is_ipv4()) else {
                continue;
            };
            if (packet.from, packet.to) != (self.to.port(), self.local.port()) {
                continue;
            }
            if packet.chunks.iter().any(|it| it.kind == Kind::Abort) {
                return Err(io::Error::new(io::ErrorKind::ConnectionReset, "SCTP abort"));
            }
            if packet.tag == self.own_tag
                && let Some(found) = wanted(&packet)
            {
                return Ok(found);
            }
        }
    }
}

impl Drop for Association {
    fn drop(&mut self) {
        if self.peer_tag != 0 {
            let _nobody_waits = self.send(&[Chunk { kind: Kind::Abort, flags: 0, value: vec![] }]);
        }
    }
}
