//! Whole rulesets, from the desired state to the kernel's answer.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Instant;

use anyhow::{Context as _, Result};
use api::object::{ObjectKind, ObjectRef};
use api::port::{Port, Protocol};
use command::{Command, Program};
use firewall::{Backend, Observed};
use host::{Executor as _, Local};
use planner::desired::{Exposure, Forward, ForwardKey, Forwarding, NodeSetName, Targets};
use testkit::{Lab, Machine};

use crate::Setting;
use crate::figures::{median, milliseconds, percentile};
use crate::row::{Bar, Row};

/// Measures 5 000 forwards beside as many linear rules, and whether 60 000 can be loaded.
pub(crate) fn run(setting: &Setting) -> Result<Vec<Row>> {
    let lab = Lab::as_root("apply")?;
    let host = lab.machine("host")?;
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build();
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    let small = forwarding(5_000, &["10.77.0.11", "10.77.0.12"], |_| 30_443)?;
    let large = forwarding(60_000, &["10.77.0.11", "10.77.0.12"], |_| 30_443)?;
    for round in 0..=setting.rounds(11, 2) {
        let ours = |forwarding: &Forwarding| {
            host.enter(|| runtime()?.block_on(apply(forwarding))).context("enter a machine")?
        };
        let measured = [
            ours(&small)?,
            host.enter(|| {
                runtime()?.block_on(async {
                    let begin = Instant::now();
                    let text = linear_rules(5_000, "10.77.0.11", |_| 30_443)?;
                    let restore =
                        Command::new(Program::IptablesRestore).arg("--noflush").stdin(text);
                    finish(&restore).await?;
                    anyhow::Ok(milliseconds(begin.elapsed()))
                })
            })??,
            ours(&large)?,
        ];
        clear(&host)?;
        // The first round only warms up.
        if round > 0 {
            times.iter_mut().zip(measured).for_each(|(all, it)| all.push(it));
        }
    }
    let [ours, linear, most] = times;
    let note =
        |times: &[f64]| format!("{} rounds, max {:.0} ms", times.len(), percentile(times, 1.0));
    Ok(vec![
        Row::new("full apply of 5000 forwards", median(&ours), "ms", Bar::AtMost(150.0))
            .beside("5000 linear rules, iptables-restore", median(&linear))
            .note(format!("from rendering to the kernel's answer; {}", note(&ours))),
        Row::new("full apply of 60000 forwards", median(&most), "ms", Bar::None)
            .note(format!("loaded and counted; {}", note(&most))),
    ])
}

/// So many forwards, from host port 1 on, to nodes; first TCP, then UDP.
pub(super) fn forwarding(
    count: u16,
    nodes: &[&str],
    target: impl Fn(u16) -> u16,
) -> Result<Forwarding> {
    let mut forwarding = Forwarding::default();
    forwarding.entry.internal.insert("eth0".parse()?);
    let nodes: BTreeSet<_> = nodes.iter().map(|it| it.parse()).collect::<Result<_, _>>()?;
    forwarding.node_sets.insert(NodeSetName::All, nodes);
    let forward = |number: u16| {
        let port = Port::new(number).context("a port")?;
        let key = ForwardKey { protocol: Protocol::Tcp, port, exposure: Exposure::Everywhere };
        let service = format!("service-{}", number / 10);
        let owner =
            ObjectRef::namespaced(ObjectKind::Service, &format!("team-{}", number / 100), &service);
        let port = Port::new(target(number)).context("a port")?;
        let targets = Targets::Nodes { set: NodeSetName::All, port };
        anyhow::Ok((key, Forward { owner, targets, sources: None, affinity: false }))
    };
    forwarding.forwards = (1..=count).map(forward).collect::<Result<BTreeMap<_, _>>>()?;
    Ok(forwarding)
}

/// As many rules, one after the other, as `iptables-restore` takes them.
pub(super) fn linear_rules(count: u16, node: &str, target: impl Fn(u16) -> u16) -> Result<String> {
    let mut text = "*nat\n".to_owned();
    for port in 1..=count {
        writeln!(
            text,
            "-A PREROUTING -i eth0 -p tcp -m tcp --dport {port} -m addrtype --dst-type LOCAL -j DNAT \
             --to-destination {node}:{}",
            target(port)
        )?;
    }
    Ok(text + "COMMIT\n")
}

/// Applies to an empty machine, in whose network namespace this thread is, and returns the
/// milliseconds; that every forward arrived is checked afterwards.
pub(super) async fn apply(forwarding: &Forwarding) -> Result<f64> {
    let backend = Backend::Nftables;
    let empty = Observed::default();
    let begin = Instant::now();
    let ruleset = backend.render(forwarding);
    let plan = backend.plan(&ruleset, &empty, &BTreeSet::new());
    let commands = plan.commands();
    anyhow::ensure!(commands.len() == 1, "{} transactions", commands.len());
    for command in &commands {
        finish(command).await?;
    }
    let took = milliseconds(begin.elapsed());
    let mut outputs = Vec::new();
    for command in backend.listing(forwarding.options) {
        outputs.push(Local::new().run(&command).await?);
    }
    let observed = backend.observe(&outputs)?;
    anyhow::ensure!(
        backend.plan(&ruleset, &observed, &BTreeSet::new()).is_empty(),
        "what the kernel lists is not what was applied"
    );
    finish(&Command::new(Program::Nft).args(["delete", "table", "inet", "portcullis"])).await?;
    Ok(took)
}

/// Runs a command that has to succeed.
pub(super) async fn finish(command: &Command) -> Result<()> {
    let output = Local::new().run(command).await?;
    anyhow::ensure!(output.succeeded(), "{command}: {}", output.stderr);
    Ok(())
}

fn clear(host: &Machine) -> Result<()> {
    host.run("iptables", &["-t", "nat", "-F", "PREROUTING"]).map(drop)
}
