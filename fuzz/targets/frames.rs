//! What somebody could send on a connection for flows.
//!
//! The first byte says how the rest is cut into the slices that arrive.
#![cfg_attr(fuzzing, no_main)]

use tunnel_proto::frame::{Decoder, HEADER, Kind, Piece, encode};

/// However bytes are cut, the same frames are found; what was found is what was sent; nothing is
/// found in what is refused.
pub(crate) fn law(input: &[u8]) {
    let Some((cut, bytes)) = input.split_first() else { return };
    let whole = read(bytes, bytes.len().max(1));
    assert_eq!(read(bytes, usize::from(*cut) + 1), whole);
    let (frames, error) = whole;
    let mut written = Vec::new();
    for (kind, payload) in &frames {
        // Data may be cut anew; every other frame is what it was.
        let most = if *kind == Kind::Data { 1000 } else { usize::MAX };
        let (first, rest) = payload.split_at(most.min(payload.len()));
        for part in std::iter::once(first).chain(rest.chunks(most)) {
            written.extend(encode(*kind, part).unwrap_or_else(|error| panic!("{error}")));
        }
    }
    assert_eq!(read(&written, 7), (frames, None));
    if let Some(error) = error {
        assert!(!error.contains(char::is_control), "more than a line: {error}");
    }
}

/// The frames, data joined, and why there are no more.
fn read(bytes: &[u8], cut: usize) -> (Vec<(Kind, Vec<u8>)>, Option<String>) {
    let (mut decoder, mut frames) = (Decoder::new(), Vec::<(Kind, Vec<u8>)>::new());
    for mut slice in bytes.chunks(cut) {
        loop {
            let before = slice.len();
            match decoder.next(&mut slice) {
                Ok(Some(Piece::Data(part))) => {
                    assert!(!part.is_empty() && slice.len() < before);
                    match frames.last_mut() {
                        Some((Kind::Data, data)) => data.extend(part),
                        _ => frames.push((Kind::Data, part.to_vec())),
                    }
                }
                Ok(Some(Piece::Frame(kind, payload))) => {
                    assert!(kind != Kind::Data);
                    assert!(payload.len() + HEADER <= bytes.len());
                    frames.push((kind, payload.into_owned()));
                }
                Ok(None) => {
                    assert!(slice.is_empty(), "bytes are left over");
                    break;
                }
                Err(error) => return (frames, Some(error.to_string())),
            }
        }
    }
    (frames, None)
}

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| law(input));
