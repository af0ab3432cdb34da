//! The `Host` object as written, and the schema by which the API server checks it.
#![expect(clippy::duplicated_attributes, reason = "columns are alike")]

use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::rule::{self, Rule, text};
use super::status::HostStatus;

/// What a Host should do, as written. Nothing in it is checked; see `Host::settings`.
#[derive(CustomResource, Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "portcullis.dev",
    version = "v1alpha1",
    kind = "Host",
    status = "HostStatus",
    derive = "PartialEq",
    shortname = "phost",
    category = "portcullis",
    doc = "A machine outside the cluster's control that forwards its ports to nodes and Pods. \
           Needs Kubernetes 1.31 or newer.",
    printcolumn(
        name = "Applied",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Applied\")].status",
        description = "Whether the host does what was last asked of it"
    ),
    printcolumn(
        name = "Reachable",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Reachable\")].status",
        description = "Whether the last attempt to reach the host succeeded"
    ),
    printcolumn(
        name = "Forwards",
        type_ = "integer",
        json_path = ".status.forwards",
        description = "How many host ports the host forwards"
    ),
    printcolumn(
        name = "Nodes",
        type_ = "integer",
        json_path = ".status.nodes",
        description = "How many nodes take traffic"
    ),
    printcolumn(
        name = "Drift",
        type_ = "integer",
        json_path = ".status.drift",
        description = "How often something else changed our rules, since the controller started"
    ),
    printcolumn(
        name = "Backend",
        type_ = "string",
        json_path = ".spec.backend",
        priority = 1,
        description = "The packet filter"
    ),
    printcolumn(
        name = "External",
        type_ = "string",
        json_path = ".spec.externalInterface",
        priority = 1,
        description = "The interface that internal forwards are not reachable through"
    ),
    printcolumn(
        name = "Error",
        type_ = "string",
        json_path = ".status.lastError",
        priority = 1,
        description = "Why the host could not be brought up to date"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "How long the object exists"
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(description = "What the host should do.", extend("x-kubernetes-validations" =
    Rule::all(&[&rule::EXTERNAL_IS_LISTED, &rule::EXTRA_NEEDS_EXTERNAL])))]
pub struct HostSpec {
    /// The interfaces through which forwards are reachable, `externalInterface` included.
    #[schemars(schema_with = "interfaces")]
    pub interfaces: Vec<String>,

    /// The interface that faces strangers, one of `interfaces`. Forwards of objects marked
    /// internal are not reachable through it. When it is set, only packets to its addresses and to
    /// `extraInternalAddresses` are forwarded; otherwise packets to any address of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "interface")]
    pub external_interface: Option<String>,

    /// Further destination addresses to forward, for clients that dial the host's internal
    /// addresses. Only with `externalInterface`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "addresses")]
    pub extra_internal_addresses: Vec<String>,

    /// The packet filter to program: `nftables` or `iptables`.
    #[serde(default = "nftables")]
    #[schemars(extend("enum" = ["nftables", "iptables"]))]
    pub backend: String,

    /// Accept forwarded connections in the forward hook, for hosts whose policy is to drop.
    #[serde(default)]
    pub accept_forwarded: bool,

    /// Give forwarded connections the host's own address as their source, for targets whose way
    /// back does not lead through the host. Targets no longer see who the client is.
    #[serde(default)]
    pub masquerade: bool,

    /// Let targets reach host ports that lead back into their own network.
    #[serde(default)]
    pub hairpin: bool,

    /// How to run commands on the host.
    #[serde(default)]
    pub executor: ExecutorSpec,
}

/// How to run commands on a host: exactly one of the two.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rule::ONE_EXECUTOR.validations()))]
pub struct ExecutorSpec {
    /// The controller runs on the host itself and was started with this Host's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "LocalSpec")]
    pub local: Option<LocalSpec>,
    /// Over SSH.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SshSpec")]
    pub ssh: Option<SshSpec>,
}

/// Nothing needs to be said about a local executor.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct LocalSpec {}

/// How to reach a host over SSH.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rule::ONE_KEY.validations()))]
pub struct SshSpec {
    /// The address or name to connect to, without user and port.
    #[schemars(schema_with = "ssh_address")]
    pub address: String,

    /// The port of the SSH server.
    #[serde(default = "ssh_port")]
    #[schemars(schema_with = "port")]
    pub port: i64,

    /// The user to log in as.
    #[schemars(schema_with = "user")]
    pub user: String,

    /// The public key that the host must prove to own, `ssh-ed25519 AAAA...`. A host with another
    /// key is not talked to.
    #[schemars(schema_with = "host_key")]
    pub host_key: String,

    /// The Secret that holds the private key to log in with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SecretKeyRef")]
    pub key_secret_ref: Option<SecretKeyRef>,

    /// A file beside the controller that holds the private key to log in with, as an absolute
    /// path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "key_file")]
    pub key_file: Option<String>,

    /// `forcedCommand`: the key may only run `portcullis host-apply`. `sudo`: the user may run the
    /// packet filter's programs by sudo.
    #[serde(default = "forced_command")]
    #[schemars(extend("enum" = ["forcedCommand", "sudo"]))]
    pub mode: String,

    /// When set, a change is rolled back unless the host is reached over a fresh connection within
    /// this many seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "confirm_seconds")]
    pub confirm_seconds: Option<i64>,
}

/// One key of a Secret.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// The namespace of the Secret.
    #[schemars(schema_with = "namespace")]
    pub namespace: String,
    /// The name of the Secret.
    #[schemars(schema_with = "object_name")]
    pub name: String,
    /// The key in its data.
    #[serde(default = "private_key")]
    #[schemars(schema_with = "secret_key")]
    pub key: String,
}

impl Default for HostSpec {
    /// No interfaces, everything else as the API server would fill it in.
    fn default() -> Self {
        Self {
            interfaces: Vec::new(),
            external_interface: None,
            extra_internal_addresses: Vec::new(),
            backend: nftables(),
            accept_forwarded: false,
            masquerade: false,
            hairpin: false,
            executor: ExecutorSpec::default(),
        }
    }
}

impl Default for ExecutorSpec {
    fn default() -> Self {
        Self { local: Some(LocalSpec {}), ssh: None }
    }
}

fn nftables() -> String {
    "nftables".to_owned()
}

fn ssh_port() -> i64 {
    22
}

fn forced_command() -> String {
    "forcedCommand".to_owned()
}

/// The key that Kubernetes defines for Secrets of type `kubernetes.io/ssh-auth`.
fn private_key() -> String {
    "ssh-privatekey".to_owned()
}

fn interfaces(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": 64,
        "x-kubernetes-list-type": "set",
        "items": text(15, &rule::INTERFACE),
    })
}

fn interface(_: &mut SchemaGenerator) -> Schema {
    // Being one of `interfaces` says it all; a second message would say less.
    json_schema!({ "type": "string", "maxLength": 15 })
}

fn addresses(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 64,
        "x-kubernetes-list-type": "set",
        "items": text(45, &rule::IP_ADDRESS),
    })
}

fn ssh_address(_: &mut SchemaGenerator) -> Schema {
    text(253, &rule::SSH_ADDRESS)
}

fn user(_: &mut SchemaGenerator) -> Schema {
    text(32, &rule::USER)
}

fn host_key(_: &mut SchemaGenerator) -> Schema {
    text(512, &rule::HOST_KEY)
}

fn key_file(_: &mut SchemaGenerator) -> Schema {
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

fn confirm_seconds(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "format": "int32", "minimum": 1, "maximum": 600 })
}
