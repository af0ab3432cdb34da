//! From the change of an annotation to the rule in the kernel, with few and with many forwards.

use std::time::Duration;

use anyhow::Result;

use super::edge::Edge;
use crate::Setting;
use crate::controller::Controller;
use crate::figures::{median, milliseconds, percentile};
use crate::kubernetes::Site;
use crate::objects::{NODE_PORT, host, host_ports, service};
use crate::row::{Bar, Row};

/// The Service that changes.
pub(crate) const MOVING: &str = "moving";

/// Longer than the least time between two plans, so that every change is a single one.
pub(crate) const APART: Duration = Duration::from_millis(80);

/// Measures at 10 and at 10 000 host ports.
pub(crate) fn run(setting: &Setting) -> Result<Vec<Row>> {
    let site = Site::start()?;
    let _heartbeats = site.nodes(2)?;
    let edge = Edge::build(2)?;
    let entrance = site.entrance(&edge.host)?;
    let mut rows = Vec::new();
    site.create(vec![host(), service(MOVING, "")])?;
    for (count, services) in [(10, 0..1), (10_000, 1..1000)] {
        let create =
            services.map(|it| service(&format!("s{it}"), &host_ports(10_000 + 10 * it, 10)));
        site.create(create.collect())?;
        let arguments = ["--kubeconfig", site.kubeconfig()?, "--host", "edge"];
        let controller = Controller::start(&edge.host, &setting.portcullis, &arguments)?;
        controller.settle()?;
        let changes = setting.rounds(100, 10);
        let mut all = Vec::new();
        for round in 0..changes {
            let other = NODE_PORT + 1;
            // A new port, another target for it, and no port any more.
            let wished = [Some(format!("9000:{NODE_PORT}")), Some(format!("9000:{other}")), None];
            for wish in wished {
                let wish = wish.as_deref();
                let lag = controller.lag_of("edge", || site.set_host_ports(MOVING, wish))?;
                // The first round only warms up.
                if round > 0 {
                    all.push(milliseconds(lag));
                }
                std::thread::sleep(APART);
            }
        }
        let forwards = &controller.status()?["hosts"]["edge"]["forwards"];
        anyhow::ensure!(
            *forwards == count,
            "{forwards} forwards, not {count}: {}",
            controller.log()
        );
        let note = format!(
            "{} single changes, p50 {:.2} ms, max {:.2} ms",
            all.len(),
            median(&all),
            percentile(&all, 1.0)
        );
        let name = format!("annotation to rule p99, {count} ports");
        rows.push(Row::new(&name, percentile(&all, 0.99), "ms", Bar::AtMost(10.0)).note(note));
    }
    drop(entrance);
    Ok(rows)
}
