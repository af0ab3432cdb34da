//! What is told about an EdgeGateway.

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is told about an EdgeGateway.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EdgeGatewayStatus {
    /// The generation of the object that the rest speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64")]
    pub observed_generation: Option<i64>,

    /// `Accepted`, `Adopted`, `Connected`, `Available`, `Ready` and `Reachable`; `WithinQuota` where
    /// traffic is counted.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<meta::Condition>,

    /// The agents that are connected, in the order of their names.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub agents: Vec<AgentStatus>,

    /// How many agents are connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64")]
    pub connected_agents: Option<i64>,

    /// How many ports it listens on for this cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64")]
    pub published_ports: Option<i64>,

    /// Traffic of this cluster since the gateway began to count.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "BytesStatus")]
    pub bytes: Option<BytesStatus>,

    /// Traffic of the current period, where it is counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "QuotaStatus")]
    pub quota: Option<QuotaStatus>,

    /// The version of the gateway's program.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub version: Option<String>,
}

/// An agent that is connected.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AgentStatus {
    /// Its name.
    pub name: String,
    /// The node that it runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub node: Option<String>,
    /// What carries its session.
    pub carrier: String,
    /// The smoothed round-trip time; absent when not yet known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64")]
    pub round_trip_microseconds: Option<i64>,
    /// How many flows are open.
    pub flows: i64,
    /// Since when it is connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "meta::Time")]
    pub since: Option<meta::Time>,
}

/// Traffic in both directions.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BytesStatus {
    /// From visitors.
    pub received: i64,
    /// To visitors.
    pub sent: i64,
}

/// Traffic of the current period.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QuotaStatus {
    /// Bytes so far, both directions.
    pub used_bytes: i64,
    /// Bytes allowed.
    pub limit_bytes: i64,
    /// When the next period begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "meta::Time")]
    pub resets_at: Option<meta::Time>,
}

/// The conditions of an EdgeGateway. All are good when they are true.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Condition {
    /// The object can be understood.
    Accepted,
    /// The gateway holds a certificate of this cluster.
    Adopted,
    /// At least one agent is connected.
    Connected,
    /// At least one port is listened on, or none was asked for.
    Available,
    /// Everything that was asked is published.
    Ready,
    /// Its public ports answer.
    Reachable,
    /// This month's traffic is not used up. Only where it is counted.
    WithinQuota,
}

/// Every condition, in the order in which they come to be true.
pub const CONDITIONS: [Condition; 7] = [
    Condition::Accepted,
    Condition::Adopted,
    Condition::Connected,
    Condition::Available,
    Condition::Ready,
    Condition::Reachable,
    Condition::WithinQuota,
];

impl Condition {
    /// The `type` of the condition.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::Adopted => "Adopted",
            Self::Connected => "Connected",
            Self::Available => "Available",
            Self::Ready => "Ready",
            Self::Reachable => "Reachable",
            Self::WithinQuota => "WithinQuota",
        }
    }
}
