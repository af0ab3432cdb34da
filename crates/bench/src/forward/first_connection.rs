//! From a write to the API server to the first connection that gets through.

use anyhow::Result;

use super::edge::Edge;
use super::lag::APART;
use crate::Setting;
use crate::controller::Controller;
use crate::figures::{median, milliseconds, percentile};
use crate::kubernetes::Site;
use crate::objects::{MOVING, NODE_PORT, host, moving};
use crate::row::{Bar, Row};

/// Measures appearing and vanishing of one host port.
pub(crate) fn run(setting: &Setting) -> Result<Vec<Row>> {
    let site = Site::start()?;
    let _heartbeats = site.nodes(2)?;
    let edge = Edge::build(2)?;
    let _entrance = site.entrance(&edge.host)?;
    site.create(vec![host(), moving("")])?;
    let arguments = ["--kubeconfig", site.kubeconfig()?, "--host", "edge"];
    let controller = Controller::start(&edge.host, &setting.portcullis, &arguments)?;
    controller.settle()?;
    let wish = format!("443:{NODE_PORT}");
    let (mut opened, mut closed) = (Vec::new(), Vec::new());
    for round in 0..=setting.rounds(100, 10) {
        let open = edge.until_connected(443, false, || site.set_host_ports(MOVING, Some(&wish)))?;
        std::thread::sleep(APART);
        let close = edge.until_connected(443, true, || site.set_host_ports(MOVING, None))?;
        std::thread::sleep(APART);
        // The first round only warms up.
        if round > 0 {
            opened.push(milliseconds(open));
            closed.push(milliseconds(close));
        }
    }
    let row = |name: &str, times: &[f64], bar| {
        Row::new(name, median(times), "ms", bar).note(format!(
            "{} writes, p90 {:.1} ms, max {:.1} ms; Epok in the same set-up, on another day: p50 349 to \
             391 ms, max 441 ms",
            times.len(),
            percentile(times, 0.9),
            percentile(times, 1.0)
        ))
    };
    Ok(vec![
        row("API write to first connection p50", &opened, Bar::AtMost(20.0)),
        row("API write to first refusal p50", &closed, Bar::None),
    ])
}
