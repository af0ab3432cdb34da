//! What the controller tells about a Host.

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the controller tells about a Host.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HostStatus {
    /// The generation of the object that the rest speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64")]
    pub observed_generation: Option<i64>,

    /// `Accepted`, `Reachable`, `Applied` and `NoFindings`.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<meta::Condition>,

    /// Identifies the state that the host was last brought to; equal states have equal revisions.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub applied_revision: Option<String>,

    /// When the host was last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "meta::Time")]
    pub last_applied_time: Option<meta::Time>,

    /// How many host ports the host forwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64")]
    pub forwards: Option<i64>,

    /// The addresses under which clients reach what the host forwards, in ascending order. What
    /// `status.loadBalancer` of Services lists is taken from here where another controller drives
    /// the host.
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub addresses: Vec<String>,

    /// How often something else changed our rules, since the controller started.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64")]
    pub drift: Option<i64>,

    /// Why the host could not be brought up to date; absent when it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub last_error: Option<String>,

    /// How many nodes take traffic.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64")]
    pub nodes: Option<i64>,

    /// The nodes that take traffic, and at which addresses.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub node_targets: Vec<NodeTarget>,
}

impl HostStatus {
    /// Whether the host did what was last asked of it, as far as its controller could tell.
    #[must_use]
    pub fn is_applied(&self) -> bool {
        let applied = Condition::Applied.name();
        self.conditions.iter().any(|it| it.type_ == applied && it.status == "True")
    }
}

/// A node that takes traffic.
#[derive(
    Clone, Debug, Default, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "camelCase")]
pub struct NodeTarget {
    /// The name of the Node.
    pub name: String,
    /// The addresses at which it takes traffic.
    #[serde(default)]
    pub addresses: Vec<String>,
}

/// The conditions of a Host. All are good when they are true.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Condition {
    /// The object can be understood.
    Accepted,
    /// The last attempt to reach the host succeeded.
    Reachable,
    /// The host does what was last asked of it.
    Applied,
    /// No object that this host serves has a problem.
    NoFindings,
}

/// Every condition, in the order in which they come to be true.
pub const CONDITIONS: [Condition; 4] =
    [Condition::Accepted, Condition::Reachable, Condition::Applied, Condition::NoFindings];

impl Condition {
    /// The `type` of the condition.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::Reachable => "Reachable",
            Self::Applied => "Applied",
            Self::NoFindings => "NoFindings",
        }
    }
}
