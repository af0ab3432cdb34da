//! What an agent says about itself, for people: its links, and what gateways publish for it.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use agent::status::GatewayStatus;
use serde::Deserialize;

/// The part of an agent's document that is shown.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Picture {
    agent: String,
    node: Option<String>,
    leader: bool,
    complete: bool,
    problems: Vec<String>,
    gateways: BTreeMap<String, GatewayStatus>,
    published_ports: usize,
    backends: usize,
    findings: Vec<serde_json::Value>,
}

impl fmt::Display for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text()?.trim_end())
    }
}

impl Picture {
    fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        self.write(&mut text)?;
        Ok(text)
    }

    fn write(&self, f: &mut String) -> fmt::Result {
        write!(f, "agent {}", self.agent)?;
        if let Some(node) = &self.node {
            write!(f, " on node {node}")?;
        }
        let leads = if self.leader { ", writes statuses" } else { "" };
        let (ports, backends) = (self.published_ports, self.backends);
        writeln!(f, ": {ports} ports for {backends} backends{leads}")?;
        if !self.complete {
            writeln!(f, "  not every kind of object was listed yet")?;
        }
        for problem in &self.problems {
            writeln!(f, "  problem: {problem}")?;
        }
        for (name, gateway) in &self.gateways {
            self.gateway(f, name, gateway)?;
        }
        if self.gateways.is_empty() {
            writeln!(f, "  no EdgeGateway is declared; `portcullis gateway create` declares one")?;
        }
        for finding in &self.findings {
            let part = |it: &str| finding[it].as_str().unwrap_or_default().to_owned();
            let object = &finding["object"];
            let kind = object["kind"].as_str().unwrap_or_default();
            let name = object["name"].as_str().unwrap_or_default();
            let namespace = object["namespace"].as_str().map(|it| format!("{it}/"));
            let namespace = namespace.unwrap_or_default();
            let (field, problem, remedy) = (part("field"), part("problem"), part("remedy"));
            writeln!(f, "  {kind} {namespace}{name}: {field}: {problem}; {remedy}")?;
        }
        Ok(())
    }

    fn gateway(&self, f: &mut String, name: &str, it: &GatewayStatus) -> fmt::Result {
        if it.connected {
            let carrier = it.carrier.as_deref().unwrap_or("?");
            let address = it.address.as_deref().unwrap_or("?");
            let round_trip = it.round_trip_microseconds.map(milliseconds).unwrap_or_default();
            let (flows, received, sent) = (it.flows, size(it.received), size(it.sent));
            let since = it.since.map(|it| format!(", since {it:.0}")).unwrap_or_default();
            writeln!(
                f,
                "  ok   {name}: linked over {carrier} to {address}{round_trip}, {flows} flows, \
                 {received} in, {sent} out{since}"
            )?;
            if let Some(why) = &it.carrier_reason {
                writeln!(f, "         {why}")?;
            }
        } else {
            let why = it.last_error.as_deref().unwrap_or("being dialled");
            writeln!(f, "  FAIL {name}: not linked: {why}")?;
        }
        for note in &it.notes {
            writeln!(f, "         note: {note}")?;
        }
        for port in &it.ports {
            let (received, sent) = (size(port.received), size(port.sent));
            let failed =
                if port.failed > 0 { format!(", {} refused", port.failed) } else { String::new() };
            let owner = port.owner.as_ref().map(|it| format!(" for {it}")).unwrap_or_default();
            writeln!(
                f,
                "         {}/{}{owner} {}: {} open of {}, {received} in, {sent} out{failed}",
                port.address, port.protocol, port.state, port.open, port.total
            )?;
        }
        Ok(())
    }
}

/// A round-trip time, as the end of a sentence.
pub(super) fn milliseconds(microseconds: u64) -> String {
    format!(" in {}.{} ms", microseconds / 1000, microseconds % 1000 / 100)
}

/// Bytes in the largest unit that leaves a whole number.
pub(super) fn size(bytes: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let (mut value, mut unit) = (bytes, 0);
    while value >= 10_000 && unit + 1 < units.len() {
        value /= 1000;
        unit += 1;
    }
    format!("{value} {}", units.get(unit).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn links_and_ports_are_shown_with_what_is_wrong() {
        let document = serde_json::json!({
            "agent": "agent-0", "node": "n1", "leader": true, "complete": true, "problems": [],
            "publishedPorts": 2, "backends": 1,
            "gateways": {
                "ams1": { "connected": false, "since": null, "carrier": null,
                    "carrierReason": null, "address": null, "gatewayVersion": null,
                    "roundTripMicroseconds": null, "flows": 0, "received": 0, "sent": 0,
                    "reconnects": 3, "lastError": "192.0.2.2:7443 cannot be connected to",
                    "ports": [] },
                "fra1": { "connected": true, "since": "2026-01-02T03:04:05.6Z", "carrier": "tls",
                    "carrierReason": "UDP is blocked", "address": "192.0.2.1:7443",
                    "gatewayVersion": "0.1.0", "roundTripMicroseconds": 12345, "flows": 2,
                    "received": 999, "sent": 12_345_678, "reconnects": 0, "lastError": null,
                    "ports": [{ "address": "*:443", "protocol": "tcp", "state": "listening",
                        "owner": "Service web/blog",
                        "open": 2, "total": 9, "received": 1, "sent": 2, "failed": 1 }] },
            },
            "findings": [{ "object": { "kind": "Service", "namespace": "web", "name": "blog" },
                "field": "portcullis.dev/gateway", "problem": "no such gateway", "remedy": "name one" }],
        });
        let picture: Picture = serde_json::from_value(document).expect("a document");
        expect![[r#"
            agent agent-0 on node n1: 2 ports for 1 backends, writes statuses
              FAIL ams1: not linked: 192.0.2.2:7443 cannot be connected to
              ok   fra1: linked over tls to 192.0.2.1:7443 in 12.3 ms, 2 flows, 999 B in, 12 MB out, since 2026-01-02T03:04:05Z
                     UDP is blocked
                     *:443/tcp for Service web/blog listening: 2 open of 9, 1 B in, 2 B out, 1 refused
              Service web/blog: portcullis.dev/gateway: no such gateway; name one
        "#]]
        .assert_eq(&format!("{picture}\n"));
    }
}
