//! Echo servers: they tell every client their own name, the source that they saw, and the address
//! that they were reached on.
//!
//! Over TCP the answer comes as soon as the connection is open, and again for each line that the
//! client sends. Over UDP each datagram is answered, with its own text at the end. The answer is
//! one line of text, so that a person with a terminal can ask as well:
//! `ECHO NAME SOURCE REACHED-ON [TEXT]`.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::datagram;
use crate::message::Protocol;
use crate::sctp;

/// An open echo server. Dropping it closes its socket and its connections before it returns.
pub(crate) struct Server {
    address: SocketAddr,
    /// Closing this end is the signal to stop, for the listener and for each connection.
    stop: Option<UnixStream>,
    listener: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on `at`; port 0 lets the kernel choose one. The address `::` takes IPv4 as well.
    pub(crate) fn open(name: &str, at: SocketAddr, protocol: Protocol) -> io::Result<Self> {
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(io::Error::other("the name of a server is one word"));
        }
        let (stop, stopped) = UnixStream::pair()?;
        let stopped = Arc::new(stopped);
        let name = name.to_owned();
        let (address, listener) = match protocol {
            Protocol::Tcp => {
                let socket = TcpListener::bind(at)?;
                (socket.local_addr()?, spawn(move || accept(&socket, &name, &stopped)))
            }
            Protocol::Udp => {
                let socket = UdpSocket::bind(at)?;
                // A wildcard socket must answer from the address that was asked.
                datagram::report_destination(&socket, at.is_ipv6())?;
                (socket.local_addr()?, spawn(move || answer(&socket, &name, &stopped)))
            }
            Protocol::Sctp => match sctp::kernel_listener(at)? {
                Some(socket) => {
                    (socket.local_addr()?, spawn(move || accept(&socket, &name, &stopped)))
                }
                None => {
                    let listener = sctp::Listener::bind(at, &name)?;
                    let address = listener.address();
                    let wait = move || {
                        let _until_closed = readable(&*stopped, &stopped);
                        drop(listener);
                    };
                    (address, spawn(wait))
                }
            },
        };
        Ok(Self { address, stop: Some(stop), listener: Some(listener) })
    }

    /// The address that was bound.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(listener) = self.listener.take() {
            let _panicked = listener.join();
        }
    }
}

fn spawn(f: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    std::thread::spawn(f)
}

/// The line that a client gets.
pub(crate) fn line(name: &str, source: SocketAddr, reached_on: SocketAddr) -> String {
    format!("ECHO {name} {} {}", canonical(source), canonical(reached_on))
}

/// Writes an IPv4 address that a dual-stack socket saw as what it is.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Waits until there is something to read; `false` when the server was closed.
pub(crate) fn readable(socket: &impl AsFd, stopped: &UnixStream) -> bool {
    let mut sources = [
        PollFd::new(socket.as_fd(), PollFlags::POLLIN),
        PollFd::new(stopped.as_fd(), PollFlags::POLLIN),
    ];
    loop {
        match poll(&mut sources, PollTimeout::NONE) {
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => continue,
            Err(_) => return false,
        }
        let happened = |it: &PollFd<'_>| it.revents().is_some_and(|it| !it.is_empty());
        if happened(&sources[1]) {
            return false;
        }
        if happened(&sources[0]) {
            return true;
        }
    }
}

fn accept(listener: &TcpListener, name: &str, stopped: &Arc<UnixStream>) {
    while readable(listener, stopped) {
        let Ok((mut stream, source)) = listener.accept() else { continue };
        let Ok(reached_on) = stream.local_addr() else { continue };
        let line = line(name, source, reached_on) + "\n";
        let _not_for_sctp = stream.set_nodelay(true);
        // From here and not from the connection's thread: the time to start one is not part of
        // what a client measures.
        if stream.write_all(line.as_bytes()).is_err() {
            continue;
        }
        let stopped = Arc::clone(stopped);
        std::thread::spawn(move || echo(stream, &line, &stopped));
    }
}

fn echo(stream: TcpStream, line: &str, stopped: &UnixStream) {
    let Ok(mut output) = stream.try_clone() else { return };
    let mut input = BufReader::new(stream);
    let mut question = String::new();
    while !input.buffer().is_empty() || readable(input.get_ref(), stopped) {
        question.clear();
        match input.read_line(&mut question) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if output.write_all(line.as_bytes()).is_err() {
            return;
        }
    }
}

fn answer(socket: &UdpSocket, name: &str, stopped: &UnixStream) {
    while readable(socket, stopped) {
        // An ICMP error of an earlier answer, or a datagram that is not for us.
        let _ = answer_one(socket, name);
    }
}

fn answer_one(socket: &UdpSocket, name: &str) -> io::Result<()> {
    let port = socket.local_addr()?.port();
    let question = datagram::receive(socket)?;
    let reached_on = SocketAddr::new(question.reached_on, port);
    let mut line = line(name, question.source, reached_on).into_bytes();
    line.push(b' ');
    line.extend_from_slice(&question.bytes);
    datagram::send_from(socket, question.reached_on, question.source, &line)
}
