//! EP-03: the same packets get the same answers as with Epok's own rules, side by side in a lab.
//!
//! Epok's rules are written here as Epok writes them, from the same Services; then the same real
//! connections are made against them and against ours.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use testkit::Protocol::{self, Tcp, Udp};
use testkit::border::{HOST, HOST_ON_VPN, NODES, at};
use testkit::probe::{Probe, SILENCE};
use testkit::wait;

use crate::objects;
use crate::place::{PATIENCE, PROGRAM, Place};

/// A Service as its user annotated it.
struct Wanted {
    name: &'static str,
    /// Host port, node port, protocol.
    mappings: &'static [(u16, u16, Protocol)],
    internal: bool,
    allow: Option<&'static str>,
}

const SERVICES: [Wanted; 4] = [
    Wanted {
        name: "blog",
        mappings: &[(443, 30443, Tcp), (8443, 30443, Tcp)],
        internal: false,
        allow: None,
    },
    Wanted { name: "dns", mappings: &[(53, 30053, Udp)], internal: false, allow: None },
    Wanted { name: "admin", mappings: &[(2222, 30443, Tcp)], internal: true, allow: None },
    Wanted {
        name: "shop",
        mappings: &[(8080, 30443, Tcp)],
        internal: false,
        allow: Some("10.8.0.0/24"),
    },
];

/// Who answered: for every client, address, port and protocol the set of servers.
type Answers = BTreeMap<(String, String, u16, &'static str), BTreeSet<String>>;

#[test]
fn ep03_without_an_external_interface() -> anyhow::Result<()> {
    check(&["eth0", "wg0"], None)
}

#[test]
fn ep03_with_an_external_interface() -> anyhow::Result<()> {
    check(&["eth0", "wg0"], Some("eth0"))
}

#[test]
fn ep03_on_a_single_interface() -> anyhow::Result<()> {
    check(&["wg0"], None)
}

fn check(interfaces: &[&str], external: Option<&str>) -> anyhow::Result<()> {
    let Some(place) = Place::build("equal", "")? else { return Ok(()) };
    place.remove("host")?;
    for wanted in &SERVICES {
        place.write(wanted.name, &annotated(wanted))?;
    }

    place.host().run_with_input("iptables-restore", &[], &epok_rules(interfaces, external))?;
    let theirs = answers(&place)?;
    place.host().run("iptables", &["-t", "nat", "-F"])?;
    place.host().run("conntrack", &["-F"])?;
    assert!(theirs.values().any(|it| it.len() == 2), "Epok's rules spread connections: {theirs:?}");
    assert!(theirs.values().any(BTreeSet::is_empty), "Epok's rules keep somebody out: {theirs:?}");

    for backend in ["nftables", "iptables"] {
        let names = interfaces.join(",");
        let manifests = place.manifests.path().to_str().unwrap_or_default();
        let mut arguments =
            vec!["epok", "-i", &names, "--backend", backend, "--manifests", manifests];
        arguments.extend(external.map(|_| "--external-interface"));
        arguments.extend(external);
        arguments.push("local");
        let controller = place.host().spawn(PROGRAM, &arguments)?;
        let mut ours = Answers::new();
        let equal = wait::until_ok("equal answers", PATIENCE, || {
            controller.check_alive()?;
            ours = answers(&place)?;
            Ok((ours == theirs).then_some(()))
        });
        let differing: Vec<_> = theirs.iter().filter(|(at, it)| ours.get(at) != Some(it)).collect();
        assert!(
            equal.is_ok(),
            "{backend}: Epok's answers that differ: {differing:#?}\nours: {ours:#?}"
        );
        drop(controller);
        place.run(&["cleanup"])?;
    }
    Ok(())
}

/// Four connections for every client, address and port.
fn answers(place: &Place) -> anyhow::Result<Answers> {
    let ports =
        SERVICES.iter().flat_map(|it| it.mappings).map(|(port, _, protocol)| (*port, *protocol));
    let ports: Vec<_> = ports.chain([(9999, Tcp)]).collect();
    let clients = [&place.border.outside, &place.border.vpn, place.host()];
    let mut answers = Answers::new();
    for client in clients {
        for address in [HOST, HOST_ON_VPN] {
            for (port, protocol) in &ports {
                let mut servers = BTreeSet::new();
                for _ in 0..4 {
                    let probe = Probe::new(at(address, *port), *protocol).within(SILENCE);
                    servers.extend(client.probe(probe)?.server().map(str::to_owned));
                }
                let name = if *protocol == Udp { "udp" } else { "tcp" };
                answers
                    .insert((client.name().to_owned(), address.to_owned(), *port, name), servers);
            }
        }
    }
    Ok(answers)
}

fn annotated(wanted: &Wanted) -> String {
    let mappings: Vec<_> = wanted
        .mappings
        .iter()
        .map(|(host, node, protocol)| match protocol {
            Udp => format!("{host}:{node}:udp"),
            Tcp | Protocol::Sctp => format!("{host}:{node}"),
        })
        .collect();
    let mappings = mappings.join(",");
    let mut annotations = vec![("epok.getbetter.ro/externalports", mappings.as_str())];
    annotations.extend(wanted.internal.then_some(("epok.getbetter.ro/internal", "true")));
    annotations.extend(wanted.allow.map(|it| ("epok.getbetter.ro/allow-range", it)));
    objects::service(wanted.name, &annotations)
}

/// The rules that Epok 0.10 makes: for every node (in descending order, the first one without a
/// statistic match), mapping and interface; on `lo` only with an external interface.
fn epok_rules(interfaces: &[&str], external: Option<&str>) -> String {
    let mut rules = String::from("*nat\n");
    let destination = external.map(|_| format!(" -d {HOST}")).unwrap_or_default();
    for (index, node) in NODES.iter().enumerate().rev() {
        let balance = match index {
            0 => String::new(),
            _ => format!(" -m statistic --mode nth --every {} --packet 0", index + 1),
        };
        for wanted in &SERVICES {
            for (port, node_port, protocol) in wanted.mappings {
                let (name, state) = match protocol {
                    Udp => ("udp", ""),
                    Tcp | Protocol::Sctp => ("tcp", " -m state --state NEW"),
                };
                let end = format!(
                    "{destination} -p {name} --dport {port}{state}{balance} -m comment --comment \"epok_rule_id: x\" \
                     -j DNAT --to-destination {node}:{node_port}"
                );
                let allow = wanted.allow.map(|it| format!(" -s {it}")).unwrap_or_default();
                for interface in
                    interfaces.iter().filter(|it| !wanted.internal || external != Some(**it))
                {
                    let _ = writeln!(rules, "-A PREROUTING -i {interface}{allow}{end}");
                }
                if external.is_some() {
                    let _ = writeln!(rules, "-A OUTPUT -o lo{end}");
                }
            }
        }
    }
    rules + "COMMIT\n"
}
