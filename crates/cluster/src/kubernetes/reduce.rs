//! What is kept of each object: what planning reads, and nothing else.
//!
//! A Pod as the server sends it is some ten kilobytes; what planning reads of it is an address, a
//! condition and two annotations, and of most Pods it reads nothing at all.

use std::fmt;

use api::annotation::key;
use api::host::Host;
use api::object::{ObjectKind, ObjectRef};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DeserializeGuard;
use planner::cluster_view::Object;
use serde::de::DeserializeOwned;

use super::feed::Reduced;
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

impl Followed for Service {
    const KIND: ObjectKind = ObjectKind::Service;
    const RESOURCE: &'static str = "services";

    fn reduce(mut self) -> Reduced {
        let class = self.spec.as_ref().and_then(|it| it.load_balancer_class.as_deref());
        if !concerns_us(&self.metadata) && class != Some(key::LOAD_BALANCER_CLASS) {
            return Reduced::Irrelevant(self.reference());
        }
        reduce_metadata(&mut self.metadata);
        self.metadata.labels = None;
        self.status = None;
        Reduced::Relevant(Box::new(Object::Service(Box::new(self))))
    }

    fn show(&self, seen: &Seen) {
        seen.service(self);
    }
}

impl Followed for Pod {
    const KIND: ObjectKind = ObjectKind::Pod;
    const RESOURCE: &'static str = "pods";

    fn reduce(mut self) -> Reduced {
        if !concerns_us(&self.metadata) {
            return Reduced::Irrelevant(self.reference());
        }
        reduce_metadata(&mut self.metadata);
        self.metadata.labels = None;
        self.spec = None;
        if let Some(status) = self.status.take() {
            let ready = status.conditions.unwrap_or_default().into_iter();
            let ready = ready.filter(|it| it.type_ == "Ready").collect();
            self.status = Some(k8s_openapi::api::core::v1::PodStatus {
                conditions: Some(ready),
                phase: status.phase,
                pod_ip: status.pod_ip,
                pod_ips: status.pod_ips,
                ..Default::default()
            });
        }
        Reduced::Relevant(Box::new(Object::Pod(Box::new(self))))
    }

    fn show(&self, seen: &Seen) {
        if concerns_us(&self.metadata) {
            seen.object(self.reference(), &self.metadata);
        } else {
            seen.forget(&self.reference());
        }
    }
}

impl Followed for Node {
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
        self.spec = None;
        if let Some(status) = self.status.take() {
            let ready = status.conditions.unwrap_or_default().into_iter();
            let ready = ready.filter(|it| it.type_ == "Ready").map(|mut it| {
                // The kubelet writes the time every few minutes; nothing follows from it.
                it.last_heartbeat_time = None;
                it.message = None;
                it
            });
            self.status = Some(k8s_openapi::api::core::v1::NodeStatus {
                conditions: Some(ready.collect()),
                addresses: status.addresses,
                ..Default::default()
            });
        }
        Reduced::Relevant(Box::new(Object::Node(Box::new(self))))
    }

    fn show(&self, seen: &Seen) {
        seen.object(self.reference(), &self.metadata);
    }
}

impl Followed for EndpointSlice {
    const KIND: ObjectKind = ObjectKind::EndpointSlice;
    const RESOURCE: &'static str = "endpointslices";

    fn reduce(mut self) -> Reduced {
        reduce_metadata(&mut self.metadata);
        self.metadata.annotations = None;
        if let Some(labels) = &mut self.metadata.labels {
            labels.retain(|label, _| label == "kubernetes.io/service-name");
        }
        self.ports = None;
        // Which nodes have a ready endpoint: one endpoint a node says it.
        let mut endpoints = self.endpoints.take().unwrap_or_default();
        endpoints.retain(|it| it.conditions.as_ref().and_then(|it| it.ready) != Some(false));
        endpoints.sort_unstable_by(|a, b| a.node_name.cmp(&b.node_name));
        endpoints.dedup_by(|a, b| a.node_name == b.node_name);
        let endpoints =
            endpoints.into_iter().filter(|it| it.node_name.is_some()).map(|it| Endpoint {
                node_name: it.node_name,
                conditions: Some(EndpointConditions { ready: Some(true), ..Default::default() }),
                ..Default::default()
            });
        self.endpoints = Some(endpoints.collect());
        Reduced::Relevant(Box::new(Object::EndpointSlice(Box::new(self))))
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
