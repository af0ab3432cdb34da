//! How much of one connection the kernel lets be under way, and how fast that is over a long path.
//!
//! A window that is full waits a round trip for its acknowledgement: that, and not the line, is the
//! speed of a connection to far away. Nothing here changes a setting.

use std::fmt;
use std::fs;

/// Round trips a second, for which speeds are told: of 100 ms.
const TIMES_A_SECOND: u64 = 10;

/// Below this, a maximum counts as small, in bytes: half of it is 670 Mbit/s over 100 ms.
const SMALL: u64 = 16 << 20;

/// What sets enough; as `deploy/systemd/portcullis-gateway.sysctl`.
const REMEDY: &str = "set net.ipv4.tcp_rmem to \"4096 131072 33554432\", net.ipv4.tcp_wmem to \
                      \"4096 16384 33554432\"";

/// The kernel's largest buffers of one TCP connection, in bytes, over IPv4 and IPv6.
///
/// Since Linux 6.6 nearly all of a receive buffer is window, before half of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Windows {
    /// The last value of `net.ipv4.tcp_rmem`.
    pub receive: u64,
    /// The last value of `net.ipv4.tcp_wmem`, or what we may ask for, if that is more.
    pub send: u64,
}

impl Windows {
    /// Those of the network that this process is in. `None` where the kernel does not tell.
    #[must_use]
    pub fn here() -> Option<Self> {
        let read = |key: &str| {
            let text = fs::read_to_string(format!("/proc/sys/net/{key}")).ok()?;
            text.split_whitespace().next_back()?.parse::<u64>().ok()
        };
        // The kernel gives twice what a program asks for (socket(7)), and ours ask where that is more.
        let asked = read("core/wmem_max").unwrap_or(0).min(SMALL).saturating_mul(2);
        Some(Self { receive: read("ipv4/tcp_rmem")?, send: read("ipv4/tcp_wmem")?.max(asked) })
    }

    /// What to set, if connections over long paths are slower than they need to be.
    #[must_use]
    pub fn remedy(self) -> Option<&'static str> {
        (self.receive.min(self.send) < SMALL).then_some(REMEDY)
    }
}

impl fmt::Display for Windows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [receive, send] = [self.receive, self.send].map(megabits);
        write!(
            f,
            "one connection with 100 ms of round trip gets at most {receive} Mbit/s in \
             (net.ipv4.tcp_rmem, {} KiB) and {send} Mbit/s out (net.ipv4.tcp_wmem, {} KiB)",
            self.receive >> 10,
            self.send >> 10,
        )
    }
}

/// The speed at which so many bytes are under way, in Mbit/s, rounded.
fn megabits(bytes: u64) -> u64 {
    bytes.saturating_mul(8 * TIMES_A_SECOND).saturating_add(500_000) / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(receive: u64, send: u64, is_small: bool, told: &str) {
        let windows = Windows { receive, send };
        assert_eq!(windows.remedy().is_some(), is_small, "{windows}");
        assert!(windows.to_string().contains(told), "{windows}");
    }

    #[test]
    fn small_windows_are_found_with_the_speed_that_they_allow() {
        // What an untouched Linux has.
        check(6 << 20, 4 << 20, true, "503 Mbit/s in (net.ipv4.tcp_rmem, 6144 KiB)");
        check(6 << 20, 4 << 20, true, "336 Mbit/s out (net.ipv4.tcp_wmem, 4096 KiB)");
        check(32 << 20, 4 << 20, true, "2684 Mbit/s in");
        check(4 << 20, 32 << 20, true, "336 Mbit/s in");
        check((16 << 20) - 1, 16 << 20, true, "1342 Mbit/s in");
        check(16 << 20, 16 << 20, false, "1342 Mbit/s in");
        check(32 << 20, 32 << 20, false, "2684 Mbit/s out");
    }

    #[test]
    fn what_is_said_to_be_set_is_what_the_installers_set() {
        let file = include_str!("../../../deploy/systemd/portcullis-gateway.sysctl");
        let remedy = Windows { receive: 0, send: 0 }.remedy().expect("small");
        for key in ["net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"] {
            let line = file.lines().find_map(|it| it.strip_prefix(key)?.strip_prefix(" = "));
            let value = line.unwrap_or_else(|| panic!("no {key}"));
            assert!(remedy.contains(&format!("{key} to \"{value}\"")), "{key}: {remedy}");
        }
    }
}
