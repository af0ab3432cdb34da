//! The kinds as they are decoded: only what is read of them.
//!
//! A Pod or Node as the server sends it is some ten kilobytes of text, and decoded as a whole it
//! is many times that, in small pieces that stay with the process. What is not named here is
//! skipped as it is parsed and never takes memory.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use serde::{Deserialize, Deserializer};

/// A Service.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Service {
    #[serde(deserialize_with = "metadata")]
    pub(super) metadata: meta::ObjectMeta,
    pub(super) spec: Option<core::ServiceSpec>,
    pub(super) status: Option<core::ServiceStatus>,
}

/// A Pod.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Pod {
    #[serde(deserialize_with = "metadata")]
    pub(super) metadata: meta::ObjectMeta,
    pub(super) status: Option<PodStatus>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodStatus {
    pub(super) conditions: Option<Vec<Condition>>,
    pub(super) phase: Option<String>,
    #[serde(rename = "podIP")]
    pub(super) pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pub(super) pod_ips: Option<Vec<core::PodIP>>,
}

/// A Node.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Node {
    #[serde(deserialize_with = "metadata")]
    pub(super) metadata: meta::ObjectMeta,
    pub(super) status: Option<NodeStatus>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct NodeStatus {
    pub(super) addresses: Option<Vec<core::NodeAddress>>,
    pub(super) conditions: Option<Vec<Condition>>,
}

/// A condition, without the times that change every few minutes and mean nothing to us.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Condition {
    #[serde(rename = "type")]
    pub(super) type_: String,
    pub(super) status: String,
}

/// An EndpointSlice.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct EndpointSlice {
    #[serde(deserialize_with = "metadata")]
    pub(super) metadata: meta::ObjectMeta,
    pub(super) endpoints: Option<Vec<Endpoint>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Endpoint {
    pub(super) node_name: Option<String>,
    pub(super) conditions: Option<EndpointConditions>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct EndpointConditions {
    pub(super) ready: Option<bool>,
    pub(super) terminating: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<meta::Time>,
    deletion_timestamp: Option<meta::Time>,
    annotations: Option<BTreeMap<String, String>>,
    labels: Option<BTreeMap<String, String>>,
}

pub(super) fn metadata<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<meta::ObjectMeta, D::Error> {
    let metadata = Metadata::deserialize(deserializer)?;
    Ok(meta::ObjectMeta {
        name: metadata.name,
        namespace: metadata.namespace,
        uid: metadata.uid,
        resource_version: metadata.resource_version,
        generation: metadata.generation,
        creation_timestamp: metadata.creation_timestamp,
        deletion_timestamp: metadata.deletion_timestamp,
        annotations: metadata.annotations,
        labels: metadata.labels,
        ..Default::default()
    })
}

/// Lets a lean kind be requested as the kind that it is.
macro_rules! resource {
    ($lean:ty, $whole:ty) => {
        impl kube::Resource for $lean {
            type DynamicType = ();
            type Scope = <$whole as kube::Resource>::Scope;

            fn kind((): &()) -> std::borrow::Cow<'_, str> {
                <$whole as kube::Resource>::kind(&())
            }

            fn group((): &()) -> std::borrow::Cow<'_, str> {
                <$whole as kube::Resource>::group(&())
            }

            fn version((): &()) -> std::borrow::Cow<'_, str> {
                <$whole as kube::Resource>::version(&())
            }

            fn plural((): &()) -> std::borrow::Cow<'_, str> {
                <$whole as kube::Resource>::plural(&())
            }

            fn meta(&self) -> &meta::ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut meta::ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

pub(super) use resource;

resource!(Service, core::Service);
resource!(Pod, core::Pod);
resource!(Node, core::Node);
resource!(EndpointSlice, discovery::EndpointSlice);
