//! Datagrams of UDP flows: sorted to their flows as they come, sent without waiting.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::future::BoxFuture;
use quinn::{Connection, RecvStream, SendDatagramError, SendStream};
use tokio::sync::{Semaphore, mpsc};

use super::carried::{Carried, Counted};
use super::code;
use crate::link::DatagramFlow;
use crate::session::Status;

/// Datagrams of one flow that wait to be taken.
const WAITING: usize = 256;

/// Long datagrams on their way out at one time; more are lost.
const LONG: usize = 64;

/// The longest datagram with its flow's number.
const LONGEST: usize = 65_535 + 8;

/// How long a long datagram may take to come in.
const PATIENCE: Duration = Duration::from_secs(5);

type Table = Arc<Mutex<HashMap<u64, mpsc::Sender<Bytes>>>>;

/// The UDP flows of one connection, by number.
pub(super) struct Datagrams {
    table: Table,
    long: Arc<Semaphore>,
}

impl Datagrams {
    /// Begins to sort, until the connection is closed. `heard` learns that something came.
    pub(super) fn start(connection: &Connection, heard: Option<Status>) -> Self {
        let table = Table::default();
        tokio::spawn(short(connection.clone(), heard.clone(), Arc::clone(&table)));
        tokio::spawn(long(connection.clone(), heard, Arc::clone(&table)));
        Self { table, long: Arc::new(Semaphore::new(LONG)) }
    }

    /// Keeps datagrams of a flow from now on, until the value is dropped.
    pub(super) fn register(&self, number: u64) -> Registered {
        let (sender, receiver) = mpsc::channel(WAITING);
        self.table.lock().unwrap_or_else(PoisonError::into_inner).insert(number, sender);
        Registered { number, receiver, table: Arc::clone(&self.table) }
    }
}

impl fmt::Debug for Datagrams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datagrams").finish_non_exhaustive()
    }
}

/// A UDP flow whose datagrams are kept for whoever takes them.
pub(super) struct Registered {
    number: u64,
    receiver: mpsc::Receiver<Bytes>,
    table: Table,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

impl fmt::Debug for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registered").field("number", &self.number).finish_non_exhaustive()
    }
}

async fn short(connection: Connection, heard: Option<Status>, table: Table) {
    while let Ok(datagram) = connection.read_datagram().await {
        if let Some(status) = &heard {
            status.heard();
        }
        deliver(&table, datagram);
        tokio::task::coop::consume_budget().await;
    }
}

async fn long(connection: Connection, heard: Option<Status>, table: Table) {
    while let Ok(mut stream) = connection.accept_uni().await {
        if let Some(status) = &heard {
            status.heard();
        }
        let table = Arc::clone(&table);
        tokio::spawn(async move {
            let datagram = tokio::time::timeout(PATIENCE, stream.read_to_end(LONGEST)).await;
            if let Ok(Ok(datagram)) = datagram {
                deliver(&table, datagram.into());
            }
        });
    }
}

/// A datagram of no flow, and one too many, is lost.
fn deliver(table: &Table, mut datagram: Bytes) {
    let Some(number) = split_number(&mut datagram) else { return };
    let table = table.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(flow) = table.get(&number) {
        let _lost_when_full = flow.try_send(datagram);
    }
}

/// An open UDP flow. Its stream carries nothing, and ends when the flow does.
pub(super) struct StreamDatagrams {
    number: u64,
    home: Counted,
    inbox: tokio::sync::Mutex<Inbox>,
    send: Option<SendStream>,
}

struct Inbox {
    registered: Registered,
    stream: Option<RecvStream>,
}

impl StreamDatagrams {
    pub(super) fn new(
        home: Counted,
        registered: Registered,
        (send, recv): (SendStream, RecvStream),
    ) -> Self {
        Self {
            number: registered.number,
            home,
            inbox: tokio::sync::Mutex::new(Inbox { registered, stream: Some(recv) }),
            send: Some(send),
        }
    }

    fn carried(&self) -> &Carried {
        &self.home.0
    }

    /// Sends on a stream of its own, or not at all when too many are on their way.
    fn send_long(&self, datagram: Bytes) -> io::Result<()> {
        let carried = self.carried();
        let Ok(place) = Arc::clone(&carried.datagrams.long).try_acquire_owned() else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let connection = carried.connection.clone();
        tokio::spawn(async move {
            let sent = async {
                let mut stream = connection.open_uni().await.ok()?;
                stream.write_chunk(datagram).await.ok()?;
                stream.finish().ok()
            };
            let _lost = tokio::time::timeout(PATIENCE, sent).await;
            drop(place);
        });
        Ok(())
    }
}

impl DatagramFlow for StreamDatagrams {
    fn send(&self, payload: &[u8]) -> io::Result<()> {
        let mut datagram = BytesMut::with_capacity(8 + payload.len());
        put_number(&mut datagram, self.number);
        datagram.put_slice(payload);
        let datagram = datagram.freeze();
        let carried = self.carried();
        let fits = carried.connection.max_datagram_size().is_some_and(|it| datagram.len() <= it);
        if !fits {
            self.send_long(datagram)?;
        } else {
            match carried.connection.send_datagram(datagram.clone()) {
                Ok(()) => {}
                Err(SendDatagramError::TooLarge | SendDatagramError::UnsupportedByPeer) => {
                    self.send_long(datagram)?;
                }
                Err(
                    error @ (SendDatagramError::Disabled | SendDatagramError::ConnectionLost(_)),
                ) => {
                    return Err(io::Error::new(io::ErrorKind::BrokenPipe, error));
                }
            }
        }
        carried.count(payload.len());
        Ok(())
    }

    fn receive(&self) -> BoxFuture<'_, Option<Bytes>> {
        Box::pin(async {
            let mut inbox = self.inbox.lock().await;
            let Inbox { registered, stream } = &mut *inbox;
            let datagram = match stream {
                Some(ended) => tokio::select! {
                    biased;
                    datagram = registered.receiver.recv() => datagram,
                    // The end, whatever kind it is; nothing else is said on it.
                    _ = ended.read_chunk(1, true) => {
                        *stream = None;
                        None
                    }
                },
                None => None,
            }?;
            self.carried().count(datagram.len());
            Some(datagram)
        })
    }
}

impl Drop for StreamDatagrams {
    fn drop(&mut self) {
        if let Some(send) = &mut self.send {
            let _over = send.finish();
        }
        if let Some(stream) = &mut self.inbox.get_mut().stream {
            let _over = stream.stop(code::OVER);
        }
    }
}

/// Writes a number of variable length (RFC 9000 section 16).
fn put_number(bytes: &mut BytesMut, number: u64) {
    match number {
        0..=0x3f => bytes.put_uint(number, 1),
        0x40..=0x3fff => bytes.put_uint(number | 1 << 14, 2),
        0x4000..=0x3fff_ffff => bytes.put_uint(number | 2 << 30, 4),
        // Streams are numbered with 60 bits at most.
        _ => bytes.put_u64(number | 3 << 62),
    }
}

/// Takes a number of variable length from the front.
fn split_number(bytes: &mut Bytes) -> Option<u64> {
    let first = *bytes.first()?;
    let length = 1_usize << (first >> 6);
    if bytes.len() < length {
        return None;
    }
    let number = bytes.split_to(length);
    let value = number.iter().fold(0_u64, |value, it| value << 8 | u64::from(*it));
    Some(value & (u64::MAX >> (64 - 8 * length + 2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_long_as_they_need_to_be() {
        // The examples of RFC 9000, appendix A.1, and the borders.
        check(151_288_809_941_952_652, &[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c]);
        check(494_878_333, &[0x9d, 0x7f, 0x3e, 0x7d]);
        check(15_293, &[0x7b, 0xbd]);
        check(37, &[0x25]);
        check(0, &[0]);
        check(63, &[0x3f]);
        check(64, &[0x40, 0x40]);
        check(16_383, &[0x7f, 0xff]);
        check(16_384, &[0x80, 0, 0x40, 0]);
        check(1 << 30, &[0xc0, 0, 0, 0, 0x40, 0, 0, 0]);
    }

    #[test]
    fn a_number_cut_short_is_none() {
        assert_eq!(split_number(&mut Bytes::new()), None);
        assert_eq!(split_number(&mut Bytes::from_static(&[0x40])), None);
        assert_eq!(split_number(&mut Bytes::from_static(&[0xc0, 0, 0, 0, 0, 0, 0])), None);
    }

    #[track_caller]
    fn check(number: u64, expected: &[u8]) {
        let mut bytes = BytesMut::new();
        put_number(&mut bytes, number);
        assert_eq!(&bytes[..], expected);
        bytes.put_slice(b"rest");
        let mut bytes = bytes.freeze();
        assert_eq!(split_number(&mut bytes), Some(number));
        assert_eq!(&bytes[..], b"rest");
    }
}
