//! What a controller costs while nothing happens.

use std::time::Duration;

use anyhow::Result;

use super::edge::Edge;
use crate::Setting;
use crate::controller::Controller;
use crate::objects::{host, node, node_status, standing};
use crate::row::{Bar, Row};

/// Measures with 1000 forwards from a directory, over two of the default looks at the host.
pub(crate) fn run(setting: &Setting) -> Result<Vec<Row>> {
    let edge = Edge::build(2)?;
    let directory = tempfile::tempdir()?;
    let mut objects = vec![host()];
    for number in 1..=2 {
        let mut node = node(number);
        node["status"] = node_status(number, "2026-01-01T00:00:00Z");
        objects.push(node);
    }
    objects.extend((0..100).map(|it| standing(it, 1000 + 10 * it, 10)));
    let documents: Vec<_> = objects.iter().map(ToString::to_string).collect();
    std::fs::write(directory.path().join("all.yaml"), documents.join("\n---\n"))?;
    let manifests = directory.path().display().to_string();
    let arguments = ["--manifests", &manifests, "--host", "edge"];
    let controller = Controller::start(&edge.host, &setting.portcullis, &arguments)?;
    controller.settle()?;
    let forwards = &controller.status()?["hosts"]["edge"]["forwards"];
    anyhow::ensure!(*forwards == 1000, "{forwards} forwards: {}", controller.log());
    let during = Duration::from_secs(if setting.quick { 60 } else { 120 });
    let share = controller.processor_share(during)?;
    let note =
        format!("1000 forwards, over {} s, with the processes that it started", during.as_secs());
    Ok(vec![Row::new("idle processor time", share, "%", Bar::AtMost(0.1)).note(note)])
}
