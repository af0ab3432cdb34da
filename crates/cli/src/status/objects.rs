//! What EdgeGateway objects say, for people and programs.

use std::fmt;

use api::edge_gateway::{AgentStatus, EdgeGateway};
use serde::Serialize;

use super::agent::{milliseconds, size};

/// One gateway, as its object says.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GatewayLine {
    name: String,
    /// Whether it does what is asked of it.
    good: bool,
    agents: Vec<AgentStatus>,
    published_ports: i64,
    received: i64,
    sent: i64,
    version: Option<String>,
    /// What is wrong.
    state: String,
}

impl From<EdgeGateway> for GatewayLine {
    fn from(gateway: EdgeGateway) -> Self {
        let status = gateway.status.unwrap_or_default();
        let bad = status.conditions.iter().filter(|it| it.status == "False");
        // Several conditions say the same thing; the first ones are nearest to its cause.
        let mut bad: Vec<_> = bad.map(|it| format!("{}: {}", it.type_, it.message)).collect();
        bad.truncate(1);
        let state = match (status.conditions.is_empty(), bad.pop()) {
            (true, _) => "no agent has said anything about it yet".to_owned(),
            (false, None) => "good".to_owned(),
            (false, Some(bad)) => bad,
        };
        let bytes = status.bytes.unwrap_or_default();
        Self {
            name: gateway.metadata.name.unwrap_or_default(),
            good: state == "good",
            agents: status.agents,
            published_ports: status.published_ports.unwrap_or_default(),
            received: bytes.received,
            sent: bytes.sent,
            version: status.version,
            state,
        }
    }
}

impl fmt::Display for GatewayLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.good { "ok  " } else { "FAIL" };
        let version = self.version.as_ref().map(|it| format!(" ({it})")).unwrap_or_default();
        write!(
            f,
            "{mark} gateway {}{version}: {} agents, {} ports, {} in, {} out, {}",
            self.name,
            self.agents.len(),
            self.published_ports,
            size(unsigned(self.received)),
            size(unsigned(self.sent)),
            self.state
        )?;
        for it in &self.agents {
            let node = it.node.as_ref().map(|it| format!(" on node {it}")).unwrap_or_default();
            let round_trip = it.round_trip_microseconds.map(|it| milliseconds(unsigned(it)));
            let round_trip = round_trip.unwrap_or_default();
            let since = it.since.as_ref().map(|it| format!(", since {:.0}", it.0));
            let since = since.unwrap_or_default();
            write!(
                f,
                "\n       {}{node}: linked over {}{round_trip}, {} flows{since}",
                it.name, it.carrier, it.flows
            )?;
        }
        Ok(())
    }
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn line(object: serde_json::Value) -> GatewayLine {
        serde_json::from_value::<EdgeGateway>(object).expect("an EdgeGateway").into()
    }

    #[test]
    fn a_gateway_is_shown_with_its_agents_or_with_what_is_wrong() {
        let condition = |name: &str, status: &str, message: &str| {
            serde_json::json!({ "type": name, "status": status, "reason": "R", "message": message,
                "lastTransitionTime": "2026-01-02T03:04:05Z" })
        };
        let spec = serde_json::json!({ "endpoints": [{ "host": "gw.example.com" }] });
        let fra1 = line(serde_json::json!({
            "apiVersion": "portcullis.dev/v1alpha1", "kind": "EdgeGateway",
            "metadata": { "name": "fra1" }, "spec": spec,
            "status": {
                "conditions": [condition("Ready", "True", ""), condition("Reachable", "Unknown", "")],
                "agents": [{ "name": "agent-0", "node": "n1", "carrier": "tls",
                    "roundTripMicroseconds": 12345, "flows": 2, "since": "2026-01-02T03:04:00Z" }],
                "publishedPorts": 3, "version": "0.1.0",
                "bytes": { "received": 999, "sent": 12_345_678 },
            },
        }));
        let ams1 = line(serde_json::json!({
            "apiVersion": "portcullis.dev/v1alpha1", "kind": "EdgeGateway",
            "metadata": { "name": "ams1" }, "spec": spec,
            "status": { "conditions": [
                condition("Connected", "False", "no agent is connected"),
                condition("Ready", "False", "no agent is connected"),
            ] },
        }));
        let new = line(serde_json::json!({
            "apiVersion": "portcullis.dev/v1alpha1", "kind": "EdgeGateway",
            "metadata": { "name": "new" }, "spec": spec,
        }));
        expect![[r#"
            ok   gateway fra1 (0.1.0): 1 agents, 3 ports, 999 B in, 12 MB out, good
                   agent-0 on node n1: linked over tls in 12.3 ms, 2 flows, since 2026-01-02T03:04:00Z
            FAIL gateway ams1: 0 agents, 0 ports, 0 B in, 0 B out, Connected: no agent is connected
            FAIL gateway new: 0 agents, 0 ports, 0 B in, 0 B out, no agent has said anything about it yet
        "#]]
        .assert_eq(&format!("{fra1}\n{ams1}\n{new}\n"));
        expect![[r#"{"name":"fra1","good":true,"agents":[{"name":"agent-0","node":"n1","carrier":"tls","roundTripMicroseconds":12345,"flows":2,"since":"2026-01-02T03:04:00Z"}],"publishedPorts":3,"received":999,"sent":12345678,"version":"0.1.0","state":"good"}"#]]
            .assert_eq(&serde_json::to_string(&fra1).expect("JSON"));
    }
}
