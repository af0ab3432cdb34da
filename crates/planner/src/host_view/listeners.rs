//! The listing of `ss -H -l -n -t -u`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use api::port::Protocol;

use super::Listener;

/// Returns every listener that the listing names.
///
/// A line has six columns or more: protocol, state, two queue lengths, local and peer address.
/// Lines of another shape are left out.
pub(super) fn read(listing: &str) -> BTreeSet<Listener> {
    listing.lines().filter_map(read_line).collect()
}

fn read_line(line: &str) -> Option<Listener> {
    let mut columns = line.split_whitespace();
    let protocol: Protocol = columns.next()?.parse().ok()?;
    let state = columns.next()?;
    if !matches!(state, "LISTEN" | "UNCONN") {
        return None;
    }
    let (address, port) = columns.nth(2)?.rsplit_once(':')?;
    Some(Listener { protocol, port: port.parse().ok()?, address: read_address(address)? })
}

/// Reads `*` (both families), `0.0.0.0`, `127.0.0.53%lo`, `[::1]`, `[fe80::1%eth0]` and `[fe80::1]%eth0`.
fn read_address(text: &str) -> Option<Option<IpAddr>> {
    if text == "*" || text.starts_with("*%") {
        return Some(None);
    }
    let text = text.strip_prefix('[').unwrap_or(text);
    let text = text.split(['%', ']']).next()?;
    let address: IpAddr = text.parse().ok()?;
    // A socket of both families shows IPv4 addresses in their mapped form.
    Some(Some(address.to_canonical()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_every_spelling_of_an_address() {
        check("tcp LISTEN 0 128 0.0.0.0:22 0.0.0.0:*", "22/tcp on 0.0.0.0");
        check("tcp   LISTEN 0      4096       *:9100  *:*    ", "9100/tcp on *");
        check("tcp LISTEN 0 128 [::]:22 [::]:*", "22/tcp on ::");
        check("udp UNCONN 0 0 127.0.0.53%lo:53 0.0.0.0:*", "53/udp on 127.0.0.53");
        check("tcp LISTEN 0 5 [::1]:631 [::]:*", "631/tcp on ::1");
        check("udp UNCONN 0 0 [fe80::1]%eth0:546 [::]:*", "546/udp on fe80::1");
        check("udp UNCONN 0 0 [fe80::1%eth0]:546 [::]:*", "546/udp on fe80::1");
        check("tcp LISTEN 0 50 [::ffff:10.0.0.1]:8080 *:*", "8080/tcp on 10.0.0.1");
        check("udp UNCONN 0 0 *%eth0:67 *:*", "67/udp on *");
    }

    #[test]
    fn leaves_out_what_is_not_a_listener() {
        check("", "");
        check("tcp", "");
        check("raw UNCONN 0 0 *:1 *:*", "");
        check("tcp ESTAB 0 0 10.0.0.1:22 10.0.0.2:5555", "");
        check("tcp LISTEN 0 128 0.0.0.0:0 0.0.0.0:*", "");
        check("tcp LISTEN 0 128 0.0.0.0:65536 0.0.0.0:*", "");
        check("tcp LISTEN 0 128 $(reboot):22 *:*", "");
        check("Netid State Recv-Q Send-Q Local Address:Port", "");
    }

    #[track_caller]
    fn check(line: &str, expected: &str) {
        let found: Vec<_> = read(line).iter().map(show).collect();
        assert_eq!(found.join(", "), expected);
    }

    fn show(it: &Listener) -> String {
        let address = it.address.map_or("*".to_owned(), |it| it.to_string());
        format!("{}/{} on {address}", it.port, it.protocol)
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(listing in "\\PC*") {
            let _ = read(&listing);
        }

        #[test]
        fn no_local_column_makes_the_reader_panic(local in "[\\[\\]%:.*0-9a-f]{0,40}") {
            let _ = read(&format!("tcp LISTEN 0 0 {local} *:*"));
        }
    }
}
