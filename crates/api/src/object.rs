//! Which object of the cluster is meant.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The kinds of objects that we read.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub enum ObjectKind {
    /// `v1 Service`.
    Service,
    /// `v1 Pod`.
    Pod,
    /// `v1 Node`.
    Node,
    /// `discovery.k8s.io/v1 EndpointSlice`.
    EndpointSlice,
    /// `portcullis.dev/v1alpha1 Host`.
    Host,
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Service => "Service",
            Self::Pod => "Pod",
            Self::Node => "Node",
            Self::EndpointSlice => "EndpointSlice",
            Self::Host => "Host",
        })
    }
}

/// Names one object; printed as `Service web/blog` or `Host edge-a`.
///
/// Ordered by kind, namespace, name: the order in which conflicts between objects of one age are
/// decided.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct ObjectRef {
    /// The kind.
    pub kind: ObjectKind,
    /// The namespace; `None` for cluster-scoped kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
}

impl ObjectRef {
    /// Names an object in a namespace.
    #[must_use]
    pub fn namespaced(kind: ObjectKind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: Some(namespace.to_owned()), name: name.to_owned() }
    }

    /// Names an object of a cluster-scoped kind.
    #[must_use]
    pub fn cluster(kind: ObjectKind, name: &str) -> Self {
        Self { kind, namespace: None, name: name.to_owned() }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}
