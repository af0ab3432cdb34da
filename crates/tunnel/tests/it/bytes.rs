//! Bytes that tests send, and what came of them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tunnel::link::{Ending, Meter};

use crate::stage::soon;

pub(super) fn kind(error: io::Error) -> io::ErrorKind {
    error.kind()
}

/// Closes a connection so that the other side sees a reset.
pub(super) fn break_off(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a TCP socket");
}

pub(super) async fn ended(ending: [tokio::task::JoinHandle<Ending>; 2]) -> [Ending; 2] {
    let [gateway, agent] = ending;
    let both = async { tokio::join!(gateway, agent) };
    let (gateway, agent) = soon("the end of a flow", both).await;
    [gateway.expect("no panic"), agent.expect("no panic")]
}

pub(super) async fn send(stream: &mut TcpStream, bytes: &[u8]) {
    soon("room", stream.write_all(bytes)).await.expect("it is open");
}

pub(super) async fn receive(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    soon("bytes", stream.read_exact(&mut bytes)).await.expect("it is open");
    bytes
}

pub(super) async fn receive_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    soon("the end", stream.read_to_end(&mut bytes)).await.expect("it ends in order");
    bytes
}

/// Bytes that do not repeat soon.
pub(super) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|it| (it * 31 + (it >> 8) * 7) as u8).collect()
}

/// Writes pseudo-random bytes and ends. Returns their checksum.
pub(super) async fn pour(
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut seed: u64,
    mut left: u64,
) -> u64 {
    let mut sum = 0;
    let mut bytes = vec![0; 100_000];
    while left > 0 {
        let length = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        for part in bytes.chunks_mut(8) {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            part.copy_from_slice(&seed.to_le_bytes()[..part.len()]);
        }
        sum = checksum(sum, &bytes[..length]);
        to.write_all(&bytes[..length]).await.expect("it is open");
        left -= length as u64;
    }
    to.shutdown().await.expect("it is open");
    sum
}

/// Reads to the end. Returns how much came, and its checksum.
pub(super) async fn drain(mut from: tokio::net::tcp::OwnedReadHalf) -> (u64, u64) {
    let (mut sum, mut length, mut bytes) = (0, 0, vec![0; 100_000]);
    loop {
        match from.read(&mut bytes).await.expect("it ends in order") {
            0 => return (length, sum),
            came => {
                sum = checksum(sum, &bytes[..came]);
                length += came as u64;
            }
        }
    }
}

/// Depends on every byte and its place.
fn checksum(sum: u64, bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(sum, |sum, it| (sum.rotate_left(5) ^ u64::from(*it)).wrapping_mul(0x9E37_79B9))
}

/// Waits until `total` bytes are counted each way: that is once they are passed on, perhaps a moment
/// after they have arrived.
pub(super) async fn counted(meters: &[Arc<Meter>; 2], session: impl Fn() -> u64, total: u64) {
    let is_all =
        |it: &Arc<Meter>| [&it.out, &it.back].map(|it| it.load(Ordering::Relaxed)) == [total; 2];
    while !meters.iter().all(is_all) || session() != 2 * total {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
