//! The record layer of TLS 1.3 (RFC 8446 section 5), once the handshake is done: no sockets, no
//! buffers, and each byte touched once.
//!
//! Handshake, certificates and every secret are the TLS library's business. It hands the traffic
//! keys over as it does for TLS in the kernel, and goes on to derive the next ones and to keep
//! tickets. What is done here is to put records around bytes and to take them off, without the
//! copies that a general interface needs; a flow that idles keeps its keys only in their short
//! form.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::aead::{
    self, AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, UnboundKey,
};
use rustls::ConnectionTrafficSecrets;
use rustls::client::ClientConnectionData;
use rustls::crypto::cipher::{Iv, Nonce, make_tls13_aad};
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;

/// The longest plaintext of one record.
pub(super) const LONGEST: usize = 16 << 10;

/// The longest ciphertext of one record.
const LONGEST_CIPHER: usize = LONGEST + 256;

/// Content type, legacy version, length.
const HEADER: usize = 5;

/// What is behind the plaintext: the true content type, and the tag.
const TRAILER: usize = 1 + 16;

/// How many records one key may protect: below 2^24.5 full ones, as AES-GCM is trusted for
/// (section 5.5).
const RECORDS_PER_KEY: u64 = 1 << 24;

/// Records without a byte of the application that may come in a row.
const MOST_EMPTY: u32 = 64;

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;
const CLOSE_NOTIFY: u8 = 0;

/// The longest ciphertext of `plain` bytes, with a key update before them.
pub(super) const fn sealed_length(plain: usize) -> usize {
    plain
        + plain.div_ceil(LONGEST) * (HEADER + TRAILER)
        + 2 * (HEADER + TRAILER + KEY_UPDATE_LENGTH)
}

const KEY_UPDATE_LENGTH: usize = 5;

/// The record layer of one connection.
#[derive(Debug)]
pub(super) struct Records {
    library: Library,
    seals: Protection,
    opens: Protection,
    /// The other end wants new keys of this one, too.
    update_wanted: bool,
    empty: u32,
}

/// What the TLS library still does.
pub(super) enum Library {
    Client(Box<KernelConnection<ClientConnectionData>>),
    Server(Box<KernelConnection<ServerConnectionData>>),
}

/// What became of received bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Opened {
    /// How many of them are used up.
    pub(super) used: usize,
    /// Whether the other end has said that nothing follows.
    pub(super) closed: bool,
}

impl Records {
    /// Takes over from a handshake: how many records each key has protected, and the keys.
    pub(super) fn new(
        library: Library,
        seals: (u64, ConnectionTrafficSecrets),
        opens: (u64, ConnectionTrafficSecrets),
    ) -> Self {
        let (seals, opens) = (Protection::new(seals), Protection::new(opens));
        Self { library, seals, opens, update_wanted: false, empty: 0 }
    }

    /// Encrypts `plain` into the front of `out`, which must have [`sealed_length`] bytes. Returns
    /// how many it took.
    pub(super) fn seal(&mut self, plain: &[u8], out: &mut [u8]) -> io::Result<usize> {
        let mut at = 0;
        for part in plain.chunks(LONGEST) {
            if self.update_wanted || self.seals.sequence >= RECORDS_PER_KEY {
                at += self.update(out.get_mut(at..).unwrap_or_default())?;
            }
            let rest = out.get_mut(at..).unwrap_or_default();
            at += self.seals.seal(APPLICATION_DATA, part, rest)?;
        }
        Ok(at)
    }

    /// Says that new keys follow, and begins to use them.
    fn update(&mut self, out: &mut [u8]) -> io::Result<usize> {
        // The other end may keep its own: it counts for itself.
        let length = self.seals.seal(HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, 0], out)?;
        let next = match &mut self.library {
            Library::Client(it) => it.update_tx_secret(),
            Library::Server(it) => it.update_tx_secret(),
        };
        self.seals = Protection::new(next.map_err(nonsense)?);
        self.update_wanted = false;
        Ok(length)
    }

    /// Says into the front of `out` that nothing follows. Returns how many bytes it took.
    pub(super) fn close(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.seals.seal(ALERT, &[1, CLOSE_NOTIFY], out)
    }

    /// Decrypts, where they are, the whole records at the front of `bytes`, and appends to `found`
    /// where the bytes of the application then are.
    pub(super) fn open(
        &mut self,
        bytes: &mut [u8],
        found: &mut Vec<Range<usize>>,
    ) -> io::Result<Opened> {
        let mut opened = Opened::default();
        while !opened.closed {
            let rest = bytes.get_mut(opened.used..).unwrap_or_default();
            let Some((header, rest)) = rest.split_first_chunk_mut::<HEADER>() else { break };
            let [kind, 3, 3, high, low] = *header else {
                return Err(nonsense("not a record of TLS"));
            };
            let length = usize::from(u16::from_be_bytes([high, low]));
            if kind != APPLICATION_DATA || !(TRAILER..=LONGEST_CIPHER).contains(&length) {
                return Err(nonsense("a record that does not belong here"));
            }
            let Some(body) = rest.get_mut(..length) else { break };
            let inner = self.opens.open(body)?;
            // Padding is zeros behind the true content type.
            let Some(last) = inner.iter().rposition(|it| *it != 0) else {
                return Err(nonsense("a record without content"));
            };
            let (content, kind) = inner.split_at(last);
            if content.len() > LONGEST {
                return Err(nonsense("a record that is too long"));
            }
            self.empty = if content.is_empty() { self.empty + 1 } else { 0 };
            match kind.first() {
                Some(&APPLICATION_DATA) if !content.is_empty() => {
                    let begin = opened.used + HEADER;
                    found.push(begin..begin + content.len());
                }
                Some(&APPLICATION_DATA) if self.empty < MOST_EMPTY => {}
                Some(&HANDSHAKE) => self.handshake(content)?,
                Some(&ALERT) => match content {
                    [_, CLOSE_NOTIFY] => opened.closed = true,
                    [_, alert] => return Err(nonsense(format!("alert {alert} of TLS"))),
                    _ => return Err(nonsense("an alert that is none")),
                },
                _ => return Err(nonsense("a record that does not belong here")),
            }
            opened.used += HEADER + length;
        }
        Ok(opened)
    }

    /// Messages that come after the handshake (section 4.6).
    fn handshake(&mut self, mut messages: &[u8]) -> io::Result<()> {
        while !messages.is_empty() {
            let Some(([kind, a, b, c], rest)) = messages.split_first_chunk::<4>() else {
                return Err(nonsense("a handshake message in pieces"));
            };
            let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            let Some((message, rest)) = rest.split_at_checked(length) else {
                return Err(nonsense("a handshake message in pieces"));
            };
            match (*kind, message, &mut self.library) {
                (NEW_SESSION_TICKET, ticket, Library::Client(library)) => {
                    library.handle_new_session_ticket(ticket).map_err(nonsense)?;
                }
                // What follows has the new key, and so is in another record.
                (KEY_UPDATE, [wanted @ 0..=1], library) if rest.is_empty() => {
                    let next = match library {
                        Library::Client(it) => it.update_rx_secret(),
                        Library::Server(it) => it.update_rx_secret(),
                    };
                    self.opens = Protection::new(next.map_err(nonsense)?);
                    self.update_wanted |= *wanted == 1;
                    self.empty += 1;
                    if self.empty > MOST_EMPTY {
                        return Err(nonsense("too many new keys"));
                    }
                }
                _ => return Err(nonsense("a handshake message that does not belong here")),
            }
            messages = rest;
        }
        Ok(())
    }

    /// As if so much had been sent that the next record needs a new key.
    #[cfg(test)]
    pub(super) fn wear_out(&mut self) {
        self.update_wanted = true;
    }

    /// Keeps less memory until bytes move again, unless few keys are ready anyway.
    pub(super) fn rest(&mut self) {
        if READY.load(Ordering::Relaxed) > MOST_READY {
            self.seals.ready = None;
            self.opens.ready = None;
        }
    }
}

/// The key of one direction.
struct Protection {
    secrets: ConnectionTrafficSecrets,
    sequence: u64,
    /// The key made ready for use, which takes much more memory; so it has its own.
    ready: Option<Box<ReadyKey>>,
}

/// Keys that stay ready while their flows wait for bytes: to make one ready takes as long as to
/// encrypt some kilobytes. With as much memory as each takes, about a megabyte.
const MOST_READY: usize = 1024;

/// Keys that are ready now.
static READY: AtomicUsize = AtomicUsize::new(0);

/// Counts as long as it lives.
struct ReadyKey(LessSafeKey);

impl ReadyKey {
    fn new(key: UnboundKey) -> Self {
        READY.fetch_add(1, Ordering::Relaxed);
        Self(LessSafeKey::new(key))
    }
}

impl Drop for ReadyKey {
    fn drop(&mut self) {
        READY.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Protection {
    fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Self {
        Self { secrets, sequence, ready: None }
    }

    /// The key and the nonce of the next record.
    fn next(&mut self) -> io::Result<(&LessSafeKey, aead::Nonce)> {
        let (algorithm, key, iv): (_, _, &Iv) = match &self.secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(nonsense("a cipher that is not known")),
        };
        let nonce = aead::Nonce::assume_unique_for_key(Nonce::new(iv, self.sequence).0);
        self.sequence = self.sequence.checked_add(1).ok_or_else(|| nonsense("no nonce is left"))?;
        let ready = match self.ready.take() {
            Some(ready) => ready,
            None => {
                // As long as the algorithm wants it: the library keeps all keys in one size.
                let key = key.as_ref().get(..algorithm.key_len()).unwrap_or_default();
                let key = UnboundKey::new(algorithm, key).map_err(|_| broken_key())?;
                Box::new(ReadyKey::new(key))
            }
        };
        Ok((&self.ready.insert(ready).0, nonce))
    }

    /// Puts one record around `plain`, at the front of `out`. Returns its length.
    fn seal(&mut self, kind: u8, plain: &[u8], out: &mut [u8]) -> io::Result<usize> {
        let no_room = || nonsense("no room for a record");
        let length = plain.len() + TRAILER;
        let aad = make_tls13_aad(length);
        let (header, rest) = out.split_at_mut_checked(HEADER).ok_or_else(no_room)?;
        let (cipher, rest) = rest.split_at_mut_checked(plain.len()).ok_or_else(no_room)?;
        let trailer = rest.get_mut(..TRAILER).ok_or_else(no_room)?;
        let (key, nonce) = self.next()?;
        key.seal_out_of_place_scatter(nonce, Aad::from(aad), plain, cipher, &[kind], trailer)
            .map_err(|_| broken_key())?;
        header.copy_from_slice(&aad);
        Ok(HEADER + length)
    }

    /// Decrypts the body of a record where it is. Returns what was in it, padding included.
    fn open<'a>(&mut self, body: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let aad = make_tls13_aad(body.len());
        let (key, nonce) = self.next()?;
        let inner = key.open_in_place(nonce, Aad::from(aad), body);
        inner.map(|it| &*it).map_err(|_| nonsense("a record that somebody has changed"))
    }
}

impl fmt::Debug for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Protection").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client(_) => "Client(..)",
            Self::Server(_) => "Server(..)",
        })
    }
}

fn broken_key() -> io::Error {
    io::Error::other("the cipher failed")
}

fn nonsense(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
