//! What is kept of each object: what planning reads, and nothing else.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use api::annotation::key;
use api::host::{Host, HostStatus};
use api::object::{ObjectKind, ObjectRef};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::core::DeserializeGuard;
use planner::cluster_view::Object;
use serde::de::DeserializeOwned;

use super::feed::Reduced;
use super::lean;
use crate::report::Seen;

/// What the keys of the predecessor begin with.
const EPOK_PREFIX: &str = "epok.getbetter.ro/";

/// A kind that is followed.
pub(super) trait Followed:
    kube::Resource<DynamicType = ()> + Clone + fmt::Debug + DeserializeOwned + Send + Sync + 'static
{
    /// The kind.
    const KIND: ObjectKind;
    /// The resource, as roles name it.
    const RESOURCE: &'static str;
    /// How long to wait before asking again for a kind that the server does not have; `None` for
    /// a kind that every server has.
    const ABSENT_PAUSE: Option<Duration> = None;
    /// Whether one may well do without the kind, so that its absence is not worth a word.
    const IS_OPTIONAL: bool = false;
    /// Whether one may well do without the right to read the kind; there are none then.
    const MAY_BE_FORBIDDEN: bool = false;
    /// Whether a version of an object of this kind says how new the whole is.
    const ORDERS: bool = true;
    /// Whether unreadable objects are possible, so that last good states must be kept: server and
    /// program may be of different versions. Built-in kinds accept whatever the server stores.
    const KEEPS: bool = false;
    /// Which objects are asked for, as a field selector.
    const FIELDS: Option<&'static str> = None;

    /// Names the object.
    fn reference(&self) -> ObjectRef {
        reference(Self::KIND, self.meta())
    }

    /// Drops everything that planning does not read.
    fn reduce(self) -> Reduced;

    /// Tells `seen` what the object says about us now.
    fn show(&self, seen: &Seen);
}

impl Followed for lean::Service {
    const KIND: ObjectKind = ObjectKind::Service;
    const RESOURCE: &'static str = "services";

    fn reduce(mut self) -> Reduced {
        let class = self.spec.as_ref().and_then(|it| it.load_balancer_class.as_deref());
        if !concerns_us(&self.metadata) && class != Some(key::LOAD_BALANCER_CLASS) {
            return Reduced::Irrelevant(self.reference());
        }
        reduce_metadata(&mut self.metadata);
        self.metadata.labels = None;
        let service = core::Service { metadata: self.metadata, spec: self.spec, status: None };
        Reduced::Relevant(Box::new(Object::Service(Box::new(service))))
    }

    fn show(&self, seen: &Seen) {
        seen.service(&self.metadata, self.spec.as_ref(), self.status.as_ref());
    }
}

impl Followed for lean::Pod {
    const KIND: ObjectKind = ObjectKind::Pod;
    const RESOURCE: &'static str = "pods";

    fn reduce(mut self) -> Reduced {
        if !concerns_us(&self.metadata) {
            return Reduced::Irrelevant(self.reference());
        }
        reduce_metadata(&mut self.metadata);
        self.metadata.labels = None;
        let status = self.status.map(|it| core::PodStatus {
            conditions: Some(it.conditions.into_iter().flatten().filter_map(ready).collect()),
            phase: it.phase,
            pod_ip: it.pod_ip,
            pod_ips: it.pod_ips,
            ..Default::default()
        });
        let pod = core::Pod { metadata: self.metadata, spec: None, status };
        Reduced::Relevant(Box::new(Object::Pod(Box::new(pod))))
    }

    fn show(&self, seen: &Seen) {
        if concerns_us(&self.metadata) {
            seen.object(self.reference(), &self.metadata);
        } else {
            seen.forget(&self.reference());
        }
    }
}

impl Followed for lean::Node {
    const KIND: ObjectKind = ObjectKind::Node;
    const RESOURCE: &'static str = "nodes";

    fn reduce(mut self) -> Reduced {
        reduce_metadata(&mut self.metadata);
        if let Some(labels) = &mut self.metadata.labels {
            labels.retain(|label, _| {
                [key::EPOK_EXCLUDE_LABEL, key::EXCLUDE_LABEL].contains(&label.as_str())
                    || is_ours(label)
            });
        }
        let status = self.status.map(|it| core::NodeStatus {
            conditions: Some(it.conditions.into_iter().flatten().filter_map(node_ready).collect()),
            addresses: it.addresses,
            ..Default::default()
        });
        let node = core::Node { metadata: self.metadata, spec: None, status };
        Reduced::Relevant(Box::new(Object::Node(Box::new(node))))
    }

    fn show(&self, seen: &Seen) {
        seen.object(self.reference(), &self.metadata);
    }
}

impl Followed for lean::EndpointSlice {
    const KIND: ObjectKind = ObjectKind::EndpointSlice;
    const RESOURCE: &'static str = "endpointslices";

    fn reduce(mut self) -> Reduced {
        reduce_metadata(&mut self.metadata);
        self.metadata.annotations = None;
        if let Some(labels) = &mut self.metadata.labels {
            labels.retain(|label, _| label == "kubernetes.io/service-name");
        }
        // Which nodes have an endpoint: one a node says it, a ready one if there is any. Those
        // that are not ready count while their nodes are out of sight, unless they terminate.
        // An absent condition means ready, and not terminating: EndpointConditions,
        // discovery.k8s.io/v1.
        let mut nodes: BTreeMap<String, bool> = BTreeMap::new();
        for endpoint in self.endpoints.into_iter().flatten() {
            let Some(node) = endpoint.node_name else { continue };
            let conditions = endpoint.conditions.as_ref();
            let ready = conditions.and_then(|it| it.ready).unwrap_or(true);
            if ready || !conditions.and_then(|it| it.terminating).unwrap_or(false) {
                *nodes.entry(node).or_default() |= ready;
            }
        }
        let endpoints = nodes.into_iter().map(|(node, ready)| discovery::Endpoint {
            node_name: Some(node),
            conditions: Some(discovery::EndpointConditions {
                ready: Some(ready),
                ..Default::default()
            }),
            ..Default::default()
        });
        let slice = discovery::EndpointSlice {
            metadata: self.metadata,
            endpoints: Some(endpoints.collect()),
            ..Default::default()
        };
        Reduced::Relevant(Box::new(Object::EndpointSlice(Box::new(slice))))
    }

    /// Nobody writes EndpointSlices by hand, so there is nobody to tell something there.
    fn show(&self, _seen: &Seen) {}
}

impl Followed for DeserializeGuard<Host> {
    const KIND: ObjectKind = ObjectKind::Host;
    const RESOURCE: &'static str = "hosts.portcullis.dev";
    /// Short: whoever applies its definition waits for us.
    const ABSENT_PAUSE: Option<Duration> = Some(Duration::from_secs(5));
    const KEEPS: bool = true;

    fn reduce(self) -> Reduced {
        match self.0 {
            Ok(mut host) => {
                reduce_metadata(&mut host.metadata);
                host.status = host.status.as_ref().map(reduce_status);
                Reduced::Relevant(Box::new(Object::Host(Box::new(host))))
            }
            Err(invalid) => {
                Reduced::Unreadable(reference(Self::KIND, &invalid.metadata), invalid.error)
            }
        }
    }

    fn show(&self, seen: &Seen) {
        match &self.0 {
            Ok(host) => seen.host(host),
            Err(invalid) => seen.object(self.reference(), &invalid.metadata),
        }
    }
}

/// Where another controller's host forwards, and whether it does.
fn reduce_status(status: &HostStatus) -> HostStatus {
    let applied = |it: &&Condition| it.type_ == api::host::Condition::Applied.name();
    let applied = status.conditions.iter().find(applied).map(|it| Condition {
        type_: it.type_.clone(),
        status: it.status.clone(),
        reason: String::new(),
        message: String::new(),
        observed_generation: None,
        last_transition_time: it.last_transition_time.clone(),
    });
    let addresses = status.addresses.clone();
    HostStatus { conditions: applied.into_iter().collect(), addresses, ..HostStatus::default() }
}

fn ready(condition: lean::Condition) -> Option<core::PodCondition> {
    let lean::Condition { type_, status } = condition;
    (type_ == "Ready").then(|| core::PodCondition { type_, status, ..Default::default() })
}

fn node_ready(condition: lean::Condition) -> Option<core::NodeCondition> {
    let lean::Condition { type_, status } = condition;
    (type_ == "Ready").then(|| core::NodeCondition { type_, status, ..Default::default() })
}

pub(super) fn reference(kind: ObjectKind, metadata: &ObjectMeta) -> ObjectRef {
    ObjectRef {
        kind,
        namespace: metadata.namespace.clone(),
        name: metadata.name.clone().unwrap_or_default(),
    }
}

/// Whether an annotation asks for something in one of the vocabularies that we read.
pub(crate) fn concerns_us(metadata: &ObjectMeta) -> bool {
    metadata.annotations.as_ref().is_some_and(|it| it.keys().any(|it| is_ours(it)))
}

fn is_ours(key: &str) -> bool {
    key.starts_with(key::PREFIX) || key.starts_with(EPOK_PREFIX)
}

pub(super) fn reduce_metadata(metadata: &mut ObjectMeta) {
    metadata.managed_fields = None;
    metadata.owner_references = None;
    metadata.finalizers = None;
    metadata.self_link = None;
    metadata.generate_name = None;
    metadata.resource_version = None;
    if let Some(annotations) = &mut metadata.annotations {
        annotations.retain(|key, _| is_ours(key));
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_slice_keeps_one_endpoint_a_node_that_does_not_terminate() {
        check::<lean::EndpointSlice>(
            json!({ "metadata": { "name": "a", "namespace": "web" }, "endpoints": [
                { "addresses": ["10.1.0.1"], "nodeName": "n1" },
                { "nodeName": "n1", "conditions": { "ready": false } },
                { "nodeName": "n2", "conditions": { "ready": false, "serving": false } },
                { "nodeName": "n2", "conditions": { "ready": true } },
                { "nodeName": "n3", "conditions": { "ready": false } },
                { "nodeName": "n4", "conditions": { "ready": false, "terminating": true } },
                { "conditions": { "ready": true } },
            ]}),
            "/endpoints",
            &expect![[
                r#"[{"addresses":[],"conditions":{"ready":true},"nodeName":"n1"},{"addresses":[],"conditions":{"ready":true},"nodeName":"n2"},{"addresses":[],"conditions":{"ready":false},"nodeName":"n3"}]"#
            ]],
        );
    }

    #[test]
    fn a_host_keeps_of_its_status_where_it_forwards_and_whether_it_does() {
        let condition = |name: &str| {
            json!({
                "type": name, "status": "True", "reason": "UpToDate", "message": "12 host ports",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            })
        };
        check::<DeserializeGuard<Host>>(
            json!({
                "apiVersion": "portcullis.dev/v1alpha1", "kind": "Host",
                "metadata": { "name": "edge" }, "spec": { "interfaces": ["eth0"] },
                "status": {
                    "conditions": [condition("Reachable"), condition("Applied")],
                    "forwards": 12, "addresses": ["198.51.100.1"], "nodes": 3,
                },
            }),
            "/status",
            &expect![[
                r#"{"addresses":["198.51.100.1"],"conditions":[{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"","reason":"","status":"True","type":"Applied"}],"nodeTargets":[]}"#
            ]],
        );
    }

    #[track_caller]
    fn check<T: Followed>(object: Value, part: &str, expected: &Expect) {
        let object: T = serde_json::from_value(object).expect("an object of this kind");
        let Reduced::Relevant(object) = object.reduce() else { panic!("it concerns us") };
        let left = match *object {
            Object::Service(it) => serde_json::to_value(it),
            Object::Pod(it) => serde_json::to_value(it),
            Object::Node(it) => serde_json::to_value(it),
            Object::EndpointSlice(it) => serde_json::to_value(it),
            Object::Host(it) => serde_json::to_value(it),
            Object::Namespace(it) => serde_json::to_value(it),
            Object::Secret(it) => serde_json::to_value(it),
            Object::GatewayClass(it) => serde_json::to_value(it),
            Object::Gateway(it) => serde_json::to_value(it),
            Object::ListenerSet(it) => serde_json::to_value(it),
            Object::TcpRoute(it) => serde_json::to_value(it),
            Object::UdpRoute(it) => serde_json::to_value(it),
            Object::TlsRoute(it) => serde_json::to_value(it),
            Object::HttpRoute(it) => serde_json::to_value(it),
            Object::ReferenceGrant(it) => serde_json::to_value(it),
            Object::EdgeGateway(it) => serde_json::to_value(it),
        };
        let left = left.expect("it can be written");
        expected.assert_eq(&left.pointer(part).unwrap_or(&Value::Null).to_string());
    }
}
