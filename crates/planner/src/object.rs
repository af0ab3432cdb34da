//! Objects of the cluster, and what happens to them: what every source delivers.

use api::edge_gateway::EdgeGateway;
use api::gateway_api::{
    Gateway, GatewayClass, HttpRoute, ListenerSet, ReferenceGrant, TcpRoute, TlsRoute, UdpRoute,
};
use api::object::{ObjectKind, ObjectRef};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// An object of a kind that we read.
#[derive(Clone, Debug)]
pub enum Object {
    /// A Service.
    Service(Box<Service>),
    /// A Node.
    Node(Box<Node>),
    /// A Pod.
    Pod(Box<Pod>),
    /// An EndpointSlice.
    EndpointSlice(Box<EndpointSlice>),
    /// A Host.
    Host(Box<api::host::Host>),
    /// A Namespace.
    Namespace(Box<Namespace>),
    /// A Secret that holds a certificate.
    Secret(Box<Secret>),
    /// A GatewayClass.
    GatewayClass(Box<GatewayClass>),
    /// A Gateway.
    Gateway(Box<Gateway>),
    /// A ListenerSet.
    ListenerSet(Box<ListenerSet>),
    /// A TCPRoute.
    TcpRoute(Box<TcpRoute>),
    /// A UDPRoute.
    UdpRoute(Box<UdpRoute>),
    /// A TLSRoute.
    TlsRoute(Box<TlsRoute>),
    /// An HTTPRoute.
    HttpRoute(Box<HttpRoute>),
    /// A ReferenceGrant.
    ReferenceGrant(Box<ReferenceGrant>),
    /// An EdgeGateway.
    EdgeGateway(Box<EdgeGateway>),
}

impl Object {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> ObjectKind {
        match self {
            Self::Service(_) => ObjectKind::Service,
            Self::Node(_) => ObjectKind::Node,
            Self::Pod(_) => ObjectKind::Pod,
            Self::EndpointSlice(_) => ObjectKind::EndpointSlice,
            Self::Host(_) => ObjectKind::Host,
            Self::Namespace(_) => ObjectKind::Namespace,
            Self::Secret(_) => ObjectKind::Secret,
            Self::GatewayClass(_) => ObjectKind::GatewayClass,
            Self::Gateway(_) => ObjectKind::Gateway,
            Self::ListenerSet(_) => ObjectKind::ListenerSet,
            Self::TcpRoute(_) => ObjectKind::TcpRoute,
            Self::UdpRoute(_) => ObjectKind::UdpRoute,
            Self::TlsRoute(_) => ObjectKind::TlsRoute,
            Self::HttpRoute(_) => ObjectKind::HttpRoute,
            Self::ReferenceGrant(_) => ObjectKind::ReferenceGrant,
            Self::EdgeGateway(_) => ObjectKind::EdgeGateway,
        }
    }

    /// Its metadata.
    #[must_use]
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Service(it) => &it.metadata,
            Self::Node(it) => &it.metadata,
            Self::Pod(it) => &it.metadata,
            Self::EndpointSlice(it) => &it.metadata,
            Self::Host(it) => &it.metadata,
            Self::Namespace(it) => &it.metadata,
            Self::Secret(it) => &it.metadata,
            Self::GatewayClass(it) => &it.metadata,
            Self::Gateway(it) => &it.metadata,
            Self::ListenerSet(it) => &it.metadata,
            Self::TcpRoute(it) => &it.metadata,
            Self::UdpRoute(it) => &it.metadata,
            Self::TlsRoute(it) => &it.metadata,
            Self::HttpRoute(it) => &it.metadata,
            Self::ReferenceGrant(it) => &it.metadata,
            Self::EdgeGateway(it) => &it.metadata,
        }
    }

    /// Its metadata, to change it.
    #[must_use]
    pub fn metadata_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Service(it) => &mut it.metadata,
            Self::Node(it) => &mut it.metadata,
            Self::Pod(it) => &mut it.metadata,
            Self::EndpointSlice(it) => &mut it.metadata,
            Self::Host(it) => &mut it.metadata,
            Self::Namespace(it) => &mut it.metadata,
            Self::Secret(it) => &mut it.metadata,
            Self::GatewayClass(it) => &mut it.metadata,
            Self::Gateway(it) => &mut it.metadata,
            Self::ListenerSet(it) => &mut it.metadata,
            Self::TcpRoute(it) => &mut it.metadata,
            Self::UdpRoute(it) => &mut it.metadata,
            Self::TlsRoute(it) => &mut it.metadata,
            Self::HttpRoute(it) => &mut it.metadata,
            Self::ReferenceGrant(it) => &mut it.metadata,
            Self::EdgeGateway(it) => &mut it.metadata,
        }
    }

    /// Names the object. One without a namespace is in `default`, as `kubectl` has it.
    #[must_use]
    pub fn reference(&self) -> ObjectRef {
        reference(self.kind(), self.metadata())
    }
}

/// Something that happened to the objects.
#[derive(Clone, Debug)]
pub enum Change {
    /// The object is new, or is now like this.
    Applied(Object),
    /// The object is gone.
    Deleted(ObjectRef),
    /// These are all objects of the kind; every other one is gone. Sent for the first list and
    /// for every list after a gap.
    Reset(ObjectKind, Vec<Object>),
}

/// Names an object by its metadata.
pub(crate) fn reference(kind: ObjectKind, metadata: &ObjectMeta) -> ObjectRef {
    let name = metadata.name.clone().unwrap_or_default();
    let namespace = kind
        .is_namespaced()
        .then(|| metadata.namespace.clone().unwrap_or_else(|| "default".to_owned()));
    ObjectRef { kind, namespace, name }
}
