//! What annotations and labels ask for, and what is said about those that cannot be followed.

use std::collections::BTreeMap;

use expect_test::{Expect, expect};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use proptest::prelude::*;

use super::*;
use crate::annotation::host_ports::HostPorts;

#[test]
fn a_service_says_what_it_wants() {
    service(
        &[
            ("portcullis.dev/host-ports", "443:30443, 53:udp"),
            ("portcullis.dev/host", "edge-a, edge-b"),
            ("portcullis.dev/internal", "true"),
            ("portcullis.dev/allow-from", "10.0.0.0/8, 2001:db8::/32"),
            ("kubectl.kubernetes.io/last-applied-configuration", "{}"),
        ],
        expect![[r#"
            ports 53:udp, 443:30443 on edge-a, edge-b internal from 10.0.0.0/8, 2001:db8::/32
        "#]],
    );
}

#[test]
fn a_service_without_annotations_wants_nothing_of_its_own() {
    service(
        &[],
        expect![[r#"
        ports - on all
    "#]],
    );
}

#[test]
fn an_empty_value_asks_for_no_port() {
    service(
        &[("portcullis.dev/host-ports", "")],
        expect![[r#"
        ports  on all
    "#]],
    );
}

/// EP-01: presence counts, whatever the value.
#[test]
fn the_predecessors_keys_mean_what_they_meant() {
    service(
        &[
            ("epok.getbetter.ro/externalports", "22:2022,53:2053:udp"),
            ("epok.getbetter.ro/internal", "false"),
            ("epok.getbetter.ro/allow-range", "10.0.0.0/255.0.0.0,192.168.1.1"),
        ],
        expect![[r#"
            ports 22:2022, 53:2053:udp on all internal from 10.0.0.0/8, 192.168.1.1/32
        "#]],
    );
    service(
        &[("epok.getbetter.ro/externalport", "22:2022")],
        expect![[r#"
        ports 22:2022 on all
    "#]],
    );
}

#[test]
fn our_key_counts_where_both_speak_and_a_difference_is_told() {
    service(
        &[
            ("portcullis.dev/host-ports", "22:30022"),
            ("portcullis.dev/internal", "false"),
            ("portcullis.dev/allow-from", "10.0.0.0/8"),
            ("epok.getbetter.ro/externalports", "22:2022"),
            ("epok.getbetter.ro/externalport", "not even a list"),
            ("epok.getbetter.ro/internal", ""),
            ("epok.getbetter.ro/allow-range", "0.0.0.0/0"),
        ],
        expect![[r#"
            ports 22:30022 on all from 10.0.0.0/8
            ValueOverridden epok.getbetter.ro/allow-range: "0.0.0.0/0": has no effect, because portcullis.dev/allow-from says `10.0.0.0/8`; remove epok.getbetter.ro/allow-range, or make both say the same
            ValueOverridden epok.getbetter.ro/externalport: "not even a list": has no effect, because portcullis.dev/host-ports says `22:30022`; remove epok.getbetter.ro/externalport, or make both say the same
            ValueOverridden epok.getbetter.ro/externalports: "22:2022": has no effect, because portcullis.dev/host-ports says `22:30022`; remove epok.getbetter.ro/externalports, or make both say the same
            ValueOverridden epok.getbetter.ro/internal: "": has no effect, because portcullis.dev/internal says `false`; remove epok.getbetter.ro/internal, or make both say the same
        "#]],
    );
}

#[test]
fn two_keys_that_say_the_same_are_no_problem() {
    service(
        &[
            ("portcullis.dev/host-ports", "53:2053:UDP, 22:2022"),
            ("epok.getbetter.ro/externalports", "22:2022:tcp,53:2053:udp"),
            ("portcullis.dev/internal", "true"),
            ("epok.getbetter.ro/internal", ""),
            ("portcullis.dev/allow-from", "10.0.0.0/8"),
            ("epok.getbetter.ro/allow-range", "10.1.1.1/8"),
        ],
        expect![[r#"
            ports 22:2022, 53:2053:udp on all internal from 10.0.0.0/8
        "#]],
    );
}

#[test]
fn one_bad_value_refuses_the_object_and_every_bad_value_is_named() {
    service(
        &[
            ("portcullis.dev/host-ports", "22:x"),
            ("portcullis.dev/host", "Edge A"),
            ("portcullis.dev/internal", "yes"),
            ("portcullis.dev/allow-from", "vpn.example.com"),
            ("epok.getbetter.ro/externalports", "22:2022"),
        ],
        expect![[r#"
            refused
            InvalidValue portcullis.dev/allow-from: "vpn.example.com": `vpn.example.com` is not an address or CIDR range such as 10.0.0.0/8 or 2001:db8::/32; write addresses and CIDR ranges, separated by commas; names are not looked up
            InvalidValue portcullis.dev/host: "Edge A": `Edge A` is not the name of an object: expected lower case letters, digits, - and .; write the names of Host objects, separated by commas, or leave the annotation out for all
            InvalidValue portcullis.dev/host-ports: "22:x": `x` in `22:x` is neither a port between 1 and 65535 nor tcp, udp or sctp; write entries such as 443, 443:30443, 53:udp, 53:30053:udp or 9000-9010:30000-30010, separated by commas
            InvalidValue portcullis.dev/internal: "yes": expected true or false; write "true" or "false", with quotes, or leave it out for false
        "#]],
    );
}

/// A list that allows nobody must not become a list that allows everybody.
#[test]
fn an_empty_list_is_refused() {
    service(
        &[("portcullis.dev/allow-from", " , "), ("portcullis.dev/host", "")],
        expect![[r#"
            refused
            InvalidValue portcullis.dev/allow-from: " , ": the list is empty, so that nobody would be allowed; leave it out to allow everyone
            InvalidValue portcullis.dev/host: "": the list is empty, so that no host would forward; write the names of Host objects, separated by commas, or leave the annotation out for all
        "#]],
    );
}

/// EP-11, X-03: nothing of it gets past this crate, and nothing of it reaches a terminal.
#[test]
fn hostile_values_are_refused() {
    let long = "1".repeat(1 << 20);
    service(
        &[
            ("epok.getbetter.ro/allow-range", "10.0.0.0/8; rm -rf / #"),
            ("epok.getbetter.ro/externalports", "22:$(reboot)"),
            ("portcullis.dev/host", "a\u{1b}[2J\nb"),
        ],
        expect![[r#"
            refused
            InvalidValue epok.getbetter.ro/allow-range: "10.0.0.0/8; rm -rf / #": `10.0.0.0/8; rm -rf / #` is not an address or CIDR range such as 10.0.0.0/8 or 2001:db8::/32; write addresses and CIDR ranges, separated by commas; names are not looked up
            InvalidValue epok.getbetter.ro/externalports: "22:$(reboot)": `$(reboot)` in `22:$(reboot)` is not a port between 1 and 65535; write entries such as 443, 443:30443, 53:udp, 53:30053:udp or 9000-9010:30000-30010, separated by commas
            InvalidValue portcullis.dev/host: "a\u{1b}[2J\nb": `a\u{1b}[2J\nb` is not the name of an object: expected lower case letters, digits, - and .; write the names of Host objects, separated by commas, or leave the annotation out for all
        "#]],
    );
    let reading = read_service(&metadata(&[("portcullis.dev/allow-from", &long)]));
    let problem = reading.problems.first().expect("a problem");
    assert_eq!(problem.problem, "the value has 1048576 bytes, the limit is 262144");
    assert!(problem.to_string().len() < 512, "too long for an Event: {problem}");
}

#[test]
fn a_key_without_effect_is_told() {
    service(
        &[
            ("portcullis.dev/hostports", "22"),
            ("portcullis.dev/external", "true"),
            ("epok.getbetter.ro/external", ""),
        ],
        expect![[r#"
            ports - on all
            ValueWithoutEffect epok.getbetter.ro/external: "": has no effect on a Service: its forwards are reachable through every interface; remove it
            ValueWithoutEffect portcullis.dev/external: "true": has no effect on a Service; a Service may have portcullis.dev/host-ports, portcullis.dev/host, portcullis.dev/internal, portcullis.dev/allow-from
            ValueWithoutEffect portcullis.dev/hostports: "22": is not a known annotation and has no effect; a Service may have portcullis.dev/host-ports, portcullis.dev/host, portcullis.dev/internal, portcullis.dev/allow-from
        "#]],
    );
}

#[test]
fn a_pod_says_what_it_wants() {
    pod(
        &[
            ("portcullis.dev/host-ports", "8080:80"),
            ("portcullis.dev/external", "true"),
            ("portcullis.dev/allow-from", "192.0.2.0/24"),
        ],
        expect![[r#"
            ports 8080:80 on all External from 192.0.2.0/24
        "#]],
    );
    pod(
        &[("epok.getbetter.ro/externalports", "8080:80"), ("epok.getbetter.ro/external", "no")],
        expect![[r#"
            ports 8080:80 on all External
        "#]],
    );
    pod(
        &[("epok.getbetter.ro/internal", "")],
        expect![[r#"
        ports - on all Internal
    "#]],
    );
    pod(
        &[("epok.getbetter.ro/external", ""), ("portcullis.dev/external", "false")],
        expect![[r#"
            ports - on all Everywhere
            ValueOverridden epok.getbetter.ro/external: "": has no effect, because portcullis.dev/external says `false`; remove epok.getbetter.ro/external, or make both say the same
        "#]],
    );
}

#[test]
fn a_pod_cannot_be_internal_and_external() {
    pod(
        &[("epok.getbetter.ro/internal", ""), ("portcullis.dev/external", "true")],
        expect![[r#"
            refused
            InvalidValue portcullis.dev/external: "true": internal and external together leave no interface; keep one of the two annotations
        "#]],
    );
}

/// The predecessor ignored it too; here somebody hears of it.
#[test]
fn an_allow_range_on_a_pod_is_told() {
    pod(
        &[("epok.getbetter.ro/allow-range", "10.0.0.0/8")],
        expect![[r#"
        ports - on all Everywhere
        ValueWithoutEffect epok.getbetter.ro/allow-range: "10.0.0.0/8": has no effect on a Pod: everyone may use its host ports; write portcullis.dev/allow-from to restrict them
    "#]],
    );
}

#[test]
fn a_node_is_excluded_by_any_mark() {
    node(&[], &[], true, &[]);
    node(&[("epok.getbetter.ro/exclude", "false")], &[], false, &[]);
    node(&[], &[("epok_exclude", "")], false, &[]);
    node(&[], &[("node.kubernetes.io/exclude-from-external-load-balancers", "false")], false, &[]);
    node(&[("portcullis.dev/exclude", "true")], &[], false, &[]);
    node(&[("portcullis.dev/exclude", "false")], &[], true, &[]);
    node(&[("portcullis.dev/exclude", "false")], &[("epok_exclude", "")], false, &[]);
    node(
        &[("portcullis.dev/exclude", "false"), ("epok.getbetter.ro/exclude", "")],
        &[],
        true,
        &[
            r#"epok.getbetter.ro/exclude: "": has no effect, because portcullis.dev/exclude says `false`; remove epok.getbetter.ro/exclude, or make both say the same"#,
        ],
    );
}

#[test]
fn a_node_is_excluded_when_in_doubt() {
    node(
        &[("portcullis.dev/exclude", "")],
        &[],
        false,
        &[
            r#"portcullis.dev/exclude: "": expected true or false; write "true" or "false", with quotes, or leave it out for false"#,
        ],
    );
}

proptest! {
    #[test]
    fn reading_never_panics_and_never_half_accepts(
        keys in prop::collection::btree_map(prop::sample::select(KEYS.to_vec()), value(), 0..8),
    ) {
        let pairs: Vec<_> = keys.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let metadata = metadata(&pairs);
        let (service, pod) = (read_service(&metadata), read_pod(&metadata));
        prop_assert!(read_node(&metadata).wish.is_some());
        for (refused, problems) in
            [(service.wish.is_none(), &service.problems), (pod.wish.is_none(), &pod.problems)]
        {
            prop_assert_eq!(refused, problems.iter().any(|it| it.reason.refuses()));
            for it in problems {
                prop_assert!(KEYS.contains(&it.field.as_str()), "{}", it);
                prop_assert!(!it.to_string().contains(char::is_control), "more than a line: {}", it);
            }
        }
        if let Some(wish) = service.wish {
            prop_assert_eq!(wish.internal, keys.contains_key(key::EPOK_INTERNAL) && !keys.contains_key(key::INTERNAL)
                || keys.get(key::INTERNAL).is_some_and(|it| it.trim() == "true"));
            prop_assert_eq!(wish.sources.is_some(), keys.contains_key(key::ALLOW_FROM) || keys.contains_key(key::EPOK_ALLOW_RANGE));
        }
    }
}

const KEYS: [&str; 12] = [
    key::HOST_PORTS,
    key::HOST,
    key::INTERNAL,
    key::EXTERNAL,
    key::ALLOW_FROM,
    key::EXCLUDE,
    key::EPOK_EXTERNAL_PORTS,
    key::EPOK_EXTERNAL_PORT,
    key::EPOK_INTERNAL,
    key::EPOK_EXTERNAL,
    key::EPOK_ALLOW_RANGE,
    key::EPOK_EXCLUDE,
];

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,200}",
        any::<String>(),
        "(true|false| true|TRUE)",
        "[0-9]{1,4}(:[0-9]{1,4}(:udp)?)?(, ?[0-9]{1,4})?",
        "10\\.[0-9]\\.0\\.0/(8|16|24|40)(,::1)?",
        "[a-z]{1,3}(, ?[a-z]{1,3})?",
    ]
}

#[track_caller]
fn service(annotations: &[(&str, &str)], expected: Expect) {
    let reading = read_service(&metadata(annotations));
    let rest = |it: &ServiceWish| if it.internal { " internal" } else { "" }.to_owned();
    let shown = reading
        .wish
        .as_ref()
        .map(|it| shown(it.host_ports.as_ref(), it.hosts.as_ref(), rest(it), it.sources.as_ref()));
    expected.assert_eq(&report(shown, &reading.problems));
}

#[track_caller]
fn pod(annotations: &[(&str, &str)], expected: Expect) {
    let reading = read_pod(&metadata(annotations));
    let rest = |it: &PodWish| format!(" {:?}", it.exposure);
    let shown = reading
        .wish
        .as_ref()
        .map(|it| shown(it.host_ports.as_ref(), it.hosts.as_ref(), rest(it), it.sources.as_ref()));
    expected.assert_eq(&report(shown, &reading.problems));
}

#[track_caller]
fn node(annotations: &[(&str, &str)], labels: &[(&str, &str)], active: bool, problems: &[&str]) {
    let metadata = ObjectMeta { labels: Some(map(labels)), ..metadata(annotations) };
    let reading = read_node(&metadata);
    assert_eq!(reading.wish, Some(NodeWish { excluded: !active }));
    let told: Vec<_> = reading.problems.iter().map(ToString::to_string).collect();
    assert_eq!(told, problems);
}

fn shown(
    ports: Option<&HostPorts>,
    hosts: Option<&std::collections::BTreeSet<crate::name::ObjectName>>,
    rest: String,
    sources: Option<&crate::source_range::SourceRanges>,
) -> String {
    let ports = ports.map_or("-".to_owned(), ToString::to_string);
    let hosts = hosts.map(|it| it.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
    let hosts = hosts.unwrap_or("all".to_owned());
    let sources = sources.map_or(String::new(), |it| format!(" from {it}"));
    format!("ports {ports} on {hosts}{rest}{sources}")
}

fn report(wish: Option<String>, problems: &[Problem]) -> String {
    let mut text = format!("{}\n", wish.unwrap_or("refused".to_owned()));
    for problem in problems {
        text += &format!("{} {problem}\n", problem.reason.name());
    }
    text
}

fn metadata(annotations: &[(&str, &str)]) -> ObjectMeta {
    ObjectMeta { annotations: Some(map(annotations)), ..ObjectMeta::default() }
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}
