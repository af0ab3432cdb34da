//! What `/status` shows.

use std::net::{IpAddr, SocketAddr};

use serde::Serialize;
use tunnel_proto::message::{PortReport, PortState, Reached, Report, SessionReport};

use crate::inner::Inner;
use crate::port::PortKey;

/// The whole page.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    name: String,
    program: String,
    draining: bool,
    addresses: Vec<IpAddr>,
    notes: Vec<String>,
    clusters: Vec<ClusterStatus>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ClusterStatus {
    name: String,
    revision: u64,
    agents: Vec<AgentStatus>,
    ports: Vec<PortStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quota: Option<QuotaStatus>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AgentStatus {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    carrier: String,
    address: SocketAddr,
    round_trip_microseconds: u64,
    flows: u64,
    age_seconds: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PortStatus {
    port: String,
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reached: Option<String>,
    open: u64,
    total: u64,
    failed: u64,
    received_bytes: u64,
    sent_bytes: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct QuotaStatus {
    used_bytes: u64,
    limit_bytes: u64,
    resets_at: u64,
}

/// The state of this moment.
pub(super) fn status(inner: &Inner) -> Status {
    let clusters = inner.clusters();
    Status {
        name: inner.config().name.clone(),
        program: inner.program.clone(),
        draining: inner.is_draining(),
        addresses: inner.offered(),
        notes: inner.notes(),
        clusters: clusters
            .values()
            .map(|it| ClusterStatus::of(it.name.as_str(), inner.report(it)))
            .collect(),
    }
}

impl ClusterStatus {
    fn of(name: &str, report: Report) -> Self {
        Self {
            name: name.to_owned(),
            revision: report.revision,
            agents: report.sessions.into_iter().map(AgentStatus::of).collect(),
            ports: report.ports.iter().map(PortStatus::of).collect(),
            quota: report.quota.map(|it| QuotaStatus {
                used_bytes: it.used,
                limit_bytes: it.limit,
                resets_at: it.resets_at,
            }),
        }
    }
}

impl AgentStatus {
    fn of(session: SessionReport) -> Self {
        Self {
            name: session.agent,
            node: session.node,
            carrier: session.carrier,
            address: session.address,
            round_trip_microseconds: session.round_trip_us,
            flows: session.flows,
            age_seconds: session.age_seconds,
        }
    }
}

impl PortStatus {
    fn of(report: &PortReport) -> Self {
        let key = PortKey { address: report.address, protocol: report.protocol, port: report.port };
        Self {
            port: key.to_string(),
            state: match &report.state {
                PortState::Listening => "listening".to_owned(),
                PortState::NotGranted(why) => format!("not granted: {why}"),
                PortState::InUse(by) => format!("in use by {by}"),
                PortState::Failed(why) => format!("failed: {why}"),
            },
            reached: report.probed.as_ref().map(|it| match &it.reached {
                Reached::Backend(microseconds) => format!("backend, in {microseconds} us"),
                Reached::NotBound(why) => format!("not bound: {why}"),
                Reached::Filtered(why) => format!("filtered: {why}"),
                Reached::NoLink => "no agent is connected".to_owned(),
                Reached::Agent(why) => format!("agent: {why}"),
                Reached::Endpoint(why) => format!("endpoint: {why}"),
            }),
            open: report.open,
            total: report.total,
            failed: report.failed,
            received_bytes: report.received,
            sent_bytes: report.sent,
        }
    }
}
