//! How many bytes a second go through, with one stream and with four, and what they cost.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::site::Site;
use super::ways::{NOISE, OURS, RATHOLE, Way};
use crate::Setting;
use crate::figures::median;
use crate::row::{Bar, Row};

/// How many streams at a time.
const STREAMS: [usize; 2] = [1, 4];

/// Measures with iperf3.
pub(crate) fn run(setting: &Setting) -> Result<Vec<Row>> {
    let site = Site::build(setting)?;
    let (rounds, seconds) = (setting.rounds(7, 2), if setting.quick { 1 } else { 3 });
    let mut speeds = vec![[Vec::new(), Vec::new()]; site.ways.len()];
    let mut costs = vec![Vec::new(); site.ways.len()];
    for round in 0..=rounds {
        for (at, streams) in STREAMS.into_iter().enumerate() {
            for (number, way) in site.ways.iter().enumerate() {
                let (speed, cost) = pour(&site, way, streams, seconds)?;
                // The first round only warms up.
                if round > 0 {
                    speeds[number][at].push(speed);
                    if streams == 1 {
                        costs[number].push(cost);
                    }
                }
            }
        }
    }
    let (ours, plain, noise) = (site.index(OURS)?, site.index(RATHOLE)?, site.index(NOISE)?);
    let mut rows = Vec::new();
    for (at, streams) in STREAMS.into_iter().enumerate() {
        let listed = site.ways.iter().zip(&speeds);
        let listed = listed.map(|(it, all)| format!("{} {:.2}", it.name, median(&all[at])));
        let note = format!(
            "{seconds} s a round, medians of {rounds} rounds in Gbit/s: {}",
            listed.collect::<Vec<_>>().join(", ")
        );
        // Round by round: a machine that gets slower slows the peers as well.
        let times = |peer: usize| {
            let pairs = speeds[ours][at].iter().zip(&speeds[peer][at]);
            median(&pairs.map(|(it, peer)| it / peer).collect::<Vec<_>>())
        };
        let encrypted =
            site.ways.iter().enumerate().filter(|(it, way)| way.encrypted && *it != ours);
        let best = encrypted
            .map(|(it, _)| it)
            .max_by(|a, b| median(&speeds[*a][at]).total_cmp(&median(&speeds[*b][at])));
        let best = best.context("no way of others is encrypted")?;
        let name = |what: &str| format!("relay over {what}, {streams} stream(s)");
        let unit = "times";
        rows.push(
            Row::new(&name("the best encrypted"), times(best), unit, Bar::AtLeast(2.2))
                .note(format!("{}: {note}", site.ways[best].name)),
        );
        let least = if streams == 1 { 1.1 } else { 1.0 };
        rows.push(Row::new(&name("rathole plain"), times(plain), unit, Bar::AtLeast(least)));
        let speed = median(&speeds[ours][at]);
        rows.push(
            Row::new(&format!("relay, {streams} stream(s)"), speed, "Gbit/s", Bar::None)
                .beside(site.ways[best].name, median(&speeds[best][at])),
        );
    }
    let cost = median(&costs[ours]);
    let half = median(&costs[noise]) / 2.0;
    rows.push(
        Row::new("processor time", cost, "s/GB", Bar::AtMost(half))
            .beside(NOISE, median(&costs[noise]))
            .note(format!(
                "gateway and agent together; rathole plain {:.2}",
                median(&costs[plain])
            )),
    );
    Ok(rows)
}

/// Gigabits a second, and the seconds of processor time that a gigabyte cost.
fn pour(site: &Site, way: &Way, streams: usize, seconds: u32) -> Result<(f64, f64)> {
    let (address, port) = (way.bulk.ip().to_string(), way.bulk.port().to_string());
    let (seconds, streams) = (seconds.to_string(), streams.to_string());
    let arguments = ["-J", "-c", &address, "-p", &port, "-t", &seconds, "-P", &streams];
    let mut tries = 0;
    let (sum, before) = loop {
        // iperf3 serves one client at a time, and takes a moment to be ready for the next.
        std::thread::sleep(Duration::from_millis(200 << tries));
        let before = way.processor_time()?;
        let report = site.machine.run("iperf3", &arguments);
        let sum = report.and_then(|it| {
            let report: serde_json::Value = serde_json::from_str(&it)?;
            let sum = report["end"]["sum_received"].clone();
            anyhow::ensure!(sum.is_object(), "iperf3 measured nothing: {}", report["error"]);
            Ok(sum)
        });
        match sum {
            Ok(sum) => break (sum, before),
            Err(_) if tries < 3 => tries += 1,
            Err(error) => return Err(error).with_context(|| way.logs()),
        }
    };
    let bits = sum["bits_per_second"].as_f64().context("iperf3 measured nothing")?;
    let bytes = sum["bytes"].as_f64().context("iperf3 measured nothing")?;
    Ok((bits / 1e9, (way.processor_time()? - before) / (bytes / 1e9)))
}
