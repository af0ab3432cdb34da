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
    /// `v1 Namespace`.
    Namespace,
    /// `v1 Secret`, of type `kubernetes.io/tls`.
    Secret,
    /// `gateway.networking.k8s.io/v1 GatewayClass`.
    GatewayClass,
    /// `gateway.networking.k8s.io/v1 Gateway`.
    Gateway,
    /// `gateway.networking.k8s.io/v1 ListenerSet`.
    ListenerSet,
    /// `gateway.networking.k8s.io/v1 TCPRoute`.
    TcpRoute,
    /// `gateway.networking.k8s.io/v1 UDPRoute`.
    UdpRoute,
    /// `gateway.networking.k8s.io/v1 TLSRoute`.
    TlsRoute,
    /// `gateway.networking.k8s.io/v1 HTTPRoute`.
    HttpRoute,
    /// `gateway.networking.k8s.io/v1 ReferenceGrant`.
    ReferenceGrant,
    /// `portcullis.dev/v1alpha1 EdgeGateway`.
    EdgeGateway,
}

impl ObjectKind {
    /// Every kind, in order.
    pub const ALL: [Self; 16] = [
        Self::Service,
        Self::Pod,
        Self::Node,
        Self::EndpointSlice,
        Self::Host,
        Self::Namespace,
        Self::Secret,
        Self::GatewayClass,
        Self::Gateway,
        Self::ListenerSet,
        Self::TcpRoute,
        Self::UdpRoute,
        Self::TlsRoute,
        Self::HttpRoute,
        Self::ReferenceGrant,
        Self::EdgeGateway,
    ];

    /// The name of the kind, as manifests write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::Pod => "Pod",
            Self::Node => "Node",
            Self::EndpointSlice => "EndpointSlice",
            Self::Host => "Host",
            Self::Namespace => "Namespace",
            Self::Secret => "Secret",
            Self::GatewayClass => "GatewayClass",
            Self::Gateway => "Gateway",
            Self::ListenerSet => "ListenerSet",
            Self::TcpRoute => "TCPRoute",
            Self::UdpRoute => "UDPRoute",
            Self::TlsRoute => "TLSRoute",
            Self::HttpRoute => "HTTPRoute",
            Self::ReferenceGrant => "ReferenceGrant",
            Self::EdgeGateway => "EdgeGateway",
        }
    }

    /// The group and version in which the kind is read, as manifests write it.
    #[must_use]
    pub fn api_version(self) -> &'static str {
        match self {
            Self::Service | Self::Pod | Self::Node | Self::Namespace | Self::Secret => "v1",
            Self::EndpointSlice => "discovery.k8s.io/v1",
            Self::Host | Self::EdgeGateway => "portcullis.dev/v1alpha1",
            Self::GatewayClass
            | Self::Gateway
            | Self::ListenerSet
            | Self::TcpRoute
            | Self::UdpRoute
            | Self::TlsRoute
            | Self::HttpRoute
            | Self::ReferenceGrant => "gateway.networking.k8s.io/v1",
        }
    }

    /// Whether objects of the kind live in namespaces.
    #[must_use]
    pub fn is_namespaced(self) -> bool {
        match self {
            Self::Node | Self::Host | Self::Namespace | Self::GatewayClass | Self::EdgeGateway => {
                false
            }
            Self::Service
            | Self::Pod
            | Self::EndpointSlice
            | Self::Secret
            | Self::Gateway
            | Self::ListenerSet
            | Self::TcpRoute
            | Self::UdpRoute
            | Self::TlsRoute
            | Self::HttpRoute
            | Self::ReferenceGrant => true,
        }
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
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
