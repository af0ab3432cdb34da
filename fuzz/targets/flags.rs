//! Any text where a flag, a variable or a file names an interface, an address, a port, a range, a
//! host key or an object.
#![cfg_attr(fuzzing, no_main)]

use std::fmt::Display;
use std::str::FromStr;

use api::host::{Host, HostKey, HostSpec, KeyFile, NetworkAddress, UserName};
use api::interface::InterfaceName;
use api::name::ObjectName;
use api::port::{Port, Protocol};
use api::port_range::PortRange;
use api::source_range::SourceRanges;

/// What is accepted is written back and read the same; what is refused is told in one line.
pub(crate) fn law(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    same::<InterfaceName>(text);
    same::<ObjectName>(text);
    same::<Port>(text);
    same::<PortRange>(text);
    same::<Protocol>(text);
    same::<SourceRanges>(text);
    same::<HostKey>(text);
    same::<KeyFile>(text);
    same::<NetworkAddress>(text);
    same::<UserName>(text);
    // What is accepted here goes to the library that holds it against the host's own key.
    if let Ok(key) = text.parse::<HostKey>() {
        assert!(key.as_str().parse::<host::HostKey>().is_ok(), "{key}");
    }
    if let Err(error) = text.parse::<host::HostKey>() {
        assert!(!error.to_string().contains(char::is_control), "more than a line: {error}");
    }
    // As a flag names it: `--interfaces` and its like become a Host.
    let spec = HostSpec {
        interfaces: text.split(',').map(str::to_owned).collect(),
        external_interface: text.split(',').next().map(str::to_owned),
        extra_internal_addresses: text.split(',').map(str::to_owned).collect(),
        backend: text.to_owned(),
        ..HostSpec::default()
    };
    for problem in Host::new(text, spec).settings().err().into_iter().flatten() {
        assert!(!problem.to_string().contains(char::is_control), "more than a line: {problem}");
        assert!(!problem.remedy.is_empty());
    }
}

fn same<T: FromStr<Err: Display> + Display + PartialEq>(text: &str) {
    match text.parse::<T>() {
        Ok(value) => {
            let written = value.to_string();
            assert!(!written.contains(char::is_control), "{written:?}");
            assert!(written.parse::<T>().is_ok_and(|it| it == value), "{written:?}");
        }
        Err(error) => {
            assert!(!error.to_string().contains(char::is_control), "more than a line: {error}");
        }
    }
}

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| law(input));
