//! One table of packets, three judges: the tracer, the kernel with nftables, the kernel with
//! iptables. They must agree, and each backend must agree with the other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use api::port::Protocol;
use firewall::trace::{Entry, Host, Packet, Source, Tracer, Verdict};
use firewall::{Backend, Observed};
use testkit::probe::{EchoServer, Outcome, Probe, SILENCE};
use testkit::{Lab, Machine};

use crate::cases;
use crate::kernel::{assert_listed, observe, run};
use crate::laws::BACKENDS;

/// The rows of one case.
struct Table {
    drops_forwarded: bool,
    rows: Vec<Row>,
}

/// A packet that is sent often enough for every target to have its turn twice.
struct Row {
    text: String,
    machine: String,
    source: IpAddr,
    to: SocketAddr,
    protocol: Protocol,
    expected: Expected,
}

#[derive(Debug, Eq, PartialEq)]
enum Expected {
    Host,
    Dropped,
    /// In turn, each as often as the others, or always the same one of them.
    Delivered {
        targets: BTreeSet<SocketAddr>,
        sticky: bool,
        source: Source,
    },
}

#[test]
fn the_tracer_delivers_what_the_tables_say() {
    for (name, folder, forwarding) in cases::all() {
        let table = read(&folder);
        let host = Host { addresses: host_addresses(), drops_forwarded: table.drops_forwarded };
        for backend in BACKENDS {
            let ruleset = backend.render(&forwarding);
            let mut tracer = Tracer::new(&ruleset).expect("it understands what we write");
            for row in &table.rows {
                let packet = row.packet();
                let verdicts = (0..row.rounds()).map(|_| tracer.trace(&packet, &host));
                row.check(verdicts.collect(), &format!("{name}, {backend:?}, traced"));
            }
        }
    }
}

#[test]
fn the_kernel_delivers_what_the_tables_say_with_nftables() {
    kernel_delivers("packets-nftables", Backend::Nftables);
}

#[test]
fn the_kernel_delivers_what_the_tables_say_with_iptables() {
    kernel_delivers("packets-iptables", Backend::Iptables);
}

/// Applies case over case on one host, each twice, and sends every packet of its table.
fn kernel_delivers(name: &str, backend: Backend) {
    let Some(lab) = testkit::require(Lab::new(name)) else { return };
    let border = Border::build(&lab).expect("the border is built");
    for (case, folder, forwarding) in cases::all() {
        let table = read(&folder);
        border.drop_forwarded(table.drops_forwarded);
        let desired = backend.render(&forwarding);
        border.apply(backend, &desired, &case);
        // Once more from nothing, over what is there.
        border.load_anew(backend, &desired);
        let _servers = border.serve(&table);
        for row in &table.rows {
            let verdicts = (0..row.rounds()).map(|_| border.send(row)).collect();
            row.check(verdicts, &format!("{case}, {backend:?}, kernel"));
        }
    }
    let before = observe(&border.host, backend);
    for command in backend.cleanup(&before).commands() {
        let output = run(&border.host, &command);
        assert!(output.succeeded(), "{output:?}");
    }
    assert_eq!(observe(&border.host, backend), Observed::default(), "cleanup leaves nothing");
}

/// A host between an outside client, a VPN client and three nodes with pods.
struct Border {
    host: Machine,
    machines: BTreeMap<String, Machine>,
}

const NODES: [&str; 3] = ["node-a", "node-b", "node-c"];

impl Border {
    fn build(lab: &Lab) -> anyhow::Result<Self> {
        let host = lab.machine("host")?;
        let outside = lab.machine("outside")?;
        let vpn = lab.machine("vpn")?;
        let outside_addresses = ["203.0.113.9/24", "203.0.113.77/24", "fd00:203::9/64"];
        let host_addresses = ["203.0.113.1/24", "fd00:203::1/64"];
        lab.link(&host, "eth0", &host_addresses, &outside, "eth0", &outside_addresses)?;
        let host_addresses = ["10.8.0.1/24", "fd00:8::1/64"];
        lab.link(&host, "wg0", &host_addresses, &vpn, "wg0", &["10.8.0.9/24", "fd00:8::9/64"])?;
        let network = lab.network("nodes")?;
        network.plug(&host, "br0", &["10.0.0.254/24", "fd00::fe/64"])?;
        host.forwarding(true)?;
        outside.route("default", "203.0.113.1")?;
        outside.route("default", "fd00:203::1")?;
        vpn.route("default", "10.8.0.1")?;
        vpn.route("default", "fd00:8::1")?;
        let mut machines = BTreeMap::from([
            ("host".to_owned(), host.clone()),
            ("outside".to_owned(), outside),
            ("vpn".to_owned(), vpn),
        ]);
        for (index, name) in NODES.iter().enumerate() {
            let node = lab.machine(name)?;
            let number = index + 1;
            let own = [format!("10.0.0.{number}/24"), format!("fd00::{number}/64")];
            let mut addresses = own.to_vec();
            addresses.push(format!("10.244.{index}.1/32"));
            addresses.push(format!("fd01::{number}/128"));
            if index == 2 {
                // Many nodes share one machine where only their number matters.
                addresses.extend((4..=40).map(|it| format!("10.0.0.{it}/24")));
            }
            let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
            network.plug(&node, "eth0", &addresses)?;
            node.route("default", "10.0.0.254")?;
            node.route("default", "fd00::fe")?;
            host.route(&format!("10.244.{index}.1/32"), &format!("10.0.0.{number}"))?;
            host.route(&format!("fd01::{number}/128"), &format!("fd00::{number}"))?;
            machines.insert((*name).to_owned(), node);
        }
        Ok(Self { host, machines })
    }

    fn drop_forwarded(&self, on: bool) {
        let policy = if on { "DROP" } else { "ACCEPT" };
        for program in ["iptables", "ip6tables"] {
            let done = self.host.run(program, &["-w", "-P", "FORWARD", policy]);
            done.unwrap_or_else(|error| panic!("{error:#}"));
        }
    }

    fn apply(&self, backend: Backend, desired: &firewall::Ruleset, case: &str) {
        let before = observe(&self.host, backend);
        let plan = backend.plan(desired, &before, &BTreeSet::new());
        for command in plan.commands() {
            assert_eq!(firewall::guard::check(&command), Ok(()), "{case}");
            let output = run(&self.host, &command);
            assert!(output.succeeded(), "{case}: {output:?}\n{}", command.stdin);
        }
        assert_listed(&self.host, backend, desired);
    }

    /// Loads the documents for an empty host over what is there; what iptables then has twice is
    /// drift, and goes.
    fn load_anew(&self, backend: Backend, desired: &firewall::Ruleset) {
        let plan = backend.plan(desired, &Observed::default(), &BTreeSet::new());
        for command in plan.commands() {
            let output = run(&self.host, &command);
            assert!(output.succeeded(), "{output:?}\n{}", command.stdin);
        }
        self.apply(backend, desired, "loaded twice");
    }

    fn serve(&self, table: &Table) -> Vec<EchoServer> {
        let mut wanted = BTreeSet::new();
        for row in &table.rows {
            if let Expected::Delivered { targets, .. } = &row.expected {
                wanted.extend(
                    targets.iter().map(|it| (machine_of(it.ip()), it.port(), row.protocol)),
                );
            }
        }
        let serve = |(name, port, protocol): (&str, u16, Protocol)| {
            let at = SocketAddr::new("::".parse().expect("an address"), port);
            self.machines[name].serve(name, at, probed(protocol)).expect("the port is free")
        };
        wanted.into_iter().map(serve).collect()
    }

    fn send(&self, row: &Row) -> Verdict {
        let machine = if row.machine == "own" { "host" } else { row.machine.as_str() };
        let mut probe = Probe::new(row.to, probed(row.protocol)).from((row.source, 0).into());
        if row.expected == Expected::Dropped {
            probe = probe.within(SILENCE);
        }
        match self.machines[machine].probe(probe).expect("the attempt is made") {
            Outcome::Reached(answer) => {
                let kept = answer.source_seen.ip() == row.source;
                let source = if kept { Source::Kept } else { Source::Masqueraded };
                // A host that speaks to its own address keeps it when it is masqueraded as well.
                let ambiguous = row.machine == "own";
                let source = match &row.expected {
                    Expected::Delivered { source: expected, .. } if ambiguous => *expected,
                    Expected::Delivered { .. } | Expected::Host | Expected::Dropped => source,
                };
                Verdict::Delivered { target: answer.reached_on, source }
            }
            Outcome::Refused(_) => Verdict::Host,
            Outcome::Unreachable(what) => panic!("{}: {what}", row.text),
            Outcome::Dropped => Verdict::Dropped,
        }
    }
}

impl Row {
    fn packet(&self) -> Packet {
        let entry = match self.machine.as_str() {
            "own" => Entry::Own,
            "outside" => Entry::Interface("eth0".to_owned()),
            "vpn" => Entry::Interface("wg0".to_owned()),
            _ => Entry::Interface("br0".to_owned()),
        };
        let port = self.to.port().try_into().expect("not zero");
        Packet { source: self.source, entry, to: self.to.ip(), protocol: self.protocol, port }
    }

    fn rounds(&self) -> usize {
        match &self.expected {
            Expected::Host | Expected::Dropped => 1,
            Expected::Delivered { sticky: true, .. } => 4,
            Expected::Delivered { targets, .. } => 2 * targets.len(),
        }
    }

    fn check(&self, verdicts: Vec<Verdict>, judge: &str) {
        let text = &self.text;
        let mut reached: BTreeMap<SocketAddr, usize> = BTreeMap::new();
        for verdict in &verdicts {
            match (verdict, &self.expected) {
                (Verdict::Host, Expected::Host) | (Verdict::Dropped, Expected::Dropped) => {}
                (
                    Verdict::Delivered { target, source },
                    Expected::Delivered { targets, source: wanted, .. },
                ) if source == wanted && targets.contains(target) => {
                    *reached.entry(*target).or_default() += 1;
                }
                _ => panic!("{judge}: `{text}`, but {verdicts:?}"),
            }
        }
        if let Expected::Delivered { targets, sticky, .. } = &self.expected {
            let fair = match sticky {
                true => reached.len() == 1,
                false => reached.len() == targets.len() && reached.values().all(|it| *it == 2),
            };
            assert!(fair, "{judge}: `{text}`, but {reached:?}");
        }
    }
}

fn read(folder: &Path) -> Table {
    let text = std::fs::read_to_string(folder.join("packets.txt")).expect("packets.txt is there");
    let mut table = Table { drops_forwarded: false, rows: Vec::new() };
    for line in text.lines().filter(|it| !it.is_empty() && !it.starts_with('#')) {
        match line {
            "drops forwarded" => table.drops_forwarded = true,
            line => table.rows.push(read_row(line).unwrap_or_else(|| panic!("what is `{line}`?"))),
        }
    }
    assert!(!table.rows.is_empty(), "{}: no packets", folder.display());
    table
}

fn read_row(line: &str) -> Option<Row> {
    let (packet, expected) = line.split_once(" = ")?;
    let (from, to) = packet.split_once(" -> ")?;
    let (machine, source) = from.split_once(' ')?;
    let (to, protocol) = to.split_once('/')?;
    let words: Vec<_> = expected.split(' ').collect();
    let expected = match words.as_slice() {
        ["host"] => Expected::Host,
        ["dropped"] => Expected::Dropped,
        [targets @ .., source] => {
            let sticky = targets.last() == Some(&"sticky");
            let targets = targets.iter().filter(|it| **it != "sticky");
            Expected::Delivered {
                targets: targets.map(|it| it.parse().ok()).collect::<Option<_>>()?,
                sticky,
                source: match *source {
                    "kept" => Source::Kept,
                    "masqueraded" => Source::Masqueraded,
                    _ => return None,
                },
            }
        }
        [] => return None,
    };
    Some(Row {
        text: line.to_owned(),
        machine: machine.to_owned(),
        source: source.parse().ok()?,
        to: to.parse().ok()?,
        protocol: protocol.parse().ok()?,
        expected,
    })
}

fn host_addresses() -> BTreeSet<IpAddr> {
    ["203.0.113.1", "fd00:203::1", "10.8.0.1", "fd00:8::1", "10.0.0.254", "fd00::fe"]
        .map(|it| it.parse().expect("an address"))
        .into()
}

/// The machine that has an address.
fn machine_of(address: IpAddr) -> &'static str {
    let index = match address {
        IpAddr::V4(it) if it.octets()[1] == 244 => usize::from(it.octets()[2]),
        IpAddr::V4(it) => usize::from(it.octets()[3]) - 1,
        IpAddr::V6(it) => usize::from(it.segments()[7]) - 1,
    };
    NODES[index.min(2)]
}

fn probed(protocol: Protocol) -> testkit::Protocol {
    match protocol {
        Protocol::Tcp => testkit::Protocol::Tcp,
        Protocol::Udp => testkit::Protocol::Udp,
        Protocol::Sctp => testkit::Protocol::Sctp,
    }
}
