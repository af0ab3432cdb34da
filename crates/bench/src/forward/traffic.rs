//! What a connection costs: through 60 000 forwards, by routing alone, through as many linear rules
//! of iptables, and through a proxy. Four hosts stand side by side between one client and one server.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use testkit::lab::Daemon;
use testkit::probe::Probe;
use testkit::{Lab, Machine, Protocol};

use super::apply::{finish, forwarding, linear_rules};
use crate::Setting;
use crate::figures::{median, microseconds};
use crate::objects::NODE_PORT;
use crate::row::{Bar, Row};

/// How many host ports are forwarded. The one that is used lies in the middle, where a search from
/// one end to the other finds it after half the way.
const FORWARDS: u16 = 60_000;
const MIDDLE: u16 = 30_000;
/// The host port that leads to the server that takes bulk data, beside the middle.
const BULK: u16 = 30_001;
/// Where that server listens.
const BULK_NODE_PORT: u16 = 30_501;

/// The ways between client and server, each through a host of its own.
const WAYS: [&str; 4] =
    ["plain routing", "portcullis", "linear iptables rules", "HAProxy, TCP mode"];
const PLAIN: usize = 0;
const OURS: usize = 1;
const LINEAR: usize = 2;
const PROXY: usize = 3;

/// Measures connecting, the first answer, and bulk data.
pub(crate) fn run(setting: &Setting) -> Result<Vec<Row>> {
    let lab = Lab::as_root("traffic")?;
    let site = Site::build(&lab)?;
    let (rounds, connections) = (setting.rounds(11, 3), if setting.quick { 300 } else { 1000 });
    let mut connected = [const { Vec::new() }; WAYS.len()];
    let mut answered = [const { Vec::new() }; WAYS.len()];
    for round in 0..=rounds {
        for way in turns(round) {
            let probe = Probe::new(site.to(way, MIDDLE, NODE_PORT), Protocol::Tcp);
            let burst = site.client.burst(probe.within(Duration::from_secs(3)), connections)?;
            anyhow::ensure!(burst.failed.is_empty(), "{}: {:?}", WAYS[way], burst.failed[0]);
            // The first round only warms up.
            if round > 0 {
                let times = |of: fn(&testkit::probe::Answer) -> Duration| {
                    let all: Vec<_> = burst.answers.iter().map(|it| microseconds(of(it))).collect();
                    median(&all)
                };
                connected[way].push(times(|it| it.connected));
                answered[way].push(times(|it| it.answered));
            }
        }
    }
    let mut bulk = [const { Vec::new() }; WAYS.len()];
    let seconds = if setting.quick { 1 } else { 2 };
    for round in 0..=rounds {
        for way in turns(round) {
            let gigabits = site.bulk(way, if round == 0 { 1 } else { seconds })?;
            if round > 0 {
                bulk[way].push(gigabits);
            }
        }
    }
    let over = |times: &[Vec<f64>; 4], way: usize| {
        let differences = times[way].iter().zip(&times[PLAIN]).map(|(it, plain)| it - plain);
        median(&differences.collect::<Vec<_>>())
    };
    let shares = |way: usize| {
        let shares = bulk[way].iter().zip(&bulk[PLAIN]).map(|(it, plain)| 100.0 * it / plain);
        median(&shares.collect::<Vec<_>>())
    };
    let all = |times: &[Vec<f64>; 4], unit: &str| {
        let medians = WAYS.iter().zip(times).map(|(way, it)| format!("{way} {:.1}", median(it)));
        format!("medians of {rounds} rounds in {unit}: {}", medians.collect::<Vec<_>>().join(", "))
    };
    let name = |what: &str| format!("{what}, {FORWARDS} forwards");
    Ok(vec![
        Row::new(&name("connect p50 over routing"), over(&connected, OURS), "us", Bar::AtMost(10.0))
            .beside(WAYS[LINEAR], over(&connected, LINEAR))
            .note(format!(
                "{connections} connections a round; {}; HAProxy answers for itself before it connects on",
                all(&connected, "us")
            )),
        Row::new(&name("connect and first answer p50"), median(&answered[OURS]), "us", Bar::None)
            .beside(WAYS[PROXY], median(&answered[PROXY]))
            .note(all(&answered, "us")),
        Row::new(&name("bulk of routing"), shares(OURS), "%", Bar::AtLeast(95.0))
            .beside(WAYS[PROXY], shares(PROXY))
            .note(format!("{seconds} s a round; {}", all(&bulk, "Gbit/s"))),
        Row::new("the same bulk beside iptables", shares(OURS), "%", Bar::None)
            .beside(WAYS[LINEAR], shares(LINEAR)),
    ])
}

/// Whose turn it is in a round: another one begins each time, so that none always follows the
/// busiest.
fn turns(round: usize) -> impl Iterator<Item = usize> {
    (0..WAYS.len()).map(move |it| (it + round) % WAYS.len())
}

struct Site {
    client: Machine,
    _hosts: Vec<Machine>,
    _running: (testkit::probe::EchoServer, Vec<Daemon>),
    _configuration: tempfile::TempDir,
}

impl Site {
    fn build(lab: &Lab) -> Result<Self> {
        let (client, node) = (lab.machine("client")?, lab.machine("node")?);
        let mut hosts = Vec::new();
        for way in 0..WAYS.len() {
            let host = lab.machine(&format!("host{way}"))?;
            let outside = |it: u8| format!("10.80.{way}.{it}/24");
            let inside = |it: u8| format!("10.81.{way}.{it}/24");
            let interface = format!("eth{way}");
            lab.link(&client, &interface, &[&outside(2)], &host, "eth0", &[&outside(1)])?;
            lab.link(&node, &interface, &[&inside(2)], &host, "nodes0", &[&inside(1)])?;
            client.route(&format!("10.81.{way}.0/24"), &format!("10.80.{way}.1"))?;
            node.route(&format!("10.80.{way}.0/24"), &format!("10.81.{way}.1"))?;
            host.forwarding(true)?;
            hosts.push(host);
        }
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, NODE_PORT));
        let echo = node.serve("node", any, Protocol::Tcp)?;
        let bulk = BULK_NODE_PORT.to_string();
        let bulk = node.spawn("iperf3", &["--server", "--port", &bulk, "--forceflush"])?;
        bulk.wait_for_log("Server listening", Duration::from_secs(10))?;

        let target = |port| if port == BULK { BULK_NODE_PORT } else { NODE_PORT };
        load(&hosts[OURS], &address(OURS), target)?;
        let rules = linear_rules(FORWARDS, &address(LINEAR), target)?;
        hosts[LINEAR].run_with_input("iptables-restore", &["--noflush"], &rules)?;
        let configuration = tempfile::tempdir()?;
        let proxy = proxy(&hosts[PROXY], configuration.path())?;
        let running = (echo, vec![bulk, proxy]);
        Ok(Self { client, _hosts: hosts, _running: running, _configuration: configuration })
    }

    /// Where the client connects to: the node itself, or the host port that leads there.
    fn to(&self, way: usize, host_port: u16, node_port: u16) -> SocketAddr {
        let way_number = u8::try_from(way).unwrap_or(u8::MAX);
        match way {
            PLAIN => SocketAddr::from(([10, 81, way_number, 2], node_port)),
            _ => SocketAddr::from(([10, 80, way_number, 1], host_port)),
        }
    }

    /// Gigabits a second of one TCP stream.
    fn bulk(&self, way: usize, seconds: u32) -> Result<f64> {
        let to = self.to(way, BULK, BULK_NODE_PORT);
        let (address, port) = (to.ip().to_string(), to.port().to_string());
        let seconds = seconds.to_string();
        let arguments = ["--json", "--client", &address, "--port", &port, "--time", &seconds];
        let report = self.client.run("iperf3", &arguments)?;
        let report: serde_json::Value = serde_json::from_str(&report)?;
        let bits = report["end"]["sum_received"]["bits_per_second"].as_f64();
        Ok(bits.context("iperf3 measured nothing")? / 1e9)
    }
}

/// The node's address behind a host.
fn address(way: usize) -> String {
    format!("10.81.{way}.2")
}

fn load(host: &Machine, node: &str, target: impl Fn(u16) -> u16) -> Result<()> {
    let forwarding = forwarding(FORWARDS, &[node], target)?;
    let backend = firewall::Backend::Nftables;
    let plan = backend.plan(&backend.render(&forwarding), &Default::default(), &Default::default());
    host.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            for command in plan.commands() {
                finish(&command).await?;
            }
            anyhow::Ok(())
        })
    })?
}

fn proxy(host: &Machine, directory: &Path) -> Result<Daemon> {
    let file = directory.join("haproxy.cfg");
    let node = address(PROXY);
    let section = |name: &str, port: u16, node_port: u16| {
        format!("listen {name}\n  bind 10.80.{PROXY}.1:{port}\n  server node {node}:{node_port}\n")
    };
    let text = format!(
        "global\n  maxconn 2000\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  \
         timeout server 60s\n{}{}",
        section("answers", MIDDLE, NODE_PORT),
        section("bulk", BULK, BULK_NODE_PORT)
    );
    std::fs::write(&file, text)?;
    let file = file.display().to_string();
    let proxy = host.spawn("haproxy", &["-db", "-f", &file])?;
    proxy.wait_until("it listens", Duration::from_secs(10), |_| {
        let port = format!(":{MIDDLE} ");
        host.run("ss", &["-Hltn"]).ok().filter(|it| it.contains(&port))
    })?;
    Ok(proxy)
}
