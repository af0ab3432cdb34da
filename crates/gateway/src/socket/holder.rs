//! Names the program that has a port, from `/proc`.
//!
//! Programs of other users are seen by name only where we may look into them; else all that is
//! known is that there is one.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use tunnel_proto::message::Protocol;

/// The listening state of TCP sockets in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// Who has the port that could not be bound, in words.
pub(crate) fn holder(protocol: Protocol, at: SocketAddr) -> String {
    let tables = match protocol {
        Protocol::Tcp => ["tcp", "tcp6"],
        Protocol::Udp => ["udp", "udp6"],
    };
    let inodes = tables.iter().flat_map(|table| {
        // The network of this thread, as `/proc/net` is that of the process's first thread.
        let table = Path::new("/proc/thread-self/net").join(table);
        let text = fs::read_to_string(table).unwrap_or_default();
        inodes(&text, protocol, at.port())
    });
    let inodes: Vec<u64> = inodes.collect();
    match inodes.iter().find_map(|inode| program(*inode)) {
        Some((name, pid)) => format!("program `{name}` (process {pid})"),
        None if inodes.is_empty() => "another program, which cannot be found".to_owned(),
        None => "a program of another user".to_owned(),
    }
}

/// The inodes of sockets that are bound to the port, listening if they are TCP.
fn inodes(table: &str, protocol: Protocol, port: u16) -> Vec<u64> {
    let of_line = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (_, bound) = columns.get(1)?.split_once(':')?;
        let bound = u16::from_str_radix(bound, 16).ok()?;
        let listening = protocol == Protocol::Udp || columns.get(3) == Some(&LISTEN);
        let inode = columns.get(9)?.parse().ok()?;
        (bound == port && listening).then_some(inode)
    };
    table.lines().skip(1).filter_map(of_line).collect()
}

/// The first process that has a socket open.
fn program(inode: u64) -> Option<(String, u32)> {
    let link = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    for process in processes {
        let Some(pid) = process.file_name().to_str().and_then(|it| it.parse().ok()) else {
            continue;
        };
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        let has_it = descriptors
            .flatten()
            .any(|it| fs::read_link(it.path()).is_ok_and(|target| target == Path::new(&link)));
        if has_it {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some((name.trim().to_owned(), pid));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1
   1: 0100007F:0050 0100007F:C000 01 00000000:00000000 00:00000000 00000000  1000        0 4712 1
   2: 00000000:01BB 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4713 1
";

    #[test]
    fn a_listening_socket_is_found_by_its_port() {
        assert_eq!(inodes(TABLE, Protocol::Tcp, 80), [4711]);
        assert_eq!(inodes(TABLE, Protocol::Udp, 80), [4711, 4712]);
        assert_eq!(inodes(TABLE, Protocol::Tcp, 81), [0; 0]);
    }

    #[test]
    fn this_program_is_named_as_the_holder_of_its_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let at = listener.local_addr().expect("an address");
        let holder = holder(Protocol::Tcp, at);
        assert!(holder.contains(&format!("(process {})", std::process::id())), "{holder}");
    }
}
