//! The handshake of TLS as a function from bytes to bytes: no sockets.
//!
//! It thinks on threads of its own, at most one for each processor: a thousand agents that come
//! back at once take what the visitors leave them.

use std::fmt;
use std::io;
use std::sync::{Arc, LazyLock};

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{ClientConfig, CommonState, ServerConfig};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::records::{Library, Records};

/// A handshake under way.
pub(super) enum Handshake {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
}

/// Whether a handshake is done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Shaken {
    /// It needs more bytes from the other end.
    More,
    /// Both ends know each other.
    Done,
}

/// What the ends have said.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// By the other end, and not used up.
    pub(super) received: Vec<u8>,
    /// Bytes of the application that came early.
    pub(super) plain: Vec<u8>,
    /// What must be sent.
    pub(super) out: Vec<u8>,
}

/// How many handshakes may think at once.
static TURNS: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from)));

impl Handshake {
    pub(super) fn client(
        config: &Arc<ClientConfig>,
        name: ServerName<'static>,
        alpn: &[u8],
    ) -> io::Result<Self> {
        // A connection keeps its configuration: one that all share takes no memory.
        let config = if config.enable_secret_extraction {
            Arc::clone(config)
        } else {
            let mut config = ClientConfig::clone(config);
            config.enable_secret_extraction = true;
            Arc::new(config)
        };
        let alpn = vec![alpn.to_vec()];
        let connection = UnbufferedClientConnection::new_with_alpn(config, name, alpn);
        Ok(Self::Client(Box::new(connection.map_err(nonsense)?)))
    }

    pub(super) fn server(config: &ServerConfig, alpn: &[&[u8]]) -> io::Result<Self> {
        let mut config = config.clone();
        config.alpn_protocols = alpn.iter().map(|it| it.to_vec()).collect();
        config.enable_secret_extraction = true;
        let connection = UnbufferedServerConnection::new(Arc::new(config));
        Ok(Self::Server(Box::new(connection.map_err(nonsense)?)))
    }

    fn common(&self) -> &CommonState {
        match self {
            Self::Client(connection) => connection,
            Self::Server(connection) => connection,
        }
    }

    /// The verified chain of the other end, leaf first.
    pub(super) fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        self.common().peer_certificates().unwrap_or_default()
    }

    /// The agreed protocol.
    pub(super) fn alpn(&self) -> &[u8] {
        self.common().alpn_protocol().unwrap_or_default()
    }

    /// [`shake`](Self::shake) on another thread.
    ///
    /// # Errors
    ///
    /// When it panicked, or the program ends.
    pub(super) async fn shake_aside(
        mut self,
        mut said: Said,
    ) -> io::Result<(Self, Said, io::Result<Shaken>)> {
        let turn = TURNS.acquire().await.map_err(io::Error::other)?;
        let shaking = spawn_blocking(move || {
            let Said { received, plain, out } = &mut said;
            let shaken = self.shake(received, plain, out);
            drop(turn);
            (self, said, shaken)
        });
        shaking.await.map_err(io::Error::other)
    }

    /// Goes on. What must be sent is appended to `out`, also in case of an error; bytes of the
    /// application that came early are appended to `plain`.
    pub(super) fn shake(
        &mut self,
        received: &mut Vec<u8>,
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> io::Result<Shaken> {
        let used = match self {
            Self::Client(connection) => process(&mut **connection, received, plain, out),
            Self::Server(connection) => process(&mut **connection, received, plain, out),
        };
        match used {
            Ok(used) => received.drain(..used),
            Err(error) => {
                // The alert that tells the other end why.
                let _nothing_more = match self {
                    Self::Client(connection) => process(&mut **connection, &mut [], plain, out),
                    Self::Server(connection) => process(&mut **connection, &mut [], plain, out),
                };
                return Err(error);
            }
        };
        Ok(if self.common().is_handshaking() { Shaken::More } else { Shaken::Done })
    }

    /// The record layer for what follows; only once the handshake is done.
    pub(super) fn finish(self) -> io::Result<Records> {
        let (secrets, library) = match self {
            Self::Client(connection) => {
                let (secrets, library) =
                    connection.dangerous_into_kernel_connection().map_err(nonsense)?;
                (secrets, Library::Client(Box::new(library)))
            }
            Self::Server(connection) => {
                let (secrets, library) =
                    connection.dangerous_into_kernel_connection().map_err(nonsense)?;
                (secrets, Library::Server(Box::new(library)))
            }
        };
        Ok(Records::new(library, secrets.tx, secrets.rx))
    }
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client(_) => "Client(..)",
            Self::Server(_) => "Server(..)",
        })
    }
}

/// What client and server have in common, but for their types.
trait Side {
    type Data;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Side for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

impl Side for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

/// Returns how many bytes of `received` are used up.
#[expect(clippy::wildcard_enum_match_arm, reason = "the library's list of states is open")]
fn process<S: Side>(
    side: &mut S,
    received: &mut [u8],
    plain: &mut Vec<u8>,
    out: &mut Vec<u8>,
) -> io::Result<usize> {
    let mut used = 0;
    loop {
        let rest = received.get_mut(used..).unwrap_or_default();
        let UnbufferedStatus { mut discard, state } = side.process(rest);
        let blocked = match state.map_err(nonsense)? {
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(record) = traffic.next_record() {
                    let record = record.map_err(nonsense)?;
                    discard += record.discard;
                    plain.extend_from_slice(record.payload);
                }
                false
            }
            ConnectionState::EncodeTlsData(mut data) => {
                encode(|out| data.encode(out), out)?;
                false
            }
            // The caller sends `out` before anything else.
            ConnectionState::TransmitTlsData(data) => {
                data.done();
                false
            }
            ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => true,
            ConnectionState::PeerClosed | ConnectionState::Closed => {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            // Early data, which no configuration of ours allows.
            _ => return Err(nonsense("an unexpected state of TLS")),
        };
        used += discard;
        if blocked {
            return Ok(used);
        }
    }
}

fn encode(
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
    out: &mut Vec<u8>,
) -> io::Result<()> {
    let at = out.len();
    let needed = match encode(&mut []) {
        Ok(_) => return Ok(()),
        Err(EncodeError::InsufficientSize(size)) => size.required_size,
        Err(error @ EncodeError::AlreadyEncoded) => return Err(io::Error::other(error)),
    };
    out.resize(at + needed, 0);
    encode(out.get_mut(at..).unwrap_or_default()).map(|_| ()).map_err(io::Error::other)
}

fn nonsense(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
