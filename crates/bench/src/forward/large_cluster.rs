//! 1000 Services and 100 nodes that report as nodes do, from a real API server.

use std::time::Duration;

use anyhow::Result;

use super::edge::Edge;
use super::lag::APART;
use crate::Setting;
use crate::controller::Controller;
use crate::figures::{median, milliseconds, percentile};
use crate::kubernetes::Site;
use crate::objects::{MOVING, NODE_PORT, host, moving, slice, standing};
use crate::row::{Bar, Row};

const SERVICES: usize = 1000;
const NODES: usize = 100;

/// Measures memory, steady processor time, and one update among them.
pub(crate) fn run(setting: &Setting) -> Result<Vec<Row>> {
    let site = Site::start()?;
    let _heartbeats = site.nodes(NODES)?;
    let edge = Edge::build(NODES)?;
    let _entrance = site.entrance(&edge.host)?;
    let services = (0..SERVICES).map(|it| standing(it, 1000 + it, 1));
    let slices = (0..SERVICES).map(|it| slice(it, NODES));
    site.create([host(), moving("")].into_iter().chain(services).chain(slices).collect())?;
    let arguments = ["--kubeconfig", site.kubeconfig()?, "--host", "edge"];
    let controller = Controller::start(&edge.host, &setting.portcullis, &arguments)?;
    controller.settle()?;
    let forwards = &controller.status()?["hosts"]["edge"]["forwards"];
    anyhow::ensure!(*forwards == SERVICES, "{forwards} forwards: {}", controller.log());

    let during = Duration::from_secs(if setting.quick { 30 } else { 120 });
    let share = controller.processor_share(during)?;

    let wish = format!("443:{NODE_PORT}");
    let (mut opened, mut closed) = (Vec::new(), Vec::new());
    for _ in 0..setting.rounds(20, 5) {
        let open = || site.set_host_ports(MOVING, Some(&wish));
        opened.push(milliseconds(edge.until_connected(443, false, open)?));
        std::thread::sleep(APART);
        let close = || site.set_host_ports(MOVING, None);
        closed.push(milliseconds(edge.until_connected(443, true, close)?));
        std::thread::sleep(APART);
    }
    let slowest = percentile(&[&opened[..], &closed[..]].concat(), 1.0);
    let (resident, peak) = controller.memory()?;
    let of = format!("{SERVICES} Services, {NODES} nodes");
    Ok(vec![
        Row::new(&format!("steady processor time, {of}"), share, "%", Bar::AtMost(1.0)).note(
            format!(
                "over {} s, with its heartbeats and the processes that it started",
                during.as_secs()
            ),
        ),
        Row::new(&format!("slowest update end to end, {of}"), slowest, "ms", Bar::AtMost(1000.0))
            .note(format!(
                "{} writes to connections, p50 {:.1} ms; {} to refusals, p50 {:.1} ms",
                opened.len(),
                median(&opened),
                closed.len(),
                median(&closed)
            )),
        Row::new(&format!("resident memory, {of}"), resident, "MB", Bar::AtMost(60.0))
            .note(format!("at the end; {peak:.1} MB at the highest")),
    ])
}
