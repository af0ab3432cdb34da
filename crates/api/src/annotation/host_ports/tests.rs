//! What the list of host ports accepts, and what it says about the rest.

use proptest::prelude::*;

use super::*;

#[test]
fn reads_ports_ranges_and_protocols() {
    check("443:30443, 53:30053:udp", Ok("53:30053:udp, 443:30443"));
    check("443", Ok("443"));
    check("443:tcp", Ok("443"));
    check("53:udp", Ok("53:udp"));
    check("53:30053:UDP", Ok("53:30053:udp"));
    check("9899:sCtP", Ok("9899:sctp"));
    check("9000-9010", Ok("9000-9010"));
    check("9000-9010:udp", Ok("9000-9010:udp"));
    check("9000-9010:30000-30010", Ok("9000-9010:30000-30010"));
    check("9000-9010:30000-30010:sctp", Ok("9000-9010:30000-30010:sctp"));
    check("1-65535:1-65535", Ok("1-65535:1-65535"));
    check("53:30053:udp,53:30053", Ok("53:30053, 53:30053:udp"));
}

#[test]
fn white_space_and_empty_entries_are_ignored() {
    check("", Ok(""));
    check(" \n", Ok(""));
    check(",,", Ok(""));
    check(" 443 : 30443 : tcp ,\n\t53 : udp , ", Ok("53:udp, 443:30443"));
    check("9000 - 9001 : 30000 - 30001", Ok("9000-9001:30000-30001"));
}

/// EP-01: each of these means what it meant to the predecessor.
#[test]
fn reads_what_the_predecessor_read() {
    check("22:2022", Ok("22:2022"));
    check("22:2022:tcp", Ok("22:2022"));
    check("22:2022,25:2025,53:2053:udp", Ok("22:2022, 25:2025, 53:2053:udp"));
    check("022:02022", Ok("22:2022"));
}

#[test]
fn names_the_part_that_is_wrong() {
    let port = |port, entry| format!("`{port}` in `{entry}` is not a port between 1 and 65535");
    check("0", Err(&port("0", "0")));
    check("0:30022", Err(&port("0", "0:30022")));
    check("22:0", Err(&port("0", "22:0")));
    check("65536:30022", Err(&port("65536", "65536:30022")));
    check("22:99999999999999999999", Err(&port("99999999999999999999", "22:99999999999999999999")));
    check("+22:30022", Err(&port("+22", "+22:30022")));
    check("-22:30022", Err(&port("", "-22:30022")));
    check("9000-:30000", Err(&port("", "9000-:30000")));
    check("22:", Err(&port("", "22:")));
    check(":30022", Err(&port("", ":30022")));
    check("53::udp", Err(&port("", "53::udp")));
    check("2 2:30022", Err(&port("2 2", "2 2:30022")));
    check("443/tcp", Err(&port("443/tcp", "443/tcp")));
    check("https:30443", Err(&port("https", "https:30443")));
    // Digits, but not ASCII.
    check("٢٢:30022", Err(&port("٢٢", "٢٢:30022")));

    check(
        "22:ssh",
        Err("`ssh` in `22:ssh` is neither a port between 1 and 65535 nor tcp, udp or sctp"),
    );
    check(
        "53:30053:icmp",
        Err("`icmp` in `53:30053:icmp` is not a protocol, expected tcp, udp or sctp"),
    );
    check("53:30053:", Err("`` in `53:30053:` is not a protocol, expected tcp, udp or sctp"));
    check("1:2:udp:4", Err("`1:2:udp:4` has too many parts, expected HOST[:TARGET][:PROTOCOL]"));
    check("9010-9000", Err("the range `9010-9000` in `9010-9000` ends before it begins"));
    check("9000-9010:30000", Err("`9000-9010:30000` leads 11 host ports to 1 target ports"));
    check("9000:30000-30010", Err("`9000:30000-30010` leads 1 host ports to 11 target ports"));
}

#[test]
fn a_host_port_is_claimed_once() {
    check("22:1,22:2", Err("host port 22/tcp is in the list twice"));
    check("22:1,22:1", Err("host port 22/tcp is in the list twice"));
    check("9000-9010,9005:udp,9010:30000", Err("host port 9010/tcp is in the list twice"));
    check("1-65535:udp,53:30053:UDP", Err("host port 53/udp is in the list twice"));
    check("9000-9010,9011,9005:udp", Ok("9000-9010, 9005:udp, 9011"));
}

/// EP-11: text for a shell, a ruleset or a terminal is just another bad port.
#[test]
fn hostile_text_is_a_bad_port() {
    let port = |port, entry| format!("`{port}` in `{entry}` is not a port between 1 and 65535");
    check("22:$(reboot)", Err(&port("$(reboot)", "22:$(reboot)")));
    check("22;reboot:30022", Err(&port("22;reboot", "22;reboot:30022")));
    check("22:`id`", Err(&port("`id`", "22:`id`")));
    check("22\n33:30022", Err(&port("22\\n33", "22\\n33:30022")));
    check("22\0:30022", Err(&port("22\\0", "22\\0:30022")));
    check("\u{1b}[2J:1", Err(&port("\\u{1b}[2J", "\\u{1b}[2J:1")));
    check("22\u{202e}:1", Err(&port("22\\u{202e}", "22\\u{202e}:1")));
    check("22:1 } flush ruleset", Err(&port("1 } flush ruleset", "22:1 } flush ruleset")));
}

#[test]
fn a_value_is_limited() {
    check(&"1".repeat(1 << 20), Err("the value has 1048576 bytes, the limit is 262144"));
    let long = "9".repeat(HostPorts::MAX_BYTES);
    let shown = "9".repeat(48);
    check(&long, Err(&format!("`{shown}…` in `{shown}…` is not a port between 1 and 65535")));
    check("1-65535,1:udp", Err("the value asks for 65536 ports, the limit is 65535"));
}

#[test]
fn every_error_names_a_remedy() {
    for value in ["1:2:3:4", "x", "1:x", "2-1", "1-2:3", "1:2:x", "1,1", "1-65535,1:udp"] {
        let error = value.parse::<HostPorts>().expect_err(value);
        assert!(error.remedy().len() > 10, "{value}");
    }
}

#[test]
fn a_range_is_expanded_with_its_targets() {
    let ports: HostPorts = "9000-9001:30000-30001, 9000:udp".parse().expect("a list");
    let expanded: Vec<_> =
        ports.iter().map(|it| (it.port.get(), it.protocol, it.target.map(Port::get))).collect();
    assert_eq!(
        expanded,
        [
            (9000, Protocol::Udp, None),
            (9000, Protocol::Tcp, Some(30000)),
            (9001, Protocol::Tcp, Some(30001)),
        ]
    );
    assert_eq!(ports.count(), 3);
}

proptest! {
    #[test]
    fn reading_never_panics(value in "\\PC{0,60}") {
        let _ = value.parse::<HostPorts>();
    }

    /// Text that is nearly right finds more than text at random.
    #[test]
    fn what_is_accepted_is_written_back_and_read_the_same(value in "[0-9]{1,2}([-:, ]{1,2}[0-9udptcs]{1,4}){0,6}") {
        if let Ok(ports) = value.parse::<HostPorts>() {
            prop_assert_eq!(ports.to_string().parse(), Ok(ports));
        }
    }

    #[test]
    fn what_is_written_is_read_the_same(ports in host_ports()) {
        let written = ports.iter().map(|(host, target, protocol)| match target {
            Some(target) => format!("{host}:{target}:{protocol}"),
            None => format!("{host}:{protocol}"),
        });
        let value = written.collect::<Vec<_>>().join(",");
        let Ok(read) = value.parse::<HostPorts>() else { return Err(TestCaseError::reject("twice")) };
        prop_assert_eq!(read.count(), ports.iter().map(|it| usize::from(it.0.count())).sum::<usize>());
        prop_assert_eq!(read.iter().count(), read.count());
        prop_assert_eq!(read.to_string().parse(), Ok(read.clone()));
        for (host, target, protocol) in ports {
            let expected = target.map(PortRange::first);
            let found = read.iter().find(|it| it.port == host.first() && it.protocol == protocol);
            prop_assert_eq!(found.map(|it| it.target), Some(expected));
        }
    }
}

fn host_ports() -> impl Strategy<Value = Vec<(PortRange, Option<PortRange>, Protocol)>> {
    let protocol = prop::sample::select(Protocol::ALL.to_vec());
    let entry = (1..2000_u16, 0..20_u16, prop::option::of(1..60000_u16), protocol);
    let entry = entry.prop_map(|(first, more, target, protocol)| {
        (range(first, more), target.map(|it| range(it, more)), protocol)
    });
    prop::collection::vec(entry, 1..6)
}

fn range(first: u16, more: u16) -> PortRange {
    let port = |it| Port::new(it).expect("not zero");
    PortRange::new(port(first), port(first + more)).expect("in order")
}

#[track_caller]
fn check(value: &str, expected: Result<&str, &str>) {
    let actual = value.parse::<HostPorts>();
    let actual = actual.map(|it| it.to_string()).map_err(|it| it.to_string());
    assert_eq!(actual.as_deref().map_err(String::as_str), expected);
}
