//! What a new visitor waits for, and how many can come in a second.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::load::connect;
use super::site::Site;
use super::ways::{OURS, Way};
use crate::Setting;
use crate::figures::{median, microseconds, percentile};
use crate::row::{Bar, Row};

/// Visitors that come at the same time when the rate is measured.
const AT_ONCE: usize = 8;

/// Measures visitors one after another, and many at a time.
pub(crate) fn run(setting: &Setting) -> Result<Vec<Row>> {
    let site = Site::build(setting)?;
    let rounds = setting.rounds(7, 2);
    let (times, seconds) = if setting.quick { (200, 1) } else { (1000, 2) };
    let mut halves = vec![Vec::new(); site.ways.len()];
    let mut tails = vec![Vec::new(); site.ways.len()];
    let mut rates = vec![Vec::new(); site.ways.len()];
    for round in 0..=rounds {
        for (number, way) in site.ways.iter().enumerate() {
            let took = site.machine.enter(|| one_by_one(way, times))??;
            let rate = site.machine.enter(|| at_once(way, Duration::from_secs(seconds)))??;
            // The first round only warms up.
            if round > 0 {
                halves[number].push(percentile(&took, 0.5));
                tails[number].push(percentile(&took, 0.99));
                rates[number].push(rate);
            }
        }
    }
    let ours = site.index(OURS)?;
    let note = |all: &[Vec<f64>], unit: &str| {
        let listed = site.ways.iter().zip(all);
        let listed = listed.map(|(it, all)| format!("{} {:.0}", it.name, median(all)));
        format!("medians of {rounds} rounds in {unit}: {}", listed.collect::<Vec<_>>().join(", "))
    };
    let row = |name: &str, all: &[Vec<f64>], unit, least: bool| {
        let mut best = usize::MAX;
        for other in (1..all.len()).filter(|it| *it != ours) {
            let better = |a: f64, b: f64| if least { a < b } else { a > b };
            if best == usize::MAX || better(median(&all[other]), median(&all[best])) {
                best = other;
            }
        }
        let peer = median(&all[best]);
        let bar = if least { Bar::AtMost(peer) } else { Bar::AtLeast(peer) };
        Row::new(name, median(&all[ours]), unit, bar)
            .beside(site.ways[best].name, peer)
            .note(note(all, unit))
    };
    Ok(vec![
        row("new visitor to first answer p50", &halves, "us", true),
        row("new visitor to first answer p99", &tails, "us", true),
        row("new visitors a second", &rates, "1/s", false),
    ])
}

/// Connects, sends a byte and waits until it is back, so many times. In microseconds.
fn one_by_one(way: &Way, times: usize) -> Result<Vec<f64>> {
    (0..times)
        .map(|_| {
            let begin = Instant::now();
            connect(way.echo)?.exchange(1)?;
            Ok(microseconds(begin.elapsed()))
        })
        .collect()
}

/// The same, by several at a time. How many a second.
fn at_once(way: &Way, during: Duration) -> Result<f64> {
    let (over, visits) = (AtomicBool::new(false), AtomicU64::new(0));
    let begin = Instant::now();
    std::thread::scope(|scope| {
        let visitors: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        connect(way.echo)?.exchange(1)?;
                        visits.fetch_add(1, Ordering::Relaxed);
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        std::thread::sleep(during);
        over.store(true, Ordering::Relaxed);
        for visitor in visitors {
            visitor.join().map_err(|_| anyhow::anyhow!("a visitor panicked"))??;
        }
        anyhow::Ok(())
    })?;
    Ok(visits.load(Ordering::Relaxed) as f64 / begin.elapsed().as_secs_f64())
}
