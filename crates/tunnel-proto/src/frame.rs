//! What goes over a connection that carries one flow after another.
//!
//! Four bytes, then the payload: one byte of [`Kind`], three bytes of payload length, big-endian.
//! A flow ends when both sides have sent [`Kind::Fin`] or [`Kind::Reset`]; then the connection is
//! ready for the next one.
//!
//! [`header`] writes, [`Decoder`] reads. Which frame may follow which is not checked here: that is
//! the carrier's to know.

use std::borrow::Cow;

/// Bytes before each payload.
pub const HEADER: usize = 4;

/// The longest payload of a [`Kind::Data`] frame.
pub const LONGEST_DATA: usize = 256 * 1024;

/// The longest payload of every other frame.
pub const LONGEST_OTHER: usize = 66_000;

/// Bytes of the token in a [`Kind::Join`] frame.
pub const TOKEN: usize = 16;

/// What a frame is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Kind {
    /// First on a connection, from the agent: the session's token.
    Join = 1,
    /// From the gateway: a flow begins ([`crate::message::Open`]).
    Open = 2,
    /// From the agent: the backend has answered.
    Accepted = 3,
    /// From the agent: no ([`crate::message::Refused`]); the connection is ready for the next flow.
    Refused = 4,
    /// Bytes of the flow.
    Data = 5,
    /// No more bytes from this side.
    Fin = 6,
    /// The flow is broken off from this side.
    Reset = 7,
    /// One UDP datagram.
    Datagram = 8,
    /// Asks whether an idle connection is alive.
    Ping = 9,
    /// It is.
    Pong = 10,
}

impl Kind {
    /// Every kind, by number.
    pub const ALL: [Self; 10] = [
        Self::Join,
        Self::Open,
        Self::Accepted,
        Self::Refused,
        Self::Data,
        Self::Fin,
        Self::Reset,
        Self::Datagram,
        Self::Ping,
        Self::Pong,
    ];

    /// The shortest and the longest payload of a frame of this kind, both included.
    #[must_use]
    pub const fn lengths(self) -> (usize, usize) {
        match self {
            Self::Join => (TOKEN, TOKEN),
            Self::Open | Self::Refused => (1, LONGEST_OTHER),
            // An empty one says nothing, and a peer that sends many costs work for nothing.
            Self::Data => (1, LONGEST_DATA),
            Self::Datagram => (0, LONGEST_OTHER),
            Self::Accepted | Self::Fin | Self::Reset | Self::Ping | Self::Pong => (0, 0),
        }
    }

    const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Join,
            2 => Self::Open,
            3 => Self::Accepted,
            4 => Self::Refused,
            5 => Self::Data,
            6 => Self::Fin,
            7 => Self::Reset,
            8 => Self::Datagram,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }
}

/// Why bytes are not frames. The connection cannot be read on after any of these.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FrameError {
    /// No frame has this number.
    #[error("{0} is not a kind of frame")]
    Kind(u8),
    /// No frame of this kind has a payload of this length.
    #[error("a {kind:?} frame of {length} bytes; it has {} to {}", .kind.lengths().0, .kind.lengths().1)]
    Length {
        /// The kind.
        kind: Kind,
        /// The length that was announced or asked for.
        length: usize,
    },
}

/// The four bytes before a payload of `length` bytes.
///
/// # Errors
///
/// When a frame of this kind has no payload of that length.
pub const fn header(kind: Kind, length: usize) -> Result<[u8; HEADER], FrameError> {
    let (shortest, longest) = kind.lengths();
    if length < shortest || length > longest {
        return Err(FrameError::Length { kind, length });
    }
    // Fits: the longest payload has 19 bits.
    let [.., high, middle, low] = length.to_be_bytes();
    Ok([kind as u8, high, middle, low])
}

/// A whole frame, for payloads that are short.
///
/// # Errors
///
/// As [`header`].
pub fn encode(kind: Kind, payload: &[u8]) -> Result<Vec<u8>, FrameError> {
    let mut frame = header(kind, payload.len())?.to_vec();
    frame.extend_from_slice(payload);
    Ok(frame)
}

/// What a [`Decoder`] found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Piece<'a> {
    /// Bytes of the flow, in order, never empty. A [`Kind::Data`] frame may come in several pieces.
    Data(&'a [u8]),
    /// A frame of any other kind, whole; copied only where it did not come in one slice.
    Frame(Kind, Cow<'a, [u8]>),
}

/// Finds frames in a stream of bytes that comes in slices of any length.
///
/// Holds nothing between slices but a beginning of a header or of a short frame, so that an idle
/// connection costs next to nothing.
#[derive(Debug, Default)]
pub struct Decoder {
    state: State,
}

#[derive(Debug)]
enum State {
    Header { bytes: [u8; HEADER], filled: u8 },
    Data { left: usize },
    Frame { kind: Kind, length: usize, payload: Vec<u8> },
}

impl Default for State {
    fn default() -> Self {
        Self::Header { bytes: [0; HEADER], filled: 0 }
    }
}

impl Decoder {
    /// A decoder at the beginning of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the stream could end here: no frame is half read.
    #[must_use]
    pub const fn is_between_frames(&self) -> bool {
        matches!(self.state, State::Header { filled: 0, .. })
    }

    /// Takes the next piece from the front of `input`; `None` when `input` is used up.
    ///
    /// What follows a piece stays in `input`.
    ///
    /// # Errors
    ///
    /// At the first header that is none. The decoder must not be asked again.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Piece<'a>>, FrameError> {
        loop {
            match &mut self.state {
                State::Header { bytes, filled } => {
                    let rest = bytes.get_mut(usize::from(*filled)..).unwrap_or_default();
                    let part = take(input, rest.len());
                    for (to, from) in rest.iter_mut().zip(part) {
                        *to = *from;
                        *filled += 1;
                    }
                    if usize::from(*filled) < HEADER {
                        return Ok(None);
                    }
                    let (kind, length) = read_header(*bytes)?;
                    self.state = if kind == Kind::Data {
                        State::Data { left: length }
                    } else {
                        State::Frame { kind, length, payload: Vec::new() }
                    };
                }
                State::Data { left } => {
                    let part = take(input, *left);
                    if part.is_empty() {
                        return Ok(None);
                    }
                    *left -= part.len();
                    if *left == 0 {
                        self.state = State::default();
                    }
                    return Ok(Some(Piece::Data(part)));
                }
                State::Frame { kind, length, payload } => {
                    let kind = *kind;
                    let part = take(input, *length - payload.len());
                    if payload.len() + part.len() < *length {
                        payload.extend_from_slice(part);
                        return Ok(None);
                    }
                    let whole = if payload.is_empty() {
                        Cow::Borrowed(part)
                    } else {
                        payload.extend_from_slice(part);
                        Cow::Owned(std::mem::take(payload))
                    };
                    self.state = State::default();
                    return Ok(Some(Piece::Frame(kind, whole)));
                }
            }
        }
    }
}

fn read_header(bytes: [u8; HEADER]) -> Result<(Kind, usize), FrameError> {
    let [number, high, middle, low] = bytes;
    let kind = Kind::from_number(number).ok_or(FrameError::Kind(number))?;
    let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
    let (shortest, longest) = kind.lengths();
    if (shortest..=longest).contains(&length) {
        Ok((kind, length))
    } else {
        Err(FrameError::Length { kind, length })
    }
}

fn take<'a>(input: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (part, rest) = input.split_at(most.min(input.len()));
    *input = rest;
    part
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn headers_are_a_number_and_a_length() {
        check_header(Kind::Data, 0x0001_0203, Ok([5, 1, 2, 3]));
        check_header(Kind::Fin, 0, Ok([6, 0, 0, 0]));
        check_header(Kind::Join, 16, Ok([1, 0, 0, 16]));
        check_header(Kind::Data, 0, Err("a Data frame of 0 bytes; it has 1 to 262144"));
        check_header(Kind::Data, 262_145, Err("a Data frame of 262145 bytes; it has 1 to 262144"));
        check_header(Kind::Join, 15, Err("a Join frame of 15 bytes; it has 16 to 16"));
        check_header(Kind::Ping, 1, Err("a Ping frame of 1 bytes; it has 0 to 0"));
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        check_refused(&[0, 0, 0, 0], "0 is not a kind of frame");
        check_refused(&[11, 0, 0, 0], "11 is not a kind of frame");
        check_refused(b"GET / HTTP/1.1", "71 is not a kind of frame");
        check_refused(&[5, 4, 0, 1], "a Data frame of 262145 bytes; it has 1 to 262144");
        check_refused(&[8, 255, 255, 255], "a Datagram frame of 16777215 bytes; it has 0 to 66000");
        check_refused(&[7, 0, 0, 1], "a Reset frame of 1 bytes; it has 0 to 0");
    }

    #[test]
    fn data_and_whole_frames_are_borrowed() {
        let mut bytes = encode(Kind::Open, b"open").expect("a frame");
        bytes.extend(encode(Kind::Data, b"data").expect("a frame"));
        let mut input = bytes.as_slice();
        let mut decoder = Decoder::new();
        let open = decoder.next(&mut input).expect("frames");
        assert!(matches!(open, Some(Piece::Frame(Kind::Open, Cow::Borrowed(b"open")))), "{open:?}");
        assert_eq!(decoder.next(&mut input), Ok(Some(Piece::Data(b"data"))));
        assert_eq!(decoder.next(&mut input), Ok(None));
        assert!(decoder.is_between_frames());
    }

    #[test]
    fn a_stream_that_stops_within_a_frame_is_noticed() {
        for cut in 1..6 {
            let bytes = encode(Kind::Datagram, b"ab").expect("a frame");
            let mut input = &bytes[..cut];
            let mut decoder = Decoder::new();
            let found = decoder.next(&mut input).expect("frames");
            assert_eq!(found.is_none(), cut < 6, "after {cut} bytes");
            assert!(!decoder.is_between_frames(), "after {cut} bytes");
        }
    }

    #[test]
    fn every_kind_has_its_number() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_number(kind as u8), Some(kind));
        }
    }

    proptest! {
        #[test]
        fn frames_are_the_same_however_they_are_cut(
            frames in proptest::collection::vec(frame(), 0..12),
            cuts in proptest::collection::vec(1_usize..700, 1..40),
        ) {
            let mut bytes = Vec::new();
            for (kind, payload) in &frames {
                bytes.extend(encode(*kind, payload).expect("a frame"));
            }
            let mut decoder = Decoder::new();
            let (mut rest, mut found) = (bytes.as_slice(), Vec::<(Kind, Vec<u8>)>::new());
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (mut slice, after) = rest.split_at((*cut).min(rest.len()));
                rest = after;
                while let Some(piece) = decoder.next(&mut slice).expect("frames") {
                    match piece {
                        Piece::Data(part) => found.push((Kind::Data, part.to_vec())),
                        Piece::Frame(kind, payload) => found.push((kind, payload.into_owned())),
                    }
                }
                prop_assert!(slice.is_empty());
            }
            prop_assert!(decoder.is_between_frames());
            prop_assert_eq!(joined(found), joined(frames));
        }
    }

    /// Neighbouring data as one: its boundaries mean nothing.
    fn joined(frames: Vec<(Kind, Vec<u8>)>) -> Vec<(Kind, Vec<u8>)> {
        let mut joined = Vec::<(Kind, Vec<u8>)>::new();
        for (kind, payload) in frames {
            match joined.last_mut() {
                Some((Kind::Data, data)) if kind == Kind::Data => data.extend(payload),
                _ => joined.push((kind, payload)),
            }
        }
        joined
    }

    fn frame() -> impl Strategy<Value = (Kind, Vec<u8>)> {
        proptest::sample::select(Kind::ALL.to_vec()).prop_flat_map(|kind| {
            let (shortest, longest) = kind.lengths();
            let payload = proptest::collection::vec(any::<u8>(), shortest..=longest.min(900));
            (Just(kind), payload)
        })
    }

    #[track_caller]
    fn check_header(kind: Kind, length: usize, expected: Result<[u8; 4], &str>) {
        let actual = header(kind, length).map_err(|it| it.to_string());
        assert_eq!(actual.as_ref().map_err(String::as_str), expected.as_ref().map_err(|it| *it));
        if let Ok(bytes) = actual {
            assert_eq!(read_header(bytes), Ok((kind, length)));
        }
    }

    #[track_caller]
    fn check_refused(bytes: &[u8], expected: &str) {
        let error = Decoder::new().next(&mut &*bytes).expect_err("not a frame");
        assert_eq!(error.to_string(), expected);
    }
}
