//! What a running agent tells about itself: the document behind `/status`.
//!
//! The readiness probe and `portcullis status` read the same values, so that they cannot contradict
//! each other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use planner::finding::Finding;
use serde::{Deserialize, Serialize};
use tunnel_proto::message::{Protocol, PublishedPort};

/// The whole state of an agent at one moment.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// The program's version.
    pub version: &'static str,
    /// The agent's name.
    pub agent: String,
    /// Its node, if it runs on one.
    pub node: Option<String>,
    /// Whether this agent writes statuses (always false with manifests).
    pub leader: bool,
    /// Whether every kind of object was listed at least once.
    pub complete: bool,
    /// How new what it knows is.
    pub revision: u64,
    /// What cannot be followed right now.
    pub problems: Vec<String>,
    /// The link to each gateway.
    pub gateways: BTreeMap<String, GatewayStatus>,
    /// How many ports are published, over all gateways.
    pub published_ports: usize,
    /// How many backends there are.
    pub backends: usize,
    /// What users got wrong.
    pub findings: BTreeSet<Finding>,
}

impl Snapshot {
    /// Why this agent is not ready; empty when it is.
    ///
    /// It is ready when it knows every object and at least one gateway can reach it. Without any
    /// gateway declared there is nothing to wait for.
    #[must_use]
    pub fn unready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if !self.complete {
            reasons.push("not every kind of object was listed yet".to_owned());
        }
        if self.complete
            && !self.gateways.is_empty()
            && !self.gateways.values().any(|it| it.connected)
        {
            reasons.push("no gateway is connected".to_owned());
            for (name, gateway) in &self.gateways {
                if let Some(error) = &gateway.last_error {
                    reasons.push(format!("gateway {name}: {error}"));
                }
            }
        }
        reasons
    }
}

/// The link to one gateway.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayStatus {
    /// Whether there is a session.
    pub connected: bool,
    /// Since when it is so.
    pub since: Option<Timestamp>,
    /// The carrier of the session.
    pub carrier: Option<String>,
    /// Why it is this carrier.
    pub carrier_reason: Option<String>,
    /// Where the gateway was reached.
    pub address: Option<String>,
    /// The program's version at the gateway.
    pub gateway_version: Option<String>,
    /// The smoothed round-trip time in microseconds.
    pub round_trip_microseconds: Option<u64>,
    /// Flows open through this agent.
    pub flows: u64,
    /// Bytes from visitors through this agent.
    pub received: u64,
    /// Bytes to visitors through this agent.
    pub sent: u64,
    /// How often a session was lost or could not be made.
    pub reconnects: u64,
    /// What last went wrong.
    pub last_error: Option<String>,
    /// What a person should know about the gateway, as it last said.
    #[serde(default)]
    pub notes: Vec<String>,
    /// The ports that the gateway publishes for this cluster, as it last said.
    pub ports: Vec<PortStatus>,
}

impl GatewayStatus {
    /// Says of each port who asks for it.
    pub(crate) fn name_owners(&mut self, asked: &[PublishedPort]) {
        for port in &mut self.ports {
            let asks = |it: &&PublishedPort| {
                place(it.address, it.port) == port.address && port.protocol == protocol(it.protocol)
            };
            port.owner = asked.iter().find(asks).map(|it| it.owner.clone());
        }
    }
}

/// Where a port is, as in `203.0.113.7:443` or `*:443`.
pub(crate) fn place(address: Option<IpAddr>, port: u16) -> String {
    match address {
        Some(address) => SocketAddr::new(address, port).to_string(),
        None => format!("*:{port}"),
    }
}

pub(crate) fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

/// A published port, as the gateway reports it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PortStatus {
    /// The address and port, as in `203.0.113.7:443` or `*:443`.
    pub address: String,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Who asked for it, as in `Service web/blog`; absent when nobody does any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// `listening`, or what keeps it from that.
    pub state: String,
    /// Flows open now, through any agent.
    pub open: u64,
    /// Flows since the gateway began to count.
    pub total: u64,
    /// Bytes from visitors.
    pub received: u64,
    /// Bytes to visitors.
    pub sent: u64,
    /// Flows that no agent took.
    pub failed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_ready_when_it_knows_everything_and_a_gateway_can_reach_it() {
        let mut snapshot = Snapshot::default();
        assert_eq!(snapshot.unready(), ["not every kind of object was listed yet"]);
        snapshot.complete = true;
        assert!(snapshot.unready().is_empty(), "without gateways there is nothing to wait for");

        let lost = GatewayStatus {
            last_error: Some("connection refused".to_owned()),
            ..GatewayStatus::default()
        };
        snapshot.gateways.insert("fra1".to_owned(), lost);
        assert_eq!(
            snapshot.unready(),
            ["no gateway is connected", "gateway fra1: connection refused"]
        );
        let connected = GatewayStatus { connected: true, ..GatewayStatus::default() };
        snapshot.gateways.insert("ams1".to_owned(), connected);
        assert!(snapshot.unready().is_empty(), "one of two is enough");
    }
}
