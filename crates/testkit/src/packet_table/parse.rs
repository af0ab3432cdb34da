//! The notation of packet tables.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::{Expected, PacketTable, Row, Share, Source};
use crate::message::Protocol;

/// Why a text is not a packet table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ParseTableError {
    /// The line, counted from 1; `None` when it is about the whole text.
    pub line: Option<usize>,
    message: String,
}

impl std::fmt::Display for ParseTableError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for ParseTableError {}

impl FromStr for PacketTable {
    type Err = ParseTableError;

    /// Reads a table. Empty lines and what follows a `#` are for people.
    ///
    /// # Errors
    ///
    /// The first mistake, with its line. A table without rows is one: a check that checks nothing
    /// is always green.
    fn from_str(text: &str) -> Result<Self, ParseTableError> {
        let mut rows = Vec::new();
        for (line, text) in (1..).zip(text.lines()) {
            let text = text.split('#').next().unwrap_or_default().trim();
            if text.is_empty() {
                continue;
            }
            let row = row(line, text);
            rows.push(row.map_err(|message| ParseTableError { line: Some(line), message })?);
        }
        if rows.is_empty() {
            let message = "a packet table without rows checks nothing".to_owned();
            return Err(ParseTableError { line: None, message });
        }
        Ok(Self { rows })
    }
}

fn row(line: usize, text: &str) -> Result<Row, String> {
    let Some((packet, becomes)) = text.split_once("->") else {
        return Err("expected `FROM TO -> RESULT`, found no `->`".into());
    };
    let words: Vec<_> = packet.split_whitespace().collect();
    let (words, times) = match words.split_last() {
        Some((last, rest)) if last.starts_with('x') && rest.len() > 1 => {
            (rest, number(&last[1..]).filter(|it| *it > 0))
        }
        _ => (&words[..], Some(1)),
    };
    let times = times.ok_or("the number of packets is written as x30")?;
    let (from, source, to) = match words {
        [from, to] => (*from, None, *to),
        [from, "from", source, to] => (*from, Some(address(source)?), *to),
        _ => {
            return Err(format!(
                "expected `FROM TO`, `FROM from ADDRESS TO`, each with x30 or without, found `{}`",
                packet.trim()
            ));
        }
    };
    let (to, protocol) =
        to.rsplit_once('/').ok_or_else(|| format!("`{to}` is not ADDRESS:PORT/PROTOCOL"))?;
    let to = socket_address(to)?;
    let protocol: Protocol = protocol.parse()?;
    if source.is_some_and(|it| it.is_ipv4() != to.is_ipv4()) {
        return Err(format!("the source of a packet to {to} is of the other IP version"));
    }
    let becomes = expected(becomes, times)?;
    Ok(Row { line, from: name(from)?, source, to, protocol, times, becomes })
}

fn expected(text: &str, times: u32) -> Result<Expected, String> {
    let words: Vec<_> = text.split_whitespace().collect();
    match words[..] {
        [] => return Err("expected a result after `->`".into()),
        ["refused"] => return Ok(Expected::Refused),
        ["unreachable"] => return Ok(Expected::Unreachable),
        ["dropped"] => return Ok(Expected::Dropped),
        _ => {}
    }
    let (words, source) = match words[..] {
        [ref rest @ .., "source", "kept"] => (rest.to_vec(), Some(Source::Kept)),
        [ref rest @ .., "source", it] => (rest.to_vec(), Some(Source::Is(address(it)?))),
        _ => (words, None),
    };
    match words[..] {
        [] => Err("expected a server before `source`".into()),
        [server, "at", it] if !server.contains(':') => Ok(Expected::Delivered {
            server: name(server)?,
            reached_on: Some(socket_address(it)?),
            source,
        }),
        [server] if !server.contains(':') => {
            Ok(Expected::Delivered { server: name(server)?, reached_on: None, source })
        }
        _ => {
            let shares = shares(&words)?;
            let (least, most) = shares.values().fold((0, 0), |(least, most), it| {
                (least + it.count.saturating_sub(it.tolerance), most + it.count + it.tolerance)
            });
            if !(least..=most).contains(&times) {
                return Err(format!(
                    "the row sends {times} packets, which its shares cannot add up to"
                ));
            }
            Ok(Expected::Spread { shares, source })
        }
    }
}

fn shares(words: &[&str]) -> Result<BTreeMap<String, Share>, String> {
    let mut shares = BTreeMap::new();
    for word in words {
        let expected = || {
            format!(
                "`{word}` is not part of a result, expected SERVER, SERVER at ADDRESS:PORT, \
                 SERVER:COUNT, refused, unreachable or dropped"
            )
        };
        let (server, count) = word.split_once(':').ok_or_else(expected)?;
        let (count, tolerance) = count.split_once('~').unwrap_or((count, "0"));
        let count = number(count).ok_or_else(expected)?;
        let tolerance = number(tolerance).ok_or_else(expected)?;
        if shares.insert(name(server)?, Share { count, tolerance }).is_some() {
            return Err(format!("`{server}` has two shares"));
        }
    }
    Ok(shares)
}

/// A place or a server. Words of the notation cannot be names, so that a slip is not one.
fn name(text: &str) -> Result<String, String> {
    const TAKEN: [&str; 7] = ["from", "at", "source", "kept", "refused", "unreachable", "dropped"];
    let valid = |it: u8| it.is_ascii_alphanumeric() || b"-_.".contains(&it);
    if text.is_empty() || !text.bytes().all(valid) || TAKEN.contains(&text) {
        return Err(format!("`{text}` is not a name"));
    }
    Ok(text.to_owned())
}

/// A small number, so that sums of some do not overflow.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|it| *it <= 1_000_000)
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("`{text}` is not an address"))
}

fn socket_address(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| format!("`{text}` is not an address and port"))?;
    if address.port() == 0 {
        return Err(format!("`{text}` has port 0"));
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_the_same() {
        let text = "\
client 192.0.2.1:80/tcp -> n1
client from 192.0.2.9 192.0.2.1:80/udp -> n1 source kept
vpn [fd01::1]:53/sctp -> n2 at [fd02::12]:30053 source fd02::1
client 192.0.2.1:22/tcp -> refused
client 192.0.2.1:22/tcp -> unreachable
client 192.0.2.1:23/tcp x5 -> dropped
client 192.0.2.1:443/tcp x30 -> n1:10 n2:10 n3:10
client 192.0.2.1:444/udp x300 -> n1:150~30 n2:150~30 source 10.0.0.1
client 192.0.2.1:445/tcp x3 -> n1:3
";
        let table: PacketTable = text.parse().expect("all rows are right");
        assert_eq!(table.to_string(), text);
        assert_eq!(table.rows().len(), 9);
    }

    #[test]
    fn comments_and_empty_lines_are_for_people_but_lines_are_counted() {
        let table: PacketTable =
            "# who may\n\n  a 10.0.0.1:1/tcp -> refused # nobody\n".parse().expect("one row");
        assert_eq!(table.rows()[0].line, 3);
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        check("a 10.0.0.1:1/tcp refused", "expected `FROM TO -> RESULT`, found no `->`");
        check(
            "10.0.0.1:1/tcp -> refused",
            "expected `FROM TO`, `FROM from ADDRESS TO`, each with x30 or without, found `10.0.0.1:1/tcp`",
        );
        check("a 10.0.0.1:1 -> refused", "`10.0.0.1:1` is not ADDRESS:PORT/PROTOCOL");
        check("a 10.0.0.1/tcp -> refused", "`10.0.0.1` is not an address and port");
        check("a 10.0.0.1:0/tcp -> refused", "`10.0.0.1:0` has port 0");
        check(
            "a 10.0.0.1:1/icmp -> refused",
            "`icmp` is not a protocol, expected tcp, udp or sctp",
        );
        check("a from b 10.0.0.1:1/tcp -> refused", "`b` is not an address");
        check(
            "a from fd00::1 10.0.0.1:1/tcp -> n1",
            "the source of a packet to 10.0.0.1:1 is of the other IP version",
        );
        check("a 10.0.0.1:1/tcp x0 -> n1", "the number of packets is written as x30");
        check("a 10.0.0.1:1/tcp xx -> n1", "the number of packets is written as x30");
        check("a 10.0.0.1:1/tcp ->", "expected a result after `->`");
        check(
            "a 10.0.0.1:1/tcp -> refuse d",
            "`refuse` is not part of a result, expected SERVER, SERVER at ADDRESS:PORT, SERVER:COUNT, refused, unreachable or dropped",
        );
        check(
            "a 10.0.0.1:1/tcp -> n1 source",
            "`n1` is not part of a result, expected SERVER, SERVER at ADDRESS:PORT, SERVER:COUNT, refused, unreachable or dropped",
        );
        check("a 10.0.0.1:1/tcp -> source kept", "expected a server before `source`");
        check("a 10.0.0.1:1/tcp -> n1 source lost", "`lost` is not an address");
        check(
            "a 10.0.0.1:1/tcp x3 -> n1:1 n2:1",
            "the row sends 3 packets, which its shares cannot add up to",
        );
        check("a 10.0.0.1:1/tcp x2 -> n1:1 n1:1", "`n1` has two shares");
        check("a! 10.0.0.1:1/tcp -> n1", "`a!` is not a name");
    }

    #[test]
    fn a_table_without_rows_is_a_mistake() {
        let error = "# nothing yet\n".parse::<PacketTable>().expect_err("there is no row");
        assert_eq!(error.to_string(), "a packet table without rows checks nothing");
    }

    #[track_caller]
    fn check(row: &str, expected: &str) {
        let error = format!("\n{row}\n").parse::<PacketTable>().expect_err("the row is wrong");
        assert_eq!(error.to_string(), format!("line 2: {expected}"));
    }
}
