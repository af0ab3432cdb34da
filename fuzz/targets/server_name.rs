//! What a visitor could send first to a port that many backends share.
#![cfg_attr(fuzzing, no_main)]

use tunnel_proto::message::NamedBackend;
use tunnel_proto::server_name::{Greeting, LONGEST, ServerNames, read};

/// An answer stays the answer whatever follows, a name is a host name, and whoever has one is led
/// to a backend of that name.
pub(crate) fn law(input: &[u8]) {
    let greeting = read(input);
    let mut answered = false;
    for length in (0..input.len()).step_by(1 + input.len() / 64) {
        let answer = read(&input[..length]);
        if answer == Greeting::Incomplete {
            assert!(!answered, "an answer was taken back");
        } else {
            answered = true;
            assert_eq!(answer, greeting);
        }
    }
    match greeting {
        Greeting::Incomplete => {
            // Records add five bytes each, and may be as short as one.
            assert!(input.len() <= 6 * (LONGEST + 4) + 5, "it never ends");
        }
        Greeting::Name(name) => {
            let plain =
                |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || "-_.".contains(it);
            assert!((1..=253).contains(&name.len()) && name.chars().all(plain), "{name:?}");
            let named = |name: &str| NamedBackend { name: name.into(), backend: name.into() };
            let suffix = name.split_once('.').map_or("*.none", |_| "");
            let wild = name.split_once('.').map_or(suffix.into(), |(_, it)| format!("*.{it}"));
            let names = ServerNames::new(&[named(""), named(&wild), named(&name)]);
            assert_eq!(names.pick(Some(&name)), Some(name.as_str()));
            let names = ServerNames::new(&[named(""), named(&wild)]);
            let expected = if name.contains('.') { wild.as_str() } else { "" };
            assert_eq!(names.pick(Some(&name)), Some(expected));
        }
        Greeting::NoName | Greeting::NotTls(_) => {}
    }
}

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| law(input));
