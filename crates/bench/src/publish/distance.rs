//! One stream to a cluster far away, over each carrier.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use testkit::tunnels::AGENT_PAGES;
use testkit::{Lab, Machine};

use super::delay::DelayedWire;
use super::load::{Echo, connect};
use super::ways::published;
use crate::Setting;
use crate::figures::{median, microseconds, percentile};
use crate::row::{Bar, Row};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 91, 0, 1);
const AGENT: Ipv4Addr = Ipv4Addr::new(10, 91, 0, 2);
const BULK: u16 = 5201;
const ECHO: u16 = 5300;

/// What `portcullis gateway create` and `install agent` set on both machines.
const LIMITS: &str = include_str!("../../../../deploy/systemd/portcullis-gateway.sysctl");

/// How long it takes at most until everything is up.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is asked for in the EdgeGateway, and what then carries connections.
struct Carrier {
    asked: &'static str,
    used: &'static str,
    rows: [&'static str; 2],
}

const CARRIERS: [Carrier; 2] = [
    Carrier {
        asked: "auto",
        used: "tls",
        rows: ["one stream at 100 ms, to the backend", "one stream at 100 ms, to the visitor"],
    },
    Carrier {
        asked: "quic",
        used: "quic",
        rows: [
            "one stream at 100 ms over QUIC, to the backend",
            "one stream at 100 ms over QUIC, to the visitor",
        ],
    },
];

/// Measures both directions over a wire with 100 ms of round trip.
pub(crate) fn run(setting: &Setting) -> Result<Vec<Row>> {
    let rows: Result<Vec<_>> = CARRIERS.iter().map(|it| measure(setting, it)).collect();
    Ok(rows?.into_iter().flatten().collect())
}

fn measure(setting: &Setting, carrier: &Carrier) -> Result<Vec<Row>> {
    let lab = Lab::as_root("distance")?;
    let (near, far) = (lab.machine("gateway")?, lab.machine("agent")?);
    prepare(&near)?;
    prepare(&far)?;
    let ends = [(&near, format!("{GATEWAY}/24")), (&far, format!("{AGENT}/24"))];
    let [a, b] = [(ends[0].0, ends[0].1.as_str()), (ends[1].0, ends[1].1.as_str())];
    let _wire = DelayedWire::new(&lab, a, b, Duration::from_millis(50))?;
    let bulk = far.spawn("iperf3", &["--server", "--port", &BULK.to_string(), "--forceflush"])?;
    bulk.wait_for_log("Server listening", Duration::from_secs(10))?;
    let _echo = Echo::start(&far, (AGENT, ECHO).into())?;
    let directory = tempfile::tempdir()?;
    let way = published(
        [&near, &far],
        &setting.portcullis,
        directory.path(),
        GATEWAY,
        (AGENT, [BULK, ECHO]),
    )?;
    let linked = |carrier: Option<&str>| {
        testkit::wait::until("the link", PATIENCE, || {
            let page = far.page(AGENT_PAGES, "/status").ok()?;
            let status: serde_json::Value = serde_json::from_str(&page).ok()?;
            let edge = &status["gateways"]["edge"];
            let asked = carrier.is_none_or(|it| edge["carrier"] == it);
            (edge["connected"] == true && asked).then_some(())
        })
        .with_context(|| way.logs())
    };
    // The gateway has its certificate before the carrier is another.
    linked(None)?;
    ask_for(&directory.path().join("portcullis/manifests/edge.yaml"), carrier.asked)?;
    linked(Some(carrier.used))?;
    let answer = testkit::wait::until("an answer", PATIENCE, || {
        near.enter(|| connect(way.echo).ok()?.exchange(5).ok()).ok().flatten()
    })
    .with_context(|| way.logs())?;
    let answer: Vec<_> = answer.into_iter().map(microseconds).collect();
    let (rounds, seconds) = (setting.rounds(3, 1), if setting.quick { 6 } else { 12 });
    let mut speeds = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for (speeds, direction) in speeds.iter_mut().zip([None, Some("--reverse")]) {
            let (port, seconds) = (way.bulk.port().to_string(), seconds.to_string());
            let address = GATEWAY.to_string();
            // The first seconds find out how fast the path is.
            let mut arguments =
                vec!["-J", "-c", &address, "-p", &port, "-t", &seconds, "--omit", "4"];
            arguments.extend(direction);
            speeds.push(pour(&near, &arguments).with_context(|| way.logs())?);
        }
    }
    let note = format!(
        "visitor and gateway here, agent and backend behind the wire; an exchange takes {:.1} ms; \
         windows as the installers set them",
        percentile(&answer, 0.5) / 1000.0,
    );
    Ok(carrier
        .rows
        .iter()
        .zip(&speeds)
        .map(|(name, all)| {
            Row::new(name, median(all), "Mbit/s", Bar::AtLeast(500.0)).note(note.clone())
        })
        .collect())
}

/// Megabits a second.
fn pour(near: &Machine, arguments: &[&str]) -> Result<f64> {
    let mut tries = 0;
    loop {
        // iperf3 serves one client at a time, and takes a moment to be ready for the next.
        std::thread::sleep(Duration::from_millis(500 << tries));
        let bits = near.run("iperf3", arguments).and_then(|it| {
            let report: serde_json::Value = serde_json::from_str(&it)?;
            let bits = report["end"]["sum_received"]["bits_per_second"].as_f64();
            bits.with_context(|| format!("iperf3 measured nothing: {}", report["error"]))
        });
        match bits {
            Ok(bits) => return Ok(bits / 1e6),
            Err(_) if tries < 3 => tries += 1,
            Err(error) => return Err(error),
        }
    }
}

/// Sets what our installers set, as far as it is a network's own.
fn prepare(machine: &Machine) -> Result<()> {
    let settings = LIMITS.lines().filter_map(|it| it.strip_prefix("net.ipv4.")?.split_once(" = "));
    settings.into_iter().try_for_each(|(key, value)| machine.sysctl(&format!("ipv4/{key}"), value))
}

/// Writes the carrier into the EdgeGateway; the agent follows.
fn ask_for(manifest: &Path, carrier: &str) -> Result<()> {
    let text = std::fs::read_to_string(manifest)?;
    ensure!(text.contains("carrier: auto"), "{text}");
    let draft = manifest.with_file_name(".edge");
    std::fs::write(&draft, text.replace("carrier: auto", &format!("carrier: {carrier}")))?;
    Ok(std::fs::rename(&draft, manifest)?)
}
