//! Memory: of programs that have nothing to do, and with many visitors that do nothing.

use anyhow::{Context as _, Result};

use super::load::connect;
use super::site::Site;
use super::ways::{OURS, RATHOLE};
use crate::Setting;
use crate::row::{Bar, Row};

/// Nearly 10 000. Many systems allow no more than 20 000 open files, and with a connection for
/// each flow every program here has two for each.
const FLOWS: usize = 9500;

/// Measures ours, and what is smallest of others.
pub(crate) fn run(setting: &Setting) -> Result<Vec<Row>> {
    let site = Site::build(setting)?;
    let flows = if setting.quick { 1000 } else { FLOWS };
    let mut measured = Vec::new();
    for name in [OURS, RATHOLE] {
        let way = &site.ways[site.index(name)?];
        let idle = way.memory()?;
        let busy = site.machine.enter(|| {
            let mut visitors = Vec::new();
            for number in 0..flows {
                let mut visitor = connect(way.echo)?;
                visitor.exchange(1).with_context(|| format!("{name}, flow {number}"))?;
                visitors.push(visitor);
            }
            way.memory()
        })??;
        measured.push((idle, busy));
    }
    let mut rows = Vec::new();
    for (side, program) in ["gateway", "agent"].into_iter().enumerate() {
        let [(idle, busy), (other_idle, other_busy)] = &measured[..] else {
            anyhow::bail!("two ways were measured");
        };
        let all = |idle: f64, busy: f64| idle + (busy - idle) * 10_000.0 / flows as f64;
        rows.push(
            Row::new(&format!("{program}, idle"), idle[side], "MiB", Bar::AtMost(12.0))
                .beside(RATHOLE, other_idle[side]),
        );
        rows.push(
            Row::new(
                &format!("{program}, 10 000 idle flows"),
                all(idle[side], busy[side]),
                "MiB",
                Bar::AtMost(64.0),
            )
            .beside(RATHOLE, all(other_idle[side], other_busy[side]))
            .note(format!("{flows} flows: {:.1} MiB", busy[side])),
        );
    }
    Ok(rows)
}
