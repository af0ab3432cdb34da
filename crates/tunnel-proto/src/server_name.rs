//! Which backend a visitor means by the server name in its TLS greeting (RFC 6066 section 3).
//!
//! The greeting is only looked at: TLS goes unbroken to the backend. [`read`] finds the name,
//! [`ServerNames`] finds the backend. Of TLS nothing is understood here but the way to the name.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::message::NamedBackend;

/// A greeting longer than this is refused.
pub const LONGEST: usize = 64 * 1024;

/// The longest content of a record (RFC 8446 section 5.1).
const LONGEST_RECORD: usize = 1 << 14;

/// The longest host name (RFC 1035 section 2.3.4), as text without the dot at its end.
const LONGEST_NAME: usize = 253;

/// What the first bytes of a visitor are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Greeting {
    /// A beginning of a greeting: read on.
    Incomplete,
    /// A greeting that names a server: a host name in lower case.
    Name(String),
    /// A greeting that names no server, or not by a host name.
    NoName,
    /// No greeting of TLS.
    NotTls(NotTls),
}

/// Why bytes are no greeting of TLS.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotTls {
    /// The first bytes are those of something else.
    #[error("the first bytes are not a TLS handshake")]
    Record,
    /// The handshake begins with something else than a greeting.
    #[error("the TLS handshake does not begin with a ClientHello")]
    Message,
    /// It is longer than [`LONGEST`].
    #[error("the ClientHello is too long")]
    TooLong,
    /// A part of it does not fit into the whole.
    #[error("the ClientHello contradicts itself")]
    Malformed,
}

/// Reads the server name out of the first bytes that a visitor sent, as many as there are.
///
/// The greeting may be spread over several records; what follows it is not looked at.
#[must_use]
pub fn read(bytes: &[u8]) -> Greeting {
    match assemble(bytes) {
        Err(error) => Greeting::NotTls(error),
        Ok(None) => Greeting::Incomplete,
        Ok(Some(hello)) => match name(&hello) {
            None => Greeting::NotTls(NotTls::Malformed),
            Some(None) => Greeting::NoName,
            Some(Some(name)) => host_name(name).map_or(Greeting::NoName, Greeting::Name),
        },
    }
}

/// The body of the handshake message that the records begin with; `None` when more is to come.
fn assemble(mut bytes: &[u8]) -> Result<Option<Cow<'_, [u8]>>, NotTls> {
    let mut message = Cow::Borrowed(&[][..]);
    loop {
        let (content, complete) = match bytes {
            // Type 22, version 3.x: x has been 0 to 3, and is to be ignored (RFC 8446 section 5.1).
            [22, 3, _, high, low, content @ ..] => {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                if length == 0 || length > LONGEST_RECORD {
                    return Err(NotTls::Record);
                }
                let (content, rest) = content.split_at(length.min(content.len()));
                bytes = rest;
                (content, content.len() == length)
            }
            [] | [22] | [22, 3] | [22, 3, _] | [22, 3, _, _] => return Ok(None),
            [..] => return Err(NotTls::Record),
        };
        if message.is_empty() {
            message = Cow::Borrowed(content);
        } else {
            message.to_mut().extend_from_slice(content);
        }
        if message.first().is_some_and(|it| *it != 1) {
            return Err(NotTls::Message);
        }
        if let [_, high, middle, low, body @ ..] = &*message {
            let length = usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low);
            if length > LONGEST {
                return Err(NotTls::TooLong);
            }
            if body.len() >= length {
                return Ok(Some(match message {
                    Cow::Borrowed(it) => Cow::Borrowed(it.get(4..4 + length).unwrap_or_default()),
                    Cow::Owned(mut it) => {
                        it.truncate(4 + length);
                        it.drain(..4);
                        Cow::Owned(it)
                    }
                }));
            }
        }
        if !complete {
            return Ok(None);
        }
    }
}

/// The name in a `ClientHello` (RFC 8446 section 4.1.2); `Some(None)` when there is none, `None`
/// when it is malformed.
fn name(hello: &[u8]) -> Option<Option<&[u8]>> {
    let mut rest = hello;
    let rest = &mut rest;
    let version = take(rest, 2)?;
    take(rest, 32)?;
    let session = vector8(rest)?;
    let suites = vector16(rest)?;
    let compressions = vector8(rest)?;
    let odd = suites.is_empty() || suites.len() % 2 == 1;
    if version.first() != Some(&3) || session.len() > 32 || odd || compressions.is_empty() {
        return None;
    }
    // Before TLS 1.3 there may be no extensions at all.
    if rest.is_empty() {
        return Some(None);
    }
    let mut extensions = vector16(rest)?;
    if !rest.is_empty() {
        return None;
    }
    let mut found = None;
    while !extensions.is_empty() {
        let number = number16(&mut extensions)?;
        let content = vector16(&mut extensions)?;
        if number == 0 {
            // Two would let two readers of one greeting see two servers.
            if found.is_some() {
                return None;
            }
            found = Some(server_name(content)?);
        }
    }
    Some(found.flatten())
}

/// The host name in a `server_name` extension; at most one is allowed.
fn server_name(mut content: &[u8]) -> Option<Option<&[u8]>> {
    let mut list = vector16(&mut content)?;
    if !content.is_empty() || list.is_empty() {
        return None;
    }
    let mut found = None;
    while !list.is_empty() {
        let kind = take(&mut list, 1)?;
        let name = vector16(&mut list)?;
        if kind == [0] && (name.is_empty() || found.replace(name).is_some()) {
            return None;
        }
    }
    Some(found)
}

/// A host name in lower case, without the dot that some clients leave at its end.
fn host_name(bytes: &[u8]) -> Option<String> {
    let bytes = bytes.strip_suffix(b".").unwrap_or(bytes);
    let plain = |it: &u8| it.is_ascii_alphanumeric() || b"-_.".contains(it);
    let labels = bytes.split(|it| *it == b'.').all(|it| (1..=63).contains(&it.len()));
    if bytes.len() > LONGEST_NAME || !labels || !bytes.iter().all(plain) {
        return None;
    }
    Some(String::from_utf8_lossy(bytes).to_ascii_lowercase())
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (part, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(part)
}

fn number16(rest: &mut &[u8]) -> Option<u16> {
    let bytes = take(rest, 2)?;
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

fn vector8<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = take(rest, 1)?.first().copied()?;
    take(rest, usize::from(length))
}

fn vector16<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = number16(rest)?;
    take(rest, usize::from(length))
}

/// The backends that share a port, by server name.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ServerNames {
    whole: BTreeMap<String, String>,
    /// By what follows the star: `.example.com`.
    wildcards: BTreeMap<String, String>,
    rest: Option<String>,
}

impl ServerNames {
    /// Orders `backends`. Of two with the same name the first counts.
    #[must_use]
    pub fn new(backends: &[NamedBackend]) -> Self {
        let mut names = Self::default();
        for it in backends {
            let name = it.name.to_ascii_lowercase();
            let backend = || it.backend.clone();
            if name.is_empty() {
                names.rest.get_or_insert_with(backend);
            } else if let Some(suffix) = name.strip_prefix('*') {
                names.wildcards.entry(suffix.to_owned()).or_insert_with(backend);
            } else {
                names.whole.entry(name).or_insert_with(backend);
            }
        }
        names
    }

    /// The backend for visitors that ask for `name`, which is in lower case; the most specific
    /// match. A wildcard stands for one label or more, as in the Gateway API.
    #[must_use]
    pub fn pick(&self, name: Option<&str>) -> Option<&str> {
        let by_name = name.and_then(|name| {
            let suffixes =
                name.match_indices('.').map(|(at, _)| name.get(at..).unwrap_or_default());
            let mut wildcards = suffixes.filter(|it| it.len() < name.len());
            let whole = self.whole.get(name);
            whole.or_else(|| wildcards.find_map(|it| self.wildcards.get(it)))
        });
        by_name.or(self.rest.as_ref()).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_most_specific_name_wins() {
        let backends = [
            ("*.example.com", "wild"),
            ("blog.example.com", "blog"),
            ("*.eu.example.com", "eu"),
            ("Upper.example.com", "upper"),
            ("blog.example.com", "too late"),
        ];
        check_pick(&backends, Some("blog.example.com"), Some("blog"));
        check_pick(&backends, Some("shop.example.com"), Some("wild"));
        check_pick(&backends, Some("a.b.example.com"), Some("wild"));
        check_pick(&backends, Some("shop.eu.example.com"), Some("eu"));
        check_pick(&backends, Some("eu.example.com"), Some("wild"));
        check_pick(&backends, Some("upper.example.com"), Some("upper"));
        check_pick(&backends, Some("example.com"), None);
        check_pick(&backends, Some("notexample.com"), None);
        check_pick(&backends, Some(".example.com"), None);
        check_pick(&backends, None, None);
        check_pick(&[("", "rest")], None, Some("rest"));
        check_pick(&[("", "rest"), ("a", "b")], Some("c"), Some("rest"));
    }

    #[test]
    fn a_name_is_found() {
        check(&record(&hello(&[sni("Blog.Example.COM")])), named("blog.example.com"));
        check(&record(&hello(&[(10, vec![0, 2, 0, 29]), sni("a-b_c.d.")])), named("a-b_c.d"));
        check(&record(&hello(&[(10, vec![0, 2, 0, 29])])), Greeting::NoName);
        check(&record(&hello(&[])), Greeting::NoName);
    }

    #[test]
    fn what_follows_the_greeting_does_not_matter() {
        let mut bytes = record(&hello(&[sni("a.example")]));
        bytes.extend([20, 3, 3, 0, 1, 1, 99]);
        check(&bytes, named("a.example"));
    }

    #[test]
    fn a_name_that_is_no_host_name_counts_as_none() {
        for name in ["a..b", "::1", "a b", "a\n", "é.example", ".", &"a".repeat(64)] {
            check(&record(&hello(&[sni(name)])), Greeting::NoName);
        }
        check(&record(&hello(&[sni(&["a"; 127].join("."))])), named(&["a"; 127].join(".")));
        check(&record(&hello(&[sni(&["a"; 128].join("."))])), Greeting::NoName);
    }

    #[test]
    fn something_else_is_told_apart_at_its_first_bytes() {
        check(b"S", Greeting::NotTls(NotTls::Record));
        check(b"SSH-2.0-OpenSSH_9.2\r\n", Greeting::NotTls(NotTls::Record));
        check(&[22, 2], Greeting::NotTls(NotTls::Record));
        check(&[22, 3, 1, 0, 0], Greeting::NotTls(NotTls::Record));
        check(&[22, 3, 1, 0x40, 1], Greeting::NotTls(NotTls::Record));
        check(&[22, 3, 1, 0, 4, 2], Greeting::NotTls(NotTls::Message));
        check(&[22, 3, 1, 0, 4, 1, 1, 0, 1], Greeting::NotTls(NotTls::TooLong));
        // The old greeting of SSL 2.
        check(&[0x80, 0x2e, 1, 3, 1], Greeting::NotTls(NotTls::Record));
    }

    #[test]
    fn a_greeting_that_contradicts_itself_is_refused() {
        let malformed = Greeting::NotTls(NotTls::Malformed);
        check(&record(&hello(&[sni("a"), sni("b")])), malformed.clone());
        check(&record(&hello(&[(0, vec![])])), malformed.clone());
        check(&record(&hello(&[(0, vec![0, 0])])), malformed.clone());
        check(&record(&hello(&[(0, vec![0, 3, 0, 0, 0])])), malformed.clone());
        check(&record(&hello(&[(0, vec![0, 4, 0, 0, 9, b'a'])])), malformed.clone());
        let two = vec![0, 8, 0, 0, 1, b'a', 0, 0, 1, b'b'];
        check(&record(&hello(&[(0, two)])), malformed.clone());
        check(&record(&[1, 0, 0, 0]), malformed.clone());
        let mut longer = hello(&[sni("a")]);
        longer.push(0);
        longer[3] += 1;
        check(&record(&longer), malformed);
    }

    proptest! {
        #[test]
        fn a_greeting_reads_the_same_however_it_is_spread(
            cuts in proptest::collection::vec(1_usize..60, 1..30),
            padding in 0_usize..600,
        ) {
            let hello = hello(&[(21, vec![0; padding]), sni("a.example")]);
            let (mut rest, mut bytes) = (hello.as_slice(), Vec::new());
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (part, after) = rest.split_at((*cut).min(rest.len()));
                bytes.extend(record(part));
                rest = after;
            }
            for length in 0..bytes.len() {
                prop_assert_eq!(read(&bytes[..length]), Greeting::Incomplete, "at {}", length);
            }
            prop_assert_eq!(read(&bytes), named("a.example"));
        }

        #[test]
        fn more_bytes_never_change_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..90)) {
            let mut greeting = vec![22, 3, 1];
            greeting.extend(bytes);
            let mut answer = Greeting::Incomplete;
            for length in 0..=greeting.len() {
                let now = read(&greeting[..length]);
                prop_assert!(answer == Greeting::Incomplete || answer == now);
                answer = now;
            }
        }
    }

    fn named(name: &str) -> Greeting {
        Greeting::Name(name.into())
    }

    fn sni(name: &str) -> (u16, Vec<u8>) {
        let mut entry = vec![0];
        entry.extend(sized(name.as_bytes()));
        (0, sized(&entry))
    }

    /// A `ClientHello` with its handshake header.
    fn hello(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 1, 1, 0]);
        let mut all = Vec::new();
        for (number, content) in extensions {
            all.extend(number.to_be_bytes());
            all.extend(sized(content));
        }
        if !extensions.is_empty() {
            body.extend(sized(&all));
        }
        let mut message = vec![1, 0];
        message.extend(sized(&body));
        message
    }

    fn record(content: &[u8]) -> Vec<u8> {
        let mut record = vec![22, 3, 1];
        record.extend(sized(content));
        record
    }

    fn sized(content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).expect("short");
        let mut sized = length.to_be_bytes().to_vec();
        sized.extend(content);
        sized
    }

    #[track_caller]
    fn check(bytes: &[u8], expected: Greeting) {
        assert_eq!(read(bytes), expected);
    }

    #[track_caller]
    fn check_pick(backends: &[(&str, &str)], name: Option<&str>, expected: Option<&str>) {
        let backends = backends
            .iter()
            .map(|(name, backend)| NamedBackend {
                name: (*name).into(),
                backend: (*backend).into(),
            })
            .collect::<Vec<_>>();
        assert_eq!(ServerNames::new(&backends).pick(name), expected);
    }
}
