//! What a gateway says about itself, for people: its clusters' sessions and ports.

use std::fmt::{self, Write as _};

use serde::Deserialize;

use super::agent::{milliseconds, size};

/// The part of a gateway's document that is shown.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Picture {
    name: String,
    program: String,
    draining: bool,
    addresses: Vec<String>,
    notes: Vec<String>,
    clusters: Vec<Cluster>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Cluster {
    name: String,
    agents: Vec<Session>,
    ports: Vec<Port>,
    quota: Option<Quota>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Session {
    name: String,
    node: Option<String>,
    carrier: String,
    address: String,
    round_trip_microseconds: u64,
    flows: u64,
    age_seconds: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Port {
    port: String,
    state: String,
    reached: Option<String>,
    open: u64,
    total: u64,
    failed: u64,
    received_bytes: u64,
    sent_bytes: u64,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Quota {
    used_bytes: u64,
    limit_bytes: u64,
}

impl fmt::Display for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.write(&mut text)?;
        f.write_str(text.trim_end())
    }
}

impl Picture {
    fn write(&self, f: &mut String) -> fmt::Result {
        let leaves = if self.draining { ", going away" } else { "" };
        let addresses = self.addresses.join(", ");
        writeln!(f, "gateway {} ({}) on {addresses}{leaves}", self.name, self.program)?;
        for note in &self.notes {
            writeln!(f, "  note: {note}")?;
        }
        for cluster in &self.clusters {
            cluster.write(f)?;
        }
        Ok(())
    }
}

impl Cluster {
    fn write(&self, f: &mut String) -> fmt::Result {
        let (agents, ports) = (self.agents.len(), self.ports.len());
        let mark = if self.agents.is_empty() { "FAIL" } else { "ok  " };
        writeln!(f, "  {mark} cluster {}: {agents} agents, {ports} ports", self.name)?;
        for it in &self.agents {
            let node = it.node.as_ref().map(|it| format!(" on node {it}")).unwrap_or_default();
            let round_trip = match it.round_trip_microseconds {
                0 => String::new(),
                known => milliseconds(known),
            };
            writeln!(
                f,
                "         {}{node}: linked over {} from {}{round_trip}, {} flows, for {} s",
                it.name, it.carrier, it.address, it.flows, it.age_seconds
            )?;
        }
        for it in &self.ports {
            let (received, sent) = (size(it.received_bytes), size(it.sent_bytes));
            let failed =
                if it.failed > 0 { format!(", {} refused", it.failed) } else { String::new() };
            let reached = it.reached.as_ref().map(|it| format!("; {it}")).unwrap_or_default();
            writeln!(
                f,
                "         {} {}: {} open of {}, {received} in, {sent} out{failed}{reached}",
                it.port, it.state, it.open, it.total
            )?;
        }
        if let Some(quota) = self.quota {
            let (used, limit) = (size(quota.used_bytes), size(quota.limit_bytes));
            writeln!(f, "         {used} of {limit} used")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn sessions_and_ports_are_shown_cluster_by_cluster() {
        let document = serde_json::json!({
            "name": "fra1", "program": "0.1.0", "draining": false, "addresses": ["203.0.113.7"],
            "notes": ["socket buffers are small"], "future": 1,
            "clusters": [
                { "name": "home", "revision": 7,
                    "agents": [{ "name": "agent-0", "node": "n1", "carrier": "tls",
                        "address": "198.51.100.3:40000", "roundTripMicroseconds": 12345,
                        "flows": 2, "ageSeconds": 61 }],
                    "ports": [{ "port": "443/tcp", "state": "listening",
                        "reached": "backend, in 300 us", "open": 2, "total": 9, "failed": 1,
                        "receivedBytes": 999, "sentBytes": 12_345_678 }],
                    "quota": { "usedBytes": 12_345_678, "limitBytes": 20_000_000_000_u64,
                        "resetsAt": 1 } },
                { "name": "lab", "revision": 0, "agents": [], "ports": [] },
            ],
        });
        let picture: Picture = serde_json::from_value(document).expect("a document");
        expect![[r#"
            gateway fra1 (0.1.0) on 203.0.113.7
              note: socket buffers are small
              ok   cluster home: 1 agents, 1 ports
                     agent-0 on node n1: linked over tls from 198.51.100.3:40000 in 12.3 ms, 2 flows, for 61 s
                     443/tcp listening: 2 open of 9, 999 B in, 12 MB out, 1 refused; backend, in 300 us
                     12 MB of 20 GB used
              FAIL cluster lab: 0 agents, 0 ports
        "#]]
        .assert_eq(&format!("{picture}\n"));
    }
}
