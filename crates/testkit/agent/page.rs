//! Fetches a page over plain HTTP/1.0, for lab machines: what a program tells about itself on its
//! loopback interface.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Short: what is asked is on the same machine.
const PATIENCE: Duration = Duration::from_secs(5);

/// Prints the body of `http://ADDRESS/PATH`, or fails with the status line.
pub(crate) fn print(args: &[OsString]) -> Result<(), String> {
    let words: Vec<_> = args.iter().filter_map(|it| it.to_str()).collect();
    let [address, path] = words[..] else { return Err("usage: page ADDRESS PATH".into()) };
    let address: SocketAddr = address.parse().map_err(|it| format!("{address}: {it}"))?;
    let body = fetch(address, path).map_err(|it| format!("http://{address}{path}: {it}"))?;
    std::io::stdout().write_all(&body).map_err(|it| it.to_string())
}

fn fetch(address: SocketAddr, path: &str) -> Result<Vec<u8>, String> {
    let text = |it: std::io::Error| it.to_string();
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(text)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(text)?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(text)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(text)?;
    let end = answer.windows(4).position(|it| it == b"\r\n\r\n").ok_or("no answer in HTTP")?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(status.to_owned());
    }
    Ok(answer.split_off(end + 4))
}
