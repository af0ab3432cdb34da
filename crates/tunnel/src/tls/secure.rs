//! TLS as a function from bytes to bytes: no sockets, and no buffers that outlive a call.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{ClientConfig, CommonState, ServerConfig};

/// The longest plaintext of one record (RFC 8446 section 5.1).
pub(super) const LONGEST_RECORD: usize = 16 << 10;

/// What a record is longer than its plaintext: header, content type, tag.
const PER_RECORD: usize = 5 + 1 + 16;

/// Room for what TLS itself wants to say between records, as a key update.
const ASIDE: usize = 1 << 10;

/// The longest ciphertext that [`Tls::seal`] makes of `plain` bytes.
pub(super) const fn sealed_length(plain: usize) -> usize {
    plain + plain.div_ceil(LONGEST_RECORD) * PER_RECORD + ASIDE
}

/// One end of a TLS connection.
pub(super) enum Tls {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
}

/// What became of received bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Opened {
    /// How many of them are used up.
    pub(super) used: usize,
    /// Whether the other end has said that nothing follows.
    pub(super) closed: bool,
}

/// What a handshake needs to go on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Shaken {
    /// More bytes from the other end.
    More,
    /// Nothing: both ends know each other.
    Done,
}

impl Tls {
    pub(super) fn client(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        alpn: &[u8],
    ) -> io::Result<Self> {
        let alpn = vec![alpn.to_vec()];
        let connection = UnbufferedClientConnection::new_with_alpn(config, name, alpn);
        Ok(Self::Client(Box::new(connection.map_err(nonsense)?)))
    }

    pub(super) fn server(config: Arc<ServerConfig>) -> io::Result<Self> {
        let connection = UnbufferedServerConnection::new(config);
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

    /// Goes on with the handshake. What must be sent is appended to `out`, also in case of an
    /// error; bytes of the application that came early are appended to `plain`.
    pub(super) fn shake(
        &mut self,
        received: &mut Vec<u8>,
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> io::Result<Shaken> {
        let opened = match self {
            Self::Client(connection) => open(&mut **connection, received, plain, out),
            Self::Server(connection) => open(&mut **connection, received, plain, out),
        };
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) => {
                // The alert that tells the other end why.
                let _nothing_more = match self {
                    Self::Client(connection) => open(&mut **connection, &mut [], plain, out),
                    Self::Server(connection) => open(&mut **connection, &mut [], plain, out),
                };
                return Err(error);
            }
        };
        received.drain(..opened.used);
        if opened.closed {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(if self.common().is_handshaking() { Shaken::More } else { Shaken::Done })
    }

    /// Encrypts `plain` into the front of `out`, which must have [`sealed_length`] bytes. Returns
    /// how many it took.
    pub(super) fn seal(&mut self, plain: &[u8], out: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Client(connection) => seal(&mut **connection, plain, out),
            Self::Server(connection) => seal(&mut **connection, plain, out),
        }
    }

    /// Decrypts the whole records at the front of `cipher` and appends their plaintext to `plain`.
    /// What TLS itself wants to answer is appended to `out`.
    pub(super) fn open(
        &mut self,
        cipher: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> io::Result<Opened> {
        match self {
            Self::Client(connection) => open(&mut **connection, cipher, plain, out),
            Self::Server(connection) => open(&mut **connection, cipher, plain, out),
        }
    }

    /// Says into the front of `out` that nothing follows. Returns how many bytes it took.
    pub(super) fn close(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Client(connection) => close(&mut **connection, out),
            Self::Server(connection) => close(&mut **connection, out),
        }
    }
}

impl fmt::Debug for Tls {
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

fn open<S: Side>(
    side: &mut S,
    cipher: &mut [u8],
    plain: &mut Vec<u8>,
    out: &mut Vec<u8>,
) -> io::Result<Opened> {
    let mut opened = Opened::default();
    loop {
        let rest = cipher.get_mut(opened.used..).unwrap_or_default();
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
            ConnectionState::PeerClosed => {
                opened.closed = true;
                false
            }
            ConnectionState::Closed => {
                opened.closed = true;
                true
            }
            ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => true,
            // Early data, which no configuration of ours allows.
            _ => return Err(nonsense("an unexpected state of TLS")),
        };
        opened.used += discard;
        if blocked {
            return Ok(opened);
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

fn seal<S: Side>(side: &mut S, plain: &[u8], out: &mut [u8]) -> io::Result<usize> {
    let mut at = 0;
    loop {
        let rest = out.get_mut(at..).unwrap_or_default();
        match side.process(&mut []).state.map_err(nonsense)? {
            ConnectionState::WriteTraffic(mut traffic) => {
                return Ok(at + traffic.encrypt(plain, rest).map_err(exhausted)?);
            }
            ConnectionState::EncodeTlsData(mut data) => {
                at += data.encode(rest).map_err(io::Error::other)?;
            }
            ConnectionState::TransmitTlsData(data) => data.done(),
            ConnectionState::PeerClosed => {}
            _ => return Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

fn close<S: Side>(side: &mut S, out: &mut [u8]) -> io::Result<usize> {
    let mut at = 0;
    loop {
        let rest = out.get_mut(at..).unwrap_or_default();
        match side.process(&mut []).state.map_err(nonsense)? {
            ConnectionState::WriteTraffic(mut traffic) => {
                return Ok(at + traffic.queue_close_notify(rest).map_err(exhausted)?);
            }
            ConnectionState::EncodeTlsData(mut data) => {
                at += data.encode(rest).map_err(io::Error::other)?;
            }
            ConnectionState::TransmitTlsData(data) => data.done(),
            ConnectionState::PeerClosed => {}
            _ => return Ok(at),
        }
    }
}

fn exhausted(error: EncryptError) -> io::Error {
    io::Error::other(error)
}

fn nonsense(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
