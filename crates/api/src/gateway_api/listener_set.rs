//! `ListenerSet`: listeners that another namespace adds to a Gateway.

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use kube::CustomResource;
use serde::{Deserialize, Serialize};

use super::listener::Listener;
use super::status::ListenerStatus;

/// What a ListenerSet asks for.
#[derive(CustomResource, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "ListenerSet",
    namespaced,
    status = "ListenerSetStatus",
    derive = "PartialEq",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase")]
pub struct ListenerSetSpec {
    /// The Gateway that the listeners are for.
    #[serde(default)]
    pub parent_ref: ParentGatewayReference,
    /// Where it accepts connections.
    #[serde(default)]
    pub listeners: Vec<Listener>,
}

/// Names the Gateway of a ListenerSet.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct ParentGatewayReference {
    /// Its group; absent means that of the Gateway API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Its kind; absent means `Gateway`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its namespace; absent means that of the ListenerSet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// What the controller tells about a ListenerSet.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct ListenerSetStatus {
    /// `Accepted` and `Programmed`.
    pub conditions: Vec<meta::Condition>,
    /// One for each listener.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<ListenerStatus>,
}
