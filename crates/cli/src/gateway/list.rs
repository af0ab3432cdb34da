//! `portcullis gateway list`: the declared gateways, as their objects say.

use std::path::Path;

use anyhow::Context as _;
use api::edge_gateway::EdgeGateway;
use clap::Args;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use serde::Serialize;

use crate::arguments::Output;
use crate::connection::ConnectionOptions;
use crate::ending::{Ending, Result, refused};
use crate::print;

/// Most likely the kind is not there.
pub(super) const UNKNOWN: &str =
    "cannot list EdgeGateways; apply what `portcullis install agent` prints, then run this again";

/// Which gateways.
#[derive(Args, Debug)]
pub(crate) struct ListArguments {
    /// Read this directory of manifests instead of a cluster
    #[arg(long, value_name = "DIR", conflicts_with_all = ["kubeconfig", "context"])]
    manifests: Option<std::path::PathBuf>,

    #[command(flatten)]
    connection: ConnectionOptions,
}

/// One gateway, in a line.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    name: String,
    endpoints: Vec<String>,
    /// `True`, `False` or `Unknown`.
    ready: String,
    reason: String,
    agents: usize,
    published_ports: i64,
    version: String,
    message: String,
}

/// Lists them.
pub(crate) async fn run(arguments: &ListArguments, output: Output) -> Result {
    let gateways = match &arguments.manifests {
        Some(directory) => read(directory)?,
        None => {
            let client = arguments.connection.client().await?;
            let gateways = Api::<EdgeGateway>::all(client).list(&ListParams::default()).await;
            gateways.context(UNKNOWN)?.items
        }
    };
    let mut lines: Vec<_> = gateways.iter().map(line).collect();
    lines.sort_by(|a, b| a.name.cmp(&b.name));
    match output {
        Output::Json => print::json(&lines)?,
        Output::Text if lines.is_empty() => {
            print::note("no gateway is declared; `portcullis gateway create` declares one");
        }
        Output::Text => table(&lines)?,
    }
    Ok(Ending::Done)
}

fn line(gateway: &EdgeGateway) -> Line {
    let status = gateway.status.clone().unwrap_or_default();
    let ready = status.conditions.iter().find(|it| it.type_ == "Ready");
    let endpoint = |it: &api::edge_gateway::EndpointSpec| {
        if it.host.contains(':') {
            format!("[{}]:{}", it.host, it.port)
        } else {
            format!("{}:{}", it.host, it.port)
        }
    };
    Line {
        name: gateway.name_any(),
        endpoints: gateway.spec.endpoints.iter().map(endpoint).collect(),
        ready: ready.map_or("Unknown", |it| it.status.as_str()).to_owned(),
        reason: ready.map_or("NotSeen", |it| it.reason.as_str()).to_owned(),
        agents: status.agents.len(),
        published_ports: status.published_ports.unwrap_or(0),
        version: status.version.unwrap_or_default(),
        message: ready.map(|it| it.message.clone()).unwrap_or_default(),
    }
}

fn table(lines: &[Line]) -> Result<()> {
    let rows = lines.iter().map(|it| {
        let [agents, ports] = [it.agents.to_string(), it.published_ports.to_string()];
        let endpoints = it.endpoints.join(",");
        [it.name.clone(), endpoints, it.ready.clone(), it.reason.clone(), agents, ports]
    });
    let head = ["NAME", "ENDPOINTS", "READY", "REASON", "AGENTS", "PORTS"].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|it| it[column].chars().count()).max();
    let widths: Vec<_> = (0..6).map(|it| width(it).unwrap_or(0)).collect();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        print::line(cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

/// Every EdgeGateway below a directory. Other documents, and broken ones, are the watcher's to
/// complain about.
fn read(directory: &Path) -> Result<Vec<EdgeGateway>> {
    let unreadable =
        |error: std::io::Error| refused(format!("--manifests: {}: {error}", directory.display()));
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            let hidden = path.file_name().is_some_and(|it| it.to_string_lossy().starts_with('.'));
            let manifest =
                path.extension().is_some_and(|it| it == "yaml" || it == "yml" || it == "json");
            if hidden {
                continue;
            }
            if path.is_dir() {
                open.push(path);
            } else if manifest {
                let text = std::fs::read_to_string(&path).map_err(unreadable)?;
                let documents: Vec<serde_json::Value> =
                    serde_saphyr::from_multiple(&text).unwrap_or_default();
                let gateways = documents.into_iter().filter(|it| it["kind"] == "EdgeGateway");
                found.extend(gateways.filter_map(|it| serde_json::from_value(it).ok()));
            }
        }
    }
    Ok(found)
}
