//! The `EdgeGateway` object as written, and the schema by which the API server checks it.
#![expect(clippy::duplicated_attributes, reason = "columns are alike")]

use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::rule::{self, Rule, text};
use super::status::EdgeGatewayStatus;
use crate::host::SecretKeyRef;

/// What an EdgeGateway is, as written. Nothing in it is checked; see `EdgeGateway::settings`.
#[derive(CustomResource, Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "portcullis.dev",
    version = "v1alpha1",
    kind = "EdgeGateway",
    status = "EdgeGatewayStatus",
    derive = "PartialEq",
    shortname = "egw",
    category = "portcullis",
    doc = "A public machine on whose addresses Services are published. Agents in the cluster dial \
           it; it never dials the cluster. Needs Kubernetes 1.31 or newer.",
    printcolumn(
        name = "Address",
        type_ = "string",
        json_path = ".spec.endpoints[*].host",
        description = "Where agents dial it"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether everything is published that was asked of it"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        description = "Why, in one word"
    ),
    printcolumn(
        name = "Agents",
        type_ = "integer",
        json_path = ".status.connectedAgents",
        description = "How many agents are connected"
    ),
    printcolumn(
        name = "Ports",
        type_ = "integer",
        json_path = ".status.publishedPorts",
        description = "How many ports it listens on for this cluster"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "How long the object exists"
    ),
    printcolumn(
        name = "Reachable",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Reachable\")].status",
        priority = 1,
        description = "Whether its public ports answer"
    ),
    printcolumn(
        name = "Version",
        type_ = "string",
        json_path = ".status.version",
        priority = 1,
        description = "The version of its program"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1,
        description = "Why, in words"
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(
    description = "What the gateway is.",
    extend("x-kubernetes-validations" = rule::SSH_IS_THE_CARRIER.validations())
)]
pub struct EdgeGatewaySpec {
    /// Where agents dial it. Several endpoints are several ways to the same machine.
    #[schemars(length(min = 1, max = 16))]
    pub endpoints: Vec<EndpointSpec>,

    /// The addresses on which it publishes, in order of preference. Without any, it publishes on
    /// every address that it has, and its endpoints are announced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 256),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["address"])
    )]
    pub addresses: Vec<AddressSpec>,

    /// What carries the tunnel: `auto` (QUIC and TLS, whichever serves better), `quic` or `tls`.
    #[serde(default = "auto")]
    #[schemars(extend("enum" = ["auto", "quic", "tls"]))]
    pub carrier: String,

    /// A plain OpenSSH server instead of our own program: TCP only, and without the guarantees of
    /// the other carriers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SshCarrierSpec")]
    pub ssh: Option<SshCarrierSpec>,

    /// Who may publish what. Without this field, every namespace may publish every port; with it,
    /// only what it lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<GrantSpec>", length(max = 32))]
    pub grants: Option<Vec<GrantSpec>>,

    /// How the gateway and the cluster get to know each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "AdoptionSpec")]
    pub adoption: Option<AdoptionSpec>,

    /// How much traffic the machine may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "QuotaSpec")]
    pub quota: Option<QuotaSpec>,
}

/// One way to the machine.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSpec {
    /// An address or a name, looked up anew at each try.
    #[schemars(schema_with = "network_address")]
    pub host: String,
    /// The port of the tunnel, TCP and UDP.
    #[serde(default = "tunnel_port")]
    #[schemars(schema_with = "port")]
    pub port: i64,
}

/// An address on which the gateway publishes.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AddressSpec {
    /// The address as the machine has it.
    #[schemars(schema_with = "ip_address")]
    pub address: String,
    /// What to announce instead: the public address where something before the machine translates
    /// one to one, or a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "network_address")]
    pub advertise: Option<String>,
}

/// A plain OpenSSH server that forwards ports.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rule::ONE_KEY.validations()))]
pub struct SshCarrierSpec {
    /// The port of the SSH server.
    #[serde(default = "ssh_port")]
    #[schemars(schema_with = "port")]
    pub port: i64,
    /// The user to log in as.
    #[schemars(schema_with = "user")]
    pub user: String,
    /// The public key that the server must prove to own, `ssh-ed25519 AAAA...`.
    #[schemars(schema_with = "host_key")]
    pub host_key: String,
    /// The Secret that holds the private key to log in with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SecretKeyRef")]
    pub key_secret_ref: Option<SecretKeyRef>,
    /// A file beside the agent that holds the private key to log in with, as an absolute path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "file")]
    pub key_file: Option<String>,
}

/// What some namespaces may publish.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GrantSpec {
    /// The namespaces, or `*` for every one.
    #[schemars(schema_with = "namespaces")]
    pub namespaces: Vec<String>,
    /// The ports: `443`, `53/udp`, `8000-8100`, or `*`. Without a protocol TCP is meant; without
    /// this field every port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "granted_ports")]
    pub ports: Option<Vec<String>>,
    /// The server names, such as `*.example.com`. Without this field every name; with it, only
    /// ports that are shared by server names are granted, for these names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "hostnames")]
    pub hostnames: Option<Vec<String>>,
    /// How many ports each of the namespaces may have here by this grant; each server name on a
    /// shared port counts as one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "max_ports")]
    pub max_ports: Option<i64>,
}

/// How the gateway and the cluster get to know each other: exactly one of the two.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rule::ONE_ADOPTION_SECRET.validations()))]
pub struct AdoptionSpec {
    /// The Secret that holds the one-time secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "AdoptionSecretRef")]
    pub secret_ref: Option<AdoptionSecretRef>,
    /// A file beside the agent that holds the one-time secret, as an absolute path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "file")]
    pub secret_file: Option<String>,
}

/// The key of a Secret that holds a one-time secret.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AdoptionSecretRef {
    /// The namespace of the Secret.
    #[schemars(schema_with = "namespace")]
    pub namespace: String,
    /// The name of the Secret.
    #[schemars(schema_with = "object_name")]
    pub name: String,
    /// The key in its data.
    #[serde(default = "secret")]
    #[schemars(schema_with = "secret_key")]
    pub key: String,
}

/// How much traffic the machine may have.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rule::SHAPE_NEEDS_A_RATE.validations()))]
pub struct QuotaSpec {
    /// Bytes in both directions together, from one reset day to the next.
    #[schemars(schema_with = "positive")]
    pub bytes_per_month: i64,
    /// The day of the month on which counting begins anew; in shorter months their last day.
    #[serde(default = "first_day")]
    #[schemars(schema_with = "day_of_month")]
    pub reset_day: i64,
    /// What happens at the limit: `warn`, `shape` (go on at a lower rate) or `stop` (refuse new
    /// connections).
    #[serde(default = "warn")]
    #[schemars(extend("enum" = ["warn", "shape", "stop"]))]
    pub action: String,
    /// The rate to go on at, with action `shape`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "positive")]
    pub shape_bits_per_second: Option<i64>,
}

impl Default for EdgeGatewaySpec {
    /// No endpoints, everything else as the API server would fill it in.
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            addresses: Vec::new(),
            carrier: auto(),
            ssh: None,
            grants: None,
            adoption: None,
            quota: None,
        }
    }
}

fn auto() -> String {
    "auto".to_owned()
}

fn tunnel_port() -> i64 {
    7443
}

fn ssh_port() -> i64 {
    22
}

fn secret() -> String {
    "secret".to_owned()
}

fn first_day() -> i64 {
    1
}

fn warn() -> String {
    "warn".to_owned()
}

fn network_address(_: &mut SchemaGenerator) -> Schema {
    text(253, &rule::NETWORK_ADDRESS)
}

fn ip_address(_: &mut SchemaGenerator) -> Schema {
    text(45, &rule::IP_ADDRESS)
}

fn user(_: &mut SchemaGenerator) -> Schema {
    text(32, &rule::USER)
}

fn host_key(_: &mut SchemaGenerator) -> Schema {
    text(512, &rule::HOST_KEY)
}

fn file(_: &mut SchemaGenerator) -> Schema {
    text(4096, &rule::KEY_FILE)
}

fn namespace(_: &mut SchemaGenerator) -> Schema {
    text(63, &rule::NAMESPACE)
}

fn object_name(_: &mut SchemaGenerator) -> Schema {
    text(253, &rule::OBJECT_NAME)
}

fn secret_key(_: &mut SchemaGenerator) -> Schema {
    text(253, &rule::SECRET_KEY)
}

fn port(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "format": "int32", "minimum": 1, "maximum": 65535 })
}

fn max_ports(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "format": "int32", "minimum": 0, "maximum": 65535 })
}

fn day_of_month(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "format": "int32", "minimum": 1, "maximum": 31 })
}

fn positive(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "format": "int64", "minimum": 1 })
}

fn namespaces(_: &mut SchemaGenerator) -> Schema {
    set(1, 63, &rule::GRANTED_NAMESPACE)
}

fn granted_ports(_: &mut SchemaGenerator) -> Schema {
    set(0, 15, &rule::GRANTED_PORTS)
}

fn hostnames(_: &mut SchemaGenerator) -> Schema {
    set(0, 253, &rule::SERVER_NAME)
}

/// A set of texts, each of which meets a rule.
fn set(least: u32, characters: u32, rule: &Rule) -> Schema {
    json_schema!({
        "type": "array",
        "minItems": least,
        "maxItems": 64,
        "x-kubernetes-list-type": "set",
        "items": text(characters, rule),
    })
}
