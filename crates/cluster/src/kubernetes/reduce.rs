//! What is kept of each object: what planning reads, and nothing else.

use std::collections::BTreeSet;
use std::fmt;

use api::annotation::key;
use api::host::Host;
use api::object::{ObjectKind, ObjectRef};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
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
        // Which nodes have a ready endpoint: one endpoint a node says it. An absent condition
        // means ready: EndpointConditions, discovery.k8s.io/v1.
        let ready = self
            .endpoints
            .into_iter()
            .flatten()
            .filter(|it| it.conditions.as_ref().and_then(|it| it.ready).unwrap_or(true));
        let nodes: BTreeSet<String> = ready.filter_map(|it| it.node_name).collect();
        let endpoints = nodes.into_iter().map(|it| discovery::Endpoint {
            node_name: Some(it),
            conditions: Some(discovery::EndpointConditions {
                ready: Some(true),
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

    fn reduce(self) -> Reduced {
        match self.0 {
            Ok(mut host) => {
                reduce_metadata(&mut host.metadata);
                host.status = None;
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

fn ready(condition: lean::Condition) -> Option<core::PodCondition> {
    let lean::Condition { type_, status } = condition;
    (type_ == "Ready").then(|| core::PodCondition { type_, status, ..Default::default() })
}

fn node_ready(condition: lean::Condition) -> Option<core::NodeCondition> {
    let lean::Condition { type_, status } = condition;
    (type_ == "Ready").then(|| core::NodeCondition { type_, status, ..Default::default() })
}

fn reference(kind: ObjectKind, metadata: &ObjectMeta) -> ObjectRef {
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

fn reduce_metadata(metadata: &mut ObjectMeta) {
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
