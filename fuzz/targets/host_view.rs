//! What a host could print for `ip -j addr show` and, after an empty line, for
//! `ss -H -l -n -t -u`.
#![cfg_attr(fuzzing, no_main)]

use planner::host_view::HostView;

/// A listing is refused in one line, or what is known of the host is usable, and its own.
pub(crate) fn law(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (addresses, listeners) = text.split_once("\n\n").unwrap_or((text, ""));
    let view = match HostView::read(addresses, listeners) {
        Ok(view) => view,
        Err(error) => {
            assert!(!error.to_string().contains(char::is_control), "more than a line: {error}");
            return;
        }
    };
    for net in view.addresses.values().flatten() {
        let address = net.addr();
        let usable = !address.is_loopback() && !address.is_unspecified() && !address.is_multicast();
        assert!(usable && view.has(address), "{net}");
    }
    assert!(view.passing.iter().all(|it| view.has(*it)));
    assert!(view.listeners.len() <= listeners.lines().count());
}

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| law(input));
