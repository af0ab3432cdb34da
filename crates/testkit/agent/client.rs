//! The asking side: single probes, flows that are kept, and the continuous prober.

use std::io::{self, Read, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use socket2::{Domain, Protocol as Transport, Socket, Type};

use crate::datagram;
use crate::message::{Answer, Attempt, Outcome, Probe, Protocol};
use crate::sctp;

/// Probes once. An error means that the attempt could not even be made, for example because the
/// source address is not one of this machine.
pub(crate) fn probe(probe: &Probe) -> Result<Outcome, String> {
    Flow::open(probe).map(|(_closed, outcome)| outcome)
}

/// A connection, or a UDP socket, that is kept: its source port stays the same.
pub(crate) enum Flow {
    Stream { stream: TcpStream, local: SocketAddr },
    Datagrams { socket: UdpSocket, local: SocketAddr },
    Raw { association: sctp::Association },
}

/// Why an exchange brought no answer: an outcome, or no attempt at all.
enum Failure {
    Refused(String),
    Unreachable(String),
    Dropped,
    NotTried(String),
}

impl Failure {
    /// A machine without SCTP says so, and that is the refusal of a closed port.
    fn of_raw_sctp(error: io::Error) -> Self {
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOPROTOOPT | Errno::EPROTO) => {
                Self::Refused(format!("no SCTP there: {error}"))
            }
            Some(_) | None => error.into(),
        }
    }

    fn outcome(self) -> Result<Outcome, String> {
        match self {
            Self::Refused(how) => Ok(Outcome::Refused(how)),
            Self::Unreachable(how) => Ok(Outcome::Unreachable(how)),
            Self::Dropped => Ok(Outcome::Dropped),
            Self::NotTried(reason) => Err(reason),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind;

        let text = error.to_string();
        let kind = error.kind();
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ECONNREFUSED | Errno::ECONNRESET | Errno::EPIPE | Errno::ECONNABORTED) => {
                Self::Refused(text)
            }
            Some(
                Errno::EHOSTUNREACH
                | Errno::ENETUNREACH
                | Errno::EACCES
                | Errno::EPERM
                | Errno::ENOPROTOOPT
                | Errno::EPROTO,
            ) => Self::Unreachable(text),
            Some(Errno::ETIMEDOUT | Errno::EAGAIN) => Self::Dropped,
            Some(_) => Self::NotTried(text),
            // Not the system's, but made here or in the standard library.
            None if matches!(kind, ErrorKind::TimedOut | ErrorKind::WouldBlock) => Self::Dropped,
            None if kind == ErrorKind::ConnectionReset => Self::Refused(text),
            None if kind == ErrorKind::UnexpectedEof => {
                Self::Refused("closed before an answer".into())
            }
            None => Self::NotTried(text),
        }
    }
}

impl Flow {
    /// Opens a flow and asks once.
    pub(crate) fn open(probe: &Probe) -> Result<(Option<Self>, Outcome), String> {
        match Self::try_open(probe) {
            Ok((flow, answer)) => Ok((Some(flow), Outcome::Reached(answer))),
            Err(failure) => match failure.outcome() {
                Ok(outcome) => Ok((None, outcome)),
                Err(reason) => Err(format!("probe {}/{}: {reason}", probe.to, probe.protocol)),
            },
        }
    }

    fn try_open(probe: &Probe) -> Result<(Self, Answer), Failure> {
        let begin = Instant::now();
        let domain = Domain::for_address(probe.to);
        match probe.protocol {
            Protocol::Tcp => {
                let socket = Socket::new(domain, Type::STREAM, Some(Transport::TCP))?;
                connect_stream(socket, probe, begin)
            }
            Protocol::Udp => {
                let socket = Socket::new(domain, Type::DGRAM, Some(Transport::UDP))?;
                if let Some(from) = probe.from {
                    socket.set_reuse_address(true)?;
                    socket.bind(&from.into())?;
                }
                let socket = UdpSocket::from(socket);
                datagram::report_all_errors(&socket, probe.to.is_ipv6())?;
                socket.connect(probe.to)?;
                let local = socket.local_addr()?;
                let mut flow = Self::Datagrams { socket, local };
                let answer = flow.try_ask(begin, probe.deadline)?;
                Ok((flow, answer))
            }
            Protocol::Sctp => match sctp::kernel_socket(domain)? {
                Some(socket) => connect_stream(socket, probe, begin),
                None => {
                    let mut association =
                        sctp::Association::open(probe, begin).map_err(Failure::of_raw_sctp)?;
                    let connected = begin.elapsed();
                    let mut answer =
                        association.ask(begin, probe.deadline).map_err(Failure::of_raw_sctp)?;
                    answer.connected = connected;
                    Ok((Self::Raw { association }, answer))
                }
            },
        }
    }

    /// Asks the server at the other end who it is.
    pub(crate) fn ask(&mut self, deadline: Duration) -> Result<Outcome, String> {
        match self.try_ask(Instant::now(), deadline) {
            Ok(answer) => Ok(Outcome::Reached(answer)),
            Err(failure) => failure.outcome().map_err(|it| format!("ask over a flow: {it}")),
        }
    }

    fn try_ask(&mut self, begin: Instant, deadline: Duration) -> Result<Answer, Failure> {
        match self {
            Self::Stream { stream, local } => {
                stream.write_all(b"?\n")?;
                let text = read_line(stream, begin, deadline)?;
                Ok(read_answer(&text, *local, begin)?)
            }
            Self::Datagrams { socket, local } => {
                let nonce = next_nonce();
                socket.send(nonce.as_bytes())?;
                let mut buffer = [0; 2048];
                loop {
                    socket.set_read_timeout(Some(left(begin, deadline)?))?;
                    let length = socket.recv(&mut buffer)?;
                    let text = String::from_utf8_lossy(&buffer[..length]);
                    // An answer to an earlier question may come late.
                    if let Some(text) = text.strip_suffix(nonce.as_str()) {
                        return Ok(read_answer(text, *local, begin)?);
                    }
                }
            }
            Self::Raw { association } => {
                association.ask(begin, deadline).map_err(Failure::of_raw_sctp)
            }
        }
    }
}

fn connect_stream(
    socket: Socket,
    probe: &Probe,
    begin: Instant,
) -> Result<(Flow, Answer), Failure> {
    // A reset instead of TIME_WAIT: thousands of probes must not use up the ports.
    let _not_for_sctp = socket.set_linger(Some(Duration::ZERO));
    if let Some(from) = probe.from {
        socket.set_reuse_address(true)?;
        socket.bind(&from.into())?;
    }
    socket.connect_timeout(&probe.to.into(), left(begin, probe.deadline)?)?;
    let connected = begin.elapsed();
    let stream = TcpStream::from(socket);
    let local = stream.local_addr()?;
    let text = read_line(&stream, begin, probe.deadline)?;
    let mut answer = read_answer(&text, local, begin)?;
    answer.connected = connected;
    Ok((Flow::Stream { stream, local }, answer))
}

/// What is left of a deadline; an error of kind `TimedOut` when nothing is.
pub(crate) fn left(begin: Instant, deadline: Duration) -> io::Result<Duration> {
    match deadline.checked_sub(begin.elapsed()) {
        Some(left) if !left.is_zero() => Ok(left),
        Some(_) | None => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Reads one line and not a byte more: what follows belongs to a later answer.
fn read_line(mut stream: &TcpStream, begin: Instant, deadline: Duration) -> io::Result<String> {
    let mut text = Vec::new();
    let mut peeked = [0; 512];
    loop {
        stream.set_read_timeout(Some(left(begin, deadline)?))?;
        let length = stream.peek(&mut peeked)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let end = peeked[..length].iter().position(|it| *it == b'\n');
        let start = text.len();
        text.resize(start + end.map_or(length, |it| it + 1), 0);
        stream.read_exact(&mut text[start..])?;
        if end.is_some() {
            return Ok(String::from_utf8_lossy(&text).into_owned());
        }
    }
}

/// Reads a server's line; the connection time is set by those who know it.
pub(crate) fn read_answer(text: &str, local: SocketAddr, begin: Instant) -> io::Result<Answer> {
    let answered = begin.elapsed();
    let words: Vec<_> = text.split_whitespace().collect();
    let ["ECHO", server, source_seen, reached_on] = words[..] else {
        return Err(io::Error::other(format!("`{}` is not an echo server's line", text.trim())));
    };
    let address = |it: &str| {
        it.parse().map_err(|_| io::Error::other(format!("`{it}` is not an address and port")))
    };
    Ok(Answer {
        server: server.to_owned(),
        source_seen: address(source_seen)?,
        reached_on: address(reached_on)?,
        local,
        connected: answered,
        answered,
    })
}

fn next_nonce() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("#{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Probes at a steady rate, whatever becomes of the single attempts: one that waits for its
/// deadline does not delay the next.
pub(crate) struct Prober {
    stop: AtomicBool,
    ended: Mutex<Ended>,
    clock: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Ended {
    attempts: Vec<Attempt>,
    error: Option<String>,
}

impl Prober {
    pub(crate) fn start(probe: Probe, every: Duration) -> Arc<Self> {
        let prober = Arc::new(Self {
            stop: AtomicBool::new(false),
            ended: Mutex::default(),
            clock: Mutex::new(None),
        });
        let clock = std::thread::spawn({
            let prober = Arc::clone(&prober);
            move || prober.run(probe, every)
        });
        *lock(&prober.clock) = Some(clock);
        prober
    }

    fn run(self: &Arc<Self>, probe: Probe, every: Duration) {
        let mut open: Vec<JoinHandle<()>> = Vec::new();
        let mut next = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            let prober = Arc::clone(self);
            open.push(std::thread::spawn(move || prober.attempt(probe)));
            open.retain(|it| !it.is_finished());
            next += every;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        for attempt in open {
            let _panicked = attempt.join();
        }
    }

    fn attempt(&self, probe: Probe) {
        let at = SystemTime::now();
        let outcome = self::probe(&probe);
        let mut ended = lock(&self.ended);
        match outcome {
            Ok(outcome) => ended.attempts.push(Attempt { at, outcome }),
            Err(reason) => ended.error = Some(reason),
        }
    }

    /// The attempts that have ended since the last call, or why one could not be made.
    pub(crate) fn take(&self) -> Result<Vec<Attempt>, String> {
        let mut ended = lock(&self.ended);
        if let Some(error) = ended.error.take() {
            return Err(error);
        }
        let mut attempts = std::mem::take(&mut ended.attempts);
        attempts.sort_by_key(|it| it.at);
        Ok(attempts)
    }

    /// Begins no further attempt and waits for those that are open.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        let clock = lock(&self.clock).take();
        if let Some(clock) = clock {
            let _panicked = clock.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
