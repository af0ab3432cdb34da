//! What a tunnel adds to the time from a question to its answer.

use anyhow::Result;

use super::load::connect;
use super::site::Site;
use super::ways::OURS;
use crate::Setting;
use crate::figures::{median, microseconds, percentile};
use crate::row::{Bar, Row};

/// Measures one byte there and back on a connection that stands, over going there directly.
pub(crate) fn run(setting: &Setting) -> Result<Vec<Row>> {
    let site = Site::build(setting)?;
    let (rounds, times) = (setting.rounds(15, 3), if setting.quick { 300 } else { 2000 });
    let mut medians = vec![Vec::new(); site.ways.len()];
    for round in 0..=rounds {
        for (way, all) in site.ways.iter().zip(&mut medians) {
            let took = site.machine.enter(|| connect(way.echo)?.exchange(times))??;
            // The first round only warms up.
            if round > 0 {
                let took: Vec<_> = took.into_iter().map(microseconds).collect();
                all.push(percentile(&took, 0.5));
            }
        }
    }
    let added = |way: usize| {
        let over = medians[way].iter().zip(&medians[0]).map(|(it, direct)| it - direct);
        median(&over.collect::<Vec<_>>())
    };
    let ours = site.index(OURS)?;
    let fastest = (1..site.ways.len())
        .filter(|it| *it != ours)
        .min_by(|a, b| added(*a).total_cmp(&added(*b)));
    let listed =
        site.ways.iter().zip(&medians).map(|(it, all)| format!("{} {:.1}", it.name, median(all)));
    let note = format!(
        "{times} exchanges a round, {rounds} rounds; medians in us: {}",
        listed.collect::<Vec<_>>().join(", ")
    );
    let mut row = Row::new("added round trip p50", added(ours), "us", Bar::AtMost(40.0)).note(note);
    if let Some(fastest) = fastest {
        row = row.beside(site.ways[fastest].name, added(fastest));
    }
    Ok(vec![row])
}
