//! `Gateway`: listeners on addresses.

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use kube::CustomResource;
use serde::{Deserialize, Serialize};

use super::listener::Listener;
use super::status::{GatewayStatusAddress, ListenerStatus};

/// What a Gateway asks for.
#[derive(CustomResource, Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "Gateway",
    namespaced,
    status = "GatewayStatus",
    derive = "PartialEq",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase")]
pub struct GatewaySpec {
    /// The name of its GatewayClass.
    #[serde(default)]
    pub gateway_class_name: String,
    /// Where it accepts connections.
    #[serde(default)]
    pub listeners: Vec<Listener>,
    /// Which addresses it wants.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<GatewayAddress>,
    /// What it says about the machines that serve it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub infrastructure: Option<GatewayInfrastructure>,
    /// Which ListenerSets may add listeners; absent means none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_listeners: Option<AllowedListeners>,
}

/// An address that a Gateway wants.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct GatewayAddress {
    /// `IPAddress` (when absent), `Hostname`, or somebody's own type.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub type_: Option<String>,
    /// The address; absent or empty means any of the type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// What a Gateway says about the machines that serve it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayInfrastructure {
    /// An object with parameters; ours is an `EdgeGateway`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters_ref: Option<LocalParametersReference>,
}

/// Names an object with parameters, without a namespace.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct LocalParametersReference {
    /// Its group.
    #[serde(default)]
    pub group: String,
    /// Its kind.
    #[serde(default)]
    pub kind: String,
    /// Its name.
    #[serde(default)]
    pub name: String,
}

/// Which ListenerSets may add listeners.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct AllowedListeners {
    /// From where; absent means from nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<ListenerNamespaces>,
}

/// The namespaces from which ListenerSets may attach.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct ListenerNamespaces {
    /// `All`, `Selector`, `Same` or `None` (when absent).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// With `Selector`: by the labels of the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<meta::LabelSelector>,
}

/// What the controller tells about a Gateway.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayStatus {
    /// Where it can be reached.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<GatewayStatusAddress>,
    /// `Accepted` and `Programmed`.
    pub conditions: Vec<meta::Condition>,
    /// One for each listener of its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<ListenerStatus>,
    /// How many ListenerSets are attached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attached_listener_sets: Option<i32>,
}
