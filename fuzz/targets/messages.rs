//! What somebody could send on a control channel, to either side, and in a frame.
//!
//! The first byte says how the rest is cut into the slices that arrive.
#![cfg_attr(fuzzing, no_main)]

use std::fmt::Debug;

use minicbor::{Decode, Encode};
use tunnel_proto::control::{Decoded, Decoder, LONGEST_FIRST, decode_bare, encode, encode_bare};
use tunnel_proto::desired::Wish;
use tunnel_proto::message::{Open, Refused, ToAgent, ToGateway};

/// What is understood is written and read as the same; what is not is refused; nobody panics.
pub(crate) fn law(input: &[u8]) {
    let Some((cut, bytes)) = input.split_first() else { return };
    let cut = usize::from(*cut) + 1;
    for message in channel::<ToGateway>(bytes, cut) {
        // What an agent asks for is taken or refused, and never half.
        if let ToGateway::Desired(desired) = message {
            let (mut wish, ports) = (Wish::new(), desired.ports.len());
            match wish.take(desired, "agent") {
                Ok(plan) => assert_eq!((plan.steps.len(), wish.ports().len()), (ports, ports)),
                Err(error) => {
                    assert!(!error.to_string().contains(char::is_control), "{error}");
                    assert!(wish.revision().is_none() && wish.ports().is_empty());
                }
            }
        }
    }
    channel::<ToAgent>(bytes, cut);
    bare::<Open>(bytes);
    bare::<Refused>(bytes);
}

fn channel<T>(bytes: &[u8], cut: usize) -> Vec<T>
where
    T: for<'a> Decode<'a, ()> + Encode<()> + PartialEq + Debug,
{
    let (mut decoder, mut messages) = (Decoder::new(LONGEST_FIRST), Vec::new());
    for mut slice in bytes.chunks(cut) {
        loop {
            match decoder.next::<T>(&mut slice) {
                Ok(Some(Decoded::Message(message))) => messages.push(message),
                Ok(Some(Decoded::Unknown(_))) => {}
                Ok(None) => {
                    assert!(slice.is_empty(), "bytes are left over");
                    break;
                }
                Err(_) => return same(messages),
            }
        }
    }
    same(messages)
}

/// The messages, after they were written and read.
fn same<T>(messages: Vec<T>) -> Vec<T>
where
    T: for<'a> Decode<'a, ()> + Encode<()> + PartialEq + Debug,
{
    let mut decoder = Decoder::new(usize::MAX);
    for message in &messages {
        let Ok(bytes) = encode(message) else { panic!("too long: {message:?}") };
        let mut slice = &bytes[..];
        match decoder.next::<T>(&mut slice) {
            Ok(Some(Decoded::Message(again))) => assert_eq!(again, *message),
            other => panic!("{other:?} instead of {message:?}"),
        }
        assert!(slice.is_empty() && decoder.is_between_messages());
    }
    messages
}

fn bare<T>(bytes: &[u8])
where
    T: for<'a> Decode<'a, ()> + Encode<()> + PartialEq + Debug,
{
    if let Ok(Decoded::Message(message)) = decode_bare::<T>(bytes) {
        match decode_bare::<T>(&encode_bare(&message)) {
            Ok(Decoded::Message(again)) => assert_eq!(again, message),
            other => panic!("{other:?} instead of {message:?}"),
        }
    }
}

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| law(input));
