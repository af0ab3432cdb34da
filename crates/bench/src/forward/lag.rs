//! From the change of an annotation to the rule in the kernel, with few and with many forwards.
//!
//! Both ends are seen from outside: the beginning is when a watch beside the controller's tells of
//! the change, the end is when the kernel announces the transaction.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::edge::Edge;
use crate::Setting;
use crate::controller::Controller;
use crate::figures::{median, milliseconds, percentile};
use crate::kubernetes::Site;
use crate::objects::{MOVING, NODE_PORT, host, moving, standing};
use crate::row::{Bar, Row};
use crate::witness::Transactions;

/// Longer than the least time between two plans, so that every change is a single one.
pub(crate) const APART: Duration = Duration::from_millis(80);

/// Measures at 10 and at 10 000 host ports.
pub(crate) fn run(setting: &Setting) -> Result<Vec<Row>> {
    let site = Site::start()?;
    let _heartbeats = site.nodes(2)?;
    let edge = Edge::build(2)?;
    let entrance = site.entrance(&edge.host)?;
    let mut rows = Vec::new();
    site.create(vec![host(), moving("")])?;
    for (count, services) in [(10, 0..1), (10_000, 1..1000)] {
        let create = services.map(|it| standing(it, 10_000 + 10 * it, 10));
        site.create(create.collect())?;
        let arguments = ["--kubeconfig", site.kubeconfig()?, "--host", "edge"];
        let controller = Controller::start(&edge.host, &setting.portcullis, &arguments)?;
        controller.settle()?;
        let forwards = &controller.status()?["hosts"]["edge"]["forwards"];
        anyhow::ensure!(
            *forwards == count,
            "{forwards} forwards, not {count}: {}",
            controller.log()
        );
        let (announced, rules) = (site.annotations(MOVING), Transactions::of(&edge.host)?);
        let (mut all, mut own) = (Vec::new(), Vec::new());
        for round in 0..=setting.rounds(100, 10) {
            let other = NODE_PORT + 1;
            // A new port, another target for it, and no port any more.
            let wished = [Some(format!("9000:{NODE_PORT}")), Some(format!("9000:{other}")), None];
            for wish in wished {
                announced.forget();
                rules.seen.forget();
                let change = || site.set_host_ports(MOVING, wish.as_deref());
                let to_the_end = controller.lag_of("edge", change)?;
                let event = announced.next("the watch event", |it| *it == wish)?;
                let rule = rules.seen.next("the rule in the kernel", |()| true)?;
                // The first round only warms up.
                if round > 0 {
                    all.push(signed_milliseconds(event, rule));
                    own.push(milliseconds(to_the_end));
                }
                std::thread::sleep(APART);
            }
        }
        let note = format!(
            "{} single changes, p50 {:.2} ms, max {:.2} ms; the controller itself, to the end of its \
             nft process: p50 {:.2} ms, p99 {:.2} ms",
            all.len(),
            median(&all),
            percentile(&all, 1.0),
            median(&own),
            percentile(&own, 0.99)
        );
        let name = format!("annotation to rule p99, {count} ports");
        rows.push(Row::new(&name, percentile(&all, 0.99), "ms", Bar::AtMost(10.0)).note(note));
    }
    drop(entrance);
    Ok(rows)
}

/// From one moment to another; the two were seen by two threads, so the second may come first.
fn signed_milliseconds(from: Instant, to: Instant) -> f64 {
    match to.checked_duration_since(from) {
        Some(later) => milliseconds(later),
        None => -milliseconds(from.duration_since(to)),
    }
}
