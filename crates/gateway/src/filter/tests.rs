//! Golden texts of the filter. Whether the kernel takes them and does as they say is tested in a
//! network namespace, in `tests/it`.

use expect_test::{Expect, expect};

use super::*;

#[test]
fn without_limits_there_is_no_table() {
    assert_eq!(Filter::default().whole(), None);
    assert_eq!(Filter::default().change_from(&Filter::default()), None);
}

#[test]
fn a_port_that_limits_something_has_a_chain() {
    let filter = filter(&[(key(None, Protocol::Tcp, 443), allow(&["10.0.0.0/8"], 10, 5))]);
    check(
        filter.whole(),
        expect![[r#"
        add table inet portcullis_gateway
        delete table inet portcullis_gateway
        add table inet portcullis_gateway
        add map inet portcullis_gateway tcp-ipv4 { type ipv4_addr . inet_service : verdict; }
        add map inet portcullis_gateway tcp-ipv6 { type ipv6_addr . inet_service : verdict; }
        add map inet portcullis_gateway tcp-all { type inet_service : verdict; }
        add map inet portcullis_gateway udp-ipv4 { type ipv4_addr . inet_service : verdict; }
        add map inet portcullis_gateway udp-ipv6 { type ipv6_addr . inet_service : verdict; }
        add map inet portcullis_gateway udp-all { type inet_service : verdict; }
        add chain inet portcullis_gateway input { type filter hook input priority filter - 5; policy accept; }
        add rule inet portcullis_gateway input iif lo accept
        add rule inet portcullis_gateway input tcp flags & (fin | syn | rst | ack) == syn ip daddr . tcp dport vmap @tcp-ipv4
        add rule inet portcullis_gateway input tcp flags & (fin | syn | rst | ack) == syn ip6 daddr . tcp dport vmap @tcp-ipv6
        add rule inet portcullis_gateway input tcp flags & (fin | syn | rst | ack) == syn tcp dport vmap @tcp-all
        add rule inet portcullis_gateway input meta l4proto udp ip daddr . udp dport vmap @udp-ipv4
        add rule inet portcullis_gateway input meta l4proto udp ip6 daddr . udp dport vmap @udp-ipv6
        add rule inet portcullis_gateway input meta l4proto udp udp dport vmap @udp-all
        add set inet portcullis_gateway rate4-tcp-443 { type ipv4_addr; size 65535; flags dynamic,timeout; timeout 1m; }
        add set inet portcullis_gateway open4-tcp-443 { type ipv4_addr; size 65535; flags dynamic; }
        add set inet portcullis_gateway rate6-tcp-443 { type ipv6_addr; size 65535; flags dynamic,timeout; timeout 1m; }
        add set inet portcullis_gateway open6-tcp-443 { type ipv6_addr; size 65535; flags dynamic; }
        add chain inet portcullis_gateway tcp-443
        flush chain inet portcullis_gateway tcp-443
        add rule inet portcullis_gateway tcp-443 ip saddr != { 10.0.0.0/8 } counter drop
        add rule inet portcullis_gateway tcp-443 meta nfproto ipv6 counter drop
        add rule inet portcullis_gateway tcp-443 update @rate4-tcp-443 { ip saddr limit rate over 10/second burst 10 packets } counter drop
        add rule inet portcullis_gateway tcp-443 update @rate6-tcp-443 { ip6 saddr & ffff:ffff:ffff:ffff:: limit rate over 10/second burst 10 packets } counter drop
        add rule inet portcullis_gateway tcp-443 add @open4-tcp-443 { ip saddr ct count over 5 } counter drop
        add rule inet portcullis_gateway tcp-443 add @open6-tcp-443 { ip6 saddr & ffff:ffff:ffff:ffff:: ct count over 5 } counter drop
        flush map inet portcullis_gateway tcp-ipv4
        flush map inet portcullis_gateway tcp-ipv6
        flush map inet portcullis_gateway tcp-all
        flush map inet portcullis_gateway udp-ipv4
        flush map inet portcullis_gateway udp-ipv6
        flush map inet portcullis_gateway udp-all
        add element inet portcullis_gateway tcp-all { 443 : jump tcp-443 }
    "#]],
    );
}

#[test]
fn a_change_touches_what_changed() {
    let https = (key(None, Protocol::Tcp, 443), allow(&[], 10, 0));
    let ssh = (key(Some([192, 0, 2, 1].into()), Protocol::Tcp, 22), allow(&["::/0"], 0, 0));
    let dns = (key(None, Protocol::Udp, 53), allow(&["10.0.0.0/8", "fd00::/8"], 7, 7));
    let before = filter(&[https.clone(), ssh.clone()]);
    check(
        filter(&[https.clone(), ssh, dns]).change_from(&before),
        expect![[r#"
        add chain inet portcullis_gateway udp-53
        flush chain inet portcullis_gateway udp-53
        add rule inet portcullis_gateway udp-53 ip saddr != { 10.0.0.0/8 } counter drop
        add rule inet portcullis_gateway udp-53 ip6 saddr != { fd00::/8 } counter drop
        flush map inet portcullis_gateway tcp-ipv4
        flush map inet portcullis_gateway tcp-ipv6
        flush map inet portcullis_gateway tcp-all
        flush map inet portcullis_gateway udp-ipv4
        flush map inet portcullis_gateway udp-ipv6
        flush map inet portcullis_gateway udp-all
        add element inet portcullis_gateway tcp-all { 443 : jump tcp-443 }
        add element inet portcullis_gateway tcp-ipv4 { 192.0.2.1 . 22 : jump tcp-22-192.0.2.1 }
        add element inet portcullis_gateway udp-all { 53 : jump udp-53 }
    "#]],
    );
    check(
        filter(&[https]).change_from(&before),
        expect![[r#"
        flush map inet portcullis_gateway tcp-ipv4
        flush map inet portcullis_gateway tcp-ipv6
        flush map inet portcullis_gateway tcp-all
        flush map inet portcullis_gateway udp-ipv4
        flush map inet portcullis_gateway udp-ipv6
        flush map inet portcullis_gateway udp-all
        add element inet portcullis_gateway tcp-all { 443 : jump tcp-443 }
        delete chain inet portcullis_gateway tcp-22-192.0.2.1
    "#]],
    );
    check(
        Filter::default().change_from(&before),
        expect![[r#"
        add table inet portcullis_gateway
        delete table inet portcullis_gateway
    "#]],
    );
}

#[test]
fn another_limit_begins_to_count_anew() {
    let key = key(None, Protocol::Tcp, 443);
    let before = filter(&[(key, allow(&["10.0.0.0/8"], 10, 5))]);
    check(
        filter(&[(key, allow(&["10.0.0.0/9"], 10, 5))]).change_from(&before),
        expect![[r#"
        add set inet portcullis_gateway rate4-tcp-443 { type ipv4_addr; size 65535; flags dynamic,timeout; timeout 1m; }
        add set inet portcullis_gateway open4-tcp-443 { type ipv4_addr; size 65535; flags dynamic; }
        add set inet portcullis_gateway rate6-tcp-443 { type ipv6_addr; size 65535; flags dynamic,timeout; timeout 1m; }
        add set inet portcullis_gateway open6-tcp-443 { type ipv6_addr; size 65535; flags dynamic; }
        add chain inet portcullis_gateway tcp-443
        flush chain inet portcullis_gateway tcp-443
        add rule inet portcullis_gateway tcp-443 ip saddr != { 10.0.0.0/9 } counter drop
        add rule inet portcullis_gateway tcp-443 meta nfproto ipv6 counter drop
        add rule inet portcullis_gateway tcp-443 update @rate4-tcp-443 { ip saddr limit rate over 10/second burst 10 packets } counter drop
        add rule inet portcullis_gateway tcp-443 update @rate6-tcp-443 { ip6 saddr & ffff:ffff:ffff:ffff:: limit rate over 10/second burst 10 packets } counter drop
        add rule inet portcullis_gateway tcp-443 add @open4-tcp-443 { ip saddr ct count over 5 } counter drop
        add rule inet portcullis_gateway tcp-443 add @open6-tcp-443 { ip6 saddr & ffff:ffff:ffff:ffff:: ct count over 5 } counter drop
    "#]],
    );
    check(
        filter(&[(key, allow(&[], 20, 0))]).change_from(&before),
        expect![[r#"
        flush chain inet portcullis_gateway tcp-443
        delete set inet portcullis_gateway rate4-tcp-443
        delete set inet portcullis_gateway open4-tcp-443
        delete set inet portcullis_gateway rate6-tcp-443
        delete set inet portcullis_gateway open6-tcp-443
        add set inet portcullis_gateway rate4-tcp-443 { type ipv4_addr; size 65535; flags dynamic,timeout; timeout 1m; }
        add set inet portcullis_gateway rate6-tcp-443 { type ipv6_addr; size 65535; flags dynamic,timeout; timeout 1m; }
        add chain inet portcullis_gateway tcp-443
        flush chain inet portcullis_gateway tcp-443
        add rule inet portcullis_gateway tcp-443 update @rate4-tcp-443 { ip saddr limit rate over 20/second burst 20 packets } counter drop
        add rule inet portcullis_gateway tcp-443 update @rate6-tcp-443 { ip6 saddr & ffff:ffff:ffff:ffff:: limit rate over 20/second burst 20 packets } counter drop
    "#]],
    );
}

#[test]
fn a_shaped_cluster_has_one_rate_for_both_directions() {
    let ports = BTreeSet::from([(Protocol::Tcp, 443), (Protocol::Udp, 53)]);
    let shaped = Shaped { bits_per_second: 8_000_000, ports };
    let slow = Filter { shaped: [("home".to_owned(), shaped)].into(), ..Filter::default() };
    let open = filter(&[(key(None, Protocol::Tcp, 443), allow(&[], 10, 0))]);
    let both = Filter { shaped: slow.shaped.clone(), ..open.clone() };
    check(
        both.change_from(&open),
        expect![[r#"
        add chain inet portcullis_gateway shape-input { type filter hook input priority filter - 4; policy accept; }
        add limit inet portcullis_gateway shape-home { rate over 1000000 bytes/second burst 524288 bytes; }
        add rule inet portcullis_gateway shape-input meta l4proto . th dport { tcp . 443, udp . 53 } limit name "shape-home" drop
        add chain inet portcullis_gateway shape-output { type filter hook output priority filter - 4; policy accept; }
        add rule inet portcullis_gateway shape-output meta l4proto . th sport { tcp . 443, udp . 53 } limit name "shape-home" drop
    "#]],
    );
    check(
        open.change_from(&both),
        expect![[r#"
        flush chain inet portcullis_gateway shape-input
        delete chain inet portcullis_gateway shape-input
        flush chain inet portcullis_gateway shape-output
        delete chain inet portcullis_gateway shape-output
        delete limit inet portcullis_gateway shape-home
    "#]],
    );
}

fn key(address: Option<std::net::IpAddr>, protocol: Protocol, port: u16) -> PortKey {
    PortKey { address, protocol, port }
}

fn allow(ranges: &[&str], new_per_second: u32, open: u32) -> PortFilter {
    let range = |text: &&str| {
        let (address, prefix) = text.split_once('/').expect("a range");
        let address = address.parse().expect("an address");
        Range { address, prefix: prefix.parse().expect("a length") }
    };
    let allow_from = ranges.iter().map(range).collect();
    PortFilter { allow_from, limits: Limits { new_per_second, open } }
}

fn filter(ports: &[(PortKey, PortFilter)]) -> Filter {
    Filter { ports: ports.iter().cloned().collect(), ..Filter::default() }
}

#[track_caller]
fn check(text: Option<String>, expected: Expect) {
    expected.assert_eq(&text.unwrap_or_default());
}
