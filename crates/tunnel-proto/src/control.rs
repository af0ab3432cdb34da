//! The control channel as bytes: each message in CBOR, with its length before it.
//!
//! Four bytes of length, big-endian, then one message of [`crate::message`]. A message with a
//! number that this side does not know is skipped, so that a newer side can say more than an older
//! one understands.

use minicbor::{Decode, Encode};

/// Bytes before each message.
pub const PREFIX: usize = 4;

/// The longest message once both sides know each other.
pub const LONGEST: usize = 16 * 1024 * 1024;

/// The longest message before: greetings and adoption are short.
pub const LONGEST_FIRST: usize = 64 * 1024;

/// Why bytes are not messages. The channel cannot be read on after any of these.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// More bytes than are allowed.
    #[error("a message of {length} bytes; at most {longest} are allowed")]
    TooLong {
        /// How many were announced or asked for.
        length: usize,
        /// How many are allowed.
        longest: usize,
    },
    /// Not CBOR, or not with the fields that it must have.
    #[error("a message that cannot be read")]
    Malformed(#[source] minicbor::decode::Error),
    /// Something follows the message within its length.
    #[error("{0} bytes after the end of a message")]
    Trailing(usize),
}

/// A message, or something that only newer programs understand.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Decoded<T> {
    /// A message.
    Message(T),
    /// A message, or a choice within one, with a number that this program does not know. Skip it,
    /// and keep what was in force.
    Unknown(String),
}

/// Encodes `message` alone, as it goes into a frame.
#[must_use]
pub fn encode_bare<T: Encode<()>>(message: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    put(message, &mut bytes);
    bytes
}

/// Encodes `message` with its length before it, as it goes over the control channel.
///
/// # Errors
///
/// When it is longer than [`LONGEST`].
pub fn encode<T: Encode<()>>(message: &T) -> Result<Vec<u8>, ControlError> {
    let mut bytes = vec![0; PREFIX];
    put(message, &mut bytes);
    let length = bytes.len() - PREFIX;
    match u32::try_from(length) {
        Ok(prefix) if length <= LONGEST => {
            for (to, from) in bytes.iter_mut().zip(prefix.to_be_bytes()) {
                *to = from;
            }
            Ok(bytes)
        }
        _ => Err(ControlError::TooLong { length, longest: LONGEST }),
    }
}

fn put<T: Encode<()>>(message: &T, bytes: &mut Vec<u8>) {
    match minicbor::encode(message, bytes) {
        Ok(()) => {}
        // A vector takes every byte, and no message of ours refuses to be encoded.
        Err(error) => unreachable!("writing to memory failed: {error}"),
    }
}

/// Decodes what [`encode_bare`] has encoded; `bytes` holds it and nothing else.
///
/// # Errors
///
/// When it is not a message of type `T`.
pub fn decode_bare<'a, T: Decode<'a, ()>>(bytes: &'a [u8]) -> Result<Decoded<T>, ControlError> {
    let mut decoder = minicbor::Decoder::new(bytes);
    match decoder.decode() {
        Ok(message) => match bytes.len() - decoder.position() {
            0 => Ok(Decoded::Message(message)),
            left => Err(ControlError::Trailing(left)),
        },
        Err(error) if error.is_unknown_variant() => Ok(Decoded::Unknown(error.to_string())),
        Err(error) => Err(ControlError::Malformed(error)),
    }
}

/// Finds messages in a stream of bytes that comes in slices of any length.
///
/// Memory grows with the bytes that have come, never with the length that was announced.
#[derive(Debug)]
pub struct Decoder {
    longest: usize,
    bytes: Vec<u8>,
}

impl Decoder {
    /// A decoder at the beginning of a stream, for messages of at most `longest` bytes.
    #[must_use]
    pub const fn new(longest: usize) -> Self {
        Self { longest, bytes: Vec::new() }
    }

    /// Allows messages of at most `longest` bytes from the next one on.
    pub const fn allow(&mut self, longest: usize) {
        self.longest = longest;
    }

    /// Whether the stream could end here: no message is half read.
    #[must_use]
    pub const fn is_between_messages(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes the next message from the front of `input`; `None` when `input` is used up.
    ///
    /// What follows a message stays in `input`.
    ///
    /// # Errors
    ///
    /// At the first message that is too long or none. The decoder must not be asked again.
    pub fn next<T>(&mut self, input: &mut &[u8]) -> Result<Option<Decoded<T>>, ControlError>
    where
        T: for<'a> Decode<'a, ()>,
    {
        self.fill(input, PREFIX);
        let Some(prefix) = self.bytes.first_chunk::<PREFIX>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*prefix)).unwrap_or(usize::MAX);
        if length > self.longest {
            return Err(ControlError::TooLong { length, longest: self.longest });
        }
        self.fill(input, PREFIX + length);
        if self.bytes.len() < PREFIX + length {
            return Ok(None);
        }
        let decoded = decode_bare(self.bytes.get(PREFIX..).unwrap_or_default())?;
        // A long message is rare; its memory is not kept for the short ones that follow.
        self.bytes = Vec::new();
        Ok(Some(decoded))
    }

    fn fill(&mut self, input: &mut &[u8], until: usize) {
        let wanted = until.saturating_sub(self.bytes.len());
        let (part, rest) = input.split_at(wanted.min(input.len()));
        self.bytes.extend_from_slice(part);
        *input = rest;
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;
    use crate::message::{
        Desired, Hello, Open, Protocol, PublishedPort, Reach, Refused, RefusedReason, Route,
        Serving, ToAgent, ToGateway,
    };

    /// These bytes are what released programs say: a change here breaks them.
    #[test]
    fn messages_keep_their_numbers() {
        let hello =
            Hello { version: 1, agent: "a".into(), node: None, epoch: 7, program: "0.1.0".into() };
        check(&ToGateway::Hello(hello), expect!["82 00 81 85 01 61 61 f6 07 65 30 2e 31 2e 30"]);
        check(&ToGateway::Ping(300), expect!["82 03 81 19 01 2c"]);
        check(&ToGateway::Drain, expect!["82 05 80"]);
        let serving = Serving { backend: "b".into(), reach: Reach::Local };
        check(&ToGateway::Serving(vec![serving]), expect!["82 02 81 81 82 61 62 02"]);
        let port = PublishedPort {
            address: None,
            port: 443,
            protocol: Protocol::Udp,
            owner: "o".into(),
            route: Route::Backend("b".into()),
            allow_from: Vec::new(),
            limits: crate::message::Limits::default(),
            idle_seconds: 30,
        };
        check(
            &ToGateway::Desired(Desired { revision: 1, ports: vec![port], quota: None }),
            expect!["82 01 81 82 01 81 88 f6 19 01 bb 01 61 6f 82 00 81 61 62 80 82 00 00 18 1e"],
        );
        check(&ToAgent::Evicted { by: 9 }, expect!["82 06 81 09"]);
        check(&ToAgent::Spare(3), expect!["82 09 81 03"]);
        check(
            &Open {
                backend: "b".into(),
                protocol: Protocol::Tcp,
                visitor: ([192, 0, 2, 1], 1).into(),
                dialled: ([192, 0, 2, 2], 2).into(),
                server_name: Some("n".into()),
                probe: false,
            },
            expect![["86 61 62 00 82 00 82 44 c0 00 02 01 01 82 00 82 44 c0 00 02 02 02 61 6e f4"]],
        );
        check(
            &Refused { reason: RefusedReason::Draining, detail: "d".into() },
            expect!["82 03 61 64"],
        );
    }

    #[test]
    fn what_a_newer_side_says_is_skipped() {
        // Message number 99 with an argument, then a ping that has a second field.
        let mut bytes = vec![0, 0, 0, 5, 0x82, 0x18, 99, 0x81, 1];
        bytes.extend([0, 0, 0, 5, 0x82, 3, 0x82, 8, 1]);
        let mut input = bytes.as_slice();
        let mut decoder = Decoder::new(LONGEST);
        let unknown = decoder.next::<ToGateway>(&mut input).expect("messages");
        assert!(matches!(unknown, Some(Decoded::Unknown(_))), "{unknown:?}");
        let ping = decoder.next::<ToGateway>(&mut input).expect("messages");
        assert_eq!(ping, Some(Decoded::Message(ToGateway::Ping(8))));
        assert!(decoder.is_between_messages());
    }

    #[test]
    fn what_is_no_message_is_refused() {
        check_refused(&[0, 1, 0, 1], "a message of 65537 bytes; at most 65536 are allowed");
        check_refused(
            b"GET / HTTP/1.1",
            "a message of 1195725856 bytes; at most 65536 are allowed",
        );
        check_refused(&[0, 0, 0, 1, 0xff], "a message that cannot be read");
        check_refused(&[0, 0, 0, 0], "a message that cannot be read");
        check_refused(&[0, 0, 0, 5, 0x82, 5, 0x80, 0, 0], "2 bytes after the end of a message");
    }

    #[test]
    fn a_message_longer_than_allowed_is_not_sent() {
        let long = ToGateway::Reveal(vec![0; LONGEST]);
        let error = encode(&long).expect_err("too long");
        assert_eq!(error.to_string(), "a message of 16777224 bytes; at most 16777216 are allowed");
    }

    proptest! {
        #[test]
        fn messages_are_the_same_however_they_are_cut(
            numbers in proptest::collection::vec(any::<u64>(), 1..20),
            cuts in proptest::collection::vec(1_usize..20, 1..20),
        ) {
            let mut bytes = Vec::new();
            for number in &numbers {
                bytes.extend(encode(&ToGateway::Pong(*number)).expect("short"));
            }
            let mut decoder = Decoder::new(LONGEST_FIRST);
            let (mut rest, mut found) = (bytes.as_slice(), Vec::new());
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (mut slice, after) = rest.split_at((*cut).min(rest.len()));
                rest = after;
                while let Some(decoded) = decoder.next(&mut slice).expect("messages") {
                    found.push(decoded);
                }
            }
            let sent = numbers.into_iter().map(|it| Decoded::Message(ToGateway::Pong(it)));
            prop_assert_eq!(found, sent.collect::<Vec<_>>());
        }
    }

    #[track_caller]
    fn check<T>(message: &T, expected: Expect)
    where
        T: Encode<()> + for<'a> Decode<'a, ()> + PartialEq + std::fmt::Debug + Clone,
    {
        let bytes = encode_bare(message);
        let hex: Vec<_> = bytes.iter().map(|it| format!("{it:02x}")).collect();
        expected.assert_eq(&hex.join(" "));
        let back = decode_bare::<T>(&bytes).expect("a message");
        assert_eq!(back, Decoded::Message(message.clone()));
    }

    #[track_caller]
    fn check_refused(mut bytes: &[u8], expected: &str) {
        let error =
            Decoder::new(LONGEST_FIRST).next::<ToGateway>(&mut bytes).expect_err("no message");
        assert_eq!(error.to_string(), expected);
    }
}
