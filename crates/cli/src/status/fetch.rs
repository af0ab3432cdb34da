//! One request over plain HTTP, to a program of ours that listens nearby.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::ending::Result;

const LIMIT: Duration = Duration::from_secs(5);

/// More than the status of the largest controller.
const LONGEST: u64 = 64 << 20;

/// Returns the body of the page at `path`.
///
/// # Errors
///
/// Fails when nothing answers within five seconds, and on every status but 200.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Result<String> {
    let answer = tokio::time::timeout(LIMIT, exchange(address, path)).await;
    let answer = answer.with_context(|| format!("no answer within {LIMIT:?}"))??;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer is not HTTP")?;
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        bail!("the answer is `{status}`");
    }
    Ok(body.to_owned())
}

/// HTTP/1.0, so that the end of the body is the end of the connection and nothing is chunked.
async fn exchange(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer).await?;
    String::from_utf8(answer).context("the answer is no text")
}
