//! Statuses that several kinds share.

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use serde::{Deserialize, Serialize};

use super::listener::RouteGroupKind;
use super::route::ParentReference;

/// Where a Gateway can be reached.
#[derive(Clone, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct GatewayStatusAddress {
    /// `IPAddress` or `Hostname`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub type_: Option<String>,
    /// The address or the name.
    #[serde(default)]
    pub value: String,
}

/// What the controller tells about a listener.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListenerStatus {
    /// The listener.
    pub name: String,
    /// Which kinds of routes it takes.
    pub supported_kinds: Vec<RouteGroupKind>,
    /// How many accepted routes are attached.
    pub attached_routes: i32,
    /// `Accepted`, `Programmed`, `ResolvedRefs` and `Conflicted`.
    pub conditions: Vec<meta::Condition>,
}

/// What controllers tell about a route.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct RouteStatus {
    /// One for each parent and controller; other controllers write theirs into the same list.
    pub parents: Vec<RouteParentStatus>,
}

/// What one controller tells about a route and one of its parents.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteParentStatus {
    /// As the route's `spec` has it.
    pub parent_ref: ParentReference,
    /// Who wrote this.
    pub controller_name: String,
    /// `Accepted` and `ResolvedRefs`.
    pub conditions: Vec<meta::Condition>,
}
