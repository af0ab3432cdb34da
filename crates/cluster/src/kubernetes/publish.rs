//! The kinds that publishing reads, and what is kept of them.
//!
//! Services and EndpointSlices are not those of forwarding: any Service may be the backend of a
//! route, and an endpoint is needed with its addresses and ports.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use api::edge_gateway::EdgeGateway;
use api::gateway_api::{
    Gateway, GatewayClass, HttpRoute, ListenerSet, ReferenceGrant, TcpRoute, TlsRoute, UdpRoute,
};
use api::object::ObjectKind;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use kube::core::DeserializeGuard;
use planner::cluster_view::Object;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::feed::Reduced;
use super::follow::{self, Context};
use super::lean::{self, metadata};
use super::reduce::{Followed, concerns_us, reduce_metadata, reference};
use crate::report::Seen;

/// How long to wait before asking again for kinds of the Gateway API that the server does not have.
const GATEWAY_API_PAUSE: Duration = Duration::from_secs(60);

/// The class of Services whose ports are published on gateways.
const LOAD_BALANCER_CLASS: &str = "portcullis.dev/gateway";

/// The label with which an EndpointSlice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Starts to follow a kind, if publishing reads it.
pub(super) fn follow(kind: ObjectKind, tasks: &mut JoinSet<()>, context: Context) {
    match kind {
        ObjectKind::Service => tasks.spawn(follow::follow::<Service>(context)),
        ObjectKind::EndpointSlice => tasks.spawn(follow::follow::<EndpointSlice>(context)),
        ObjectKind::Namespace => tasks.spawn(follow::follow::<Namespace>(context)),
        ObjectKind::Secret => tasks.spawn(follow::follow::<Secret>(context)),
        ObjectKind::EdgeGateway => {
            tasks.spawn(follow::follow::<DeserializeGuard<EdgeGateway>>(context))
        }
        ObjectKind::GatewayClass => {
            tasks.spawn(follow::follow::<DeserializeGuard<GatewayClass>>(context))
        }
        ObjectKind::Gateway => tasks.spawn(follow::follow::<DeserializeGuard<Gateway>>(context)),
        ObjectKind::ListenerSet => {
            tasks.spawn(follow::follow::<DeserializeGuard<ListenerSet>>(context))
        }
        ObjectKind::TcpRoute => tasks.spawn(follow::follow::<DeserializeGuard<TcpRoute>>(context)),
        ObjectKind::UdpRoute => tasks.spawn(follow::follow::<DeserializeGuard<UdpRoute>>(context)),
        ObjectKind::TlsRoute => tasks.spawn(follow::follow::<DeserializeGuard<TlsRoute>>(context)),
        ObjectKind::HttpRoute => {
            tasks.spawn(follow::follow::<DeserializeGuard<HttpRoute>>(context))
        }
        ObjectKind::ReferenceGrant => {
            tasks.spawn(follow::follow::<DeserializeGuard<ReferenceGrant>>(context))
        }
        ObjectKind::Pod | ObjectKind::Node | ObjectKind::Host => return,
    };
}

/// A Service, of whatever type.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct Service(lean::Service);

/// An EndpointSlice with its addresses.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EndpointSlice {
    #[serde(deserialize_with = "metadata")]
    metadata: meta::ObjectMeta,
    #[serde(default)]
    address_type: String,
    endpoints: Option<Vec<Endpoint>>,
    ports: Option<Vec<discovery::EndpointPort>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    #[serde(default)]
    addresses: Vec<String>,
    conditions: Option<discovery::EndpointConditions>,
    node_name: Option<String>,
}

/// A Namespace, of which the labels matter.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Namespace {
    #[serde(deserialize_with = "metadata")]
    metadata: meta::ObjectMeta,
}

/// A Secret of type `kubernetes.io/tls`, which TLS may end with.
#[derive(Clone, Deserialize)]
pub(super) struct Secret {
    #[serde(deserialize_with = "metadata")]
    metadata: meta::ObjectMeta,
    #[serde(rename = "type")]
    type_: Option<String>,
    data: Option<BTreeMap<String, ByteString>>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("metadata", &self.metadata).finish_non_exhaustive()
    }
}

impl kube::Resource for Service {
    type DynamicType = ();
    type Scope = <core::Service as kube::Resource>::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        <core::Service as kube::Resource>::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        <core::Service as kube::Resource>::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        <core::Service as kube::Resource>::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        <core::Service as kube::Resource>::plural(&())
    }

    fn meta(&self) -> &meta::ObjectMeta {
        &self.0.metadata
    }

    fn meta_mut(&mut self) -> &mut meta::ObjectMeta {
        &mut self.0.metadata
    }
}

lean::resource!(EndpointSlice, discovery::EndpointSlice);
lean::resource!(Namespace, core::Namespace);
lean::resource!(Secret, core::Secret);

impl Followed for Service {
    const KIND: ObjectKind = ObjectKind::Service;
    const RESOURCE: &'static str = "services";

    fn reduce(self) -> Reduced {
        let lean::Service { mut metadata, mut spec, .. } = self.0;
        reduce_metadata(&mut metadata);
        metadata.labels = None;
        if let Some(spec) = &mut spec {
            spec.selector = None;
        }
        let service = core::Service { metadata, spec, status: None };
        Reduced::Relevant(Box::new(Object::Service(Box::new(service))))
    }

    fn show(&self, seen: &Seen) {
        let lean::Service { metadata, spec, status } = &self.0;
        let class = spec.as_ref().and_then(|it| it.load_balancer_class.as_deref());
        let ours = class == Some(LOAD_BALANCER_CLASS) || concerns_us(metadata);
        let conditions = status.as_ref().and_then(|it| it.conditions.as_ref());
        // What was once said is taken back when nobody asks for it any more.
        let said = conditions.into_iter().flatten().any(|it| it.type_ == crate::report::PUBLISHED);
        if ours || said {
            seen.status(self.reference(), metadata, status.as_ref());
        } else {
            seen.forget(&self.reference());
        }
    }
}

impl Followed for EndpointSlice {
    const KIND: ObjectKind = ObjectKind::EndpointSlice;
    const RESOURCE: &'static str = "endpointslices";
    /// Endpoints come and go by the second, and never go to a gateway.
    const ORDERS: bool = false;

    fn reduce(mut self) -> Reduced {
        reduce_metadata(&mut self.metadata);
        self.metadata.annotations = None;
        if let Some(labels) = &mut self.metadata.labels {
            labels.retain(|label, _| label == SERVICE_NAME);
        }
        let endpoints = self.endpoints.into_iter().flatten().map(|it| discovery::Endpoint {
            addresses: it.addresses,
            conditions: it.conditions,
            node_name: it.node_name,
            ..Default::default()
        });
        let slice = discovery::EndpointSlice {
            metadata: self.metadata,
            address_type: self.address_type,
            endpoints: Some(endpoints.collect()),
            ports: self.ports,
        };
        Reduced::Relevant(Box::new(Object::EndpointSlice(Box::new(slice))))
    }

    /// Nobody writes EndpointSlices by hand, so there is nobody to tell something there.
    fn show(&self, _seen: &Seen) {}
}

impl Followed for Namespace {
    const KIND: ObjectKind = ObjectKind::Namespace;
    const RESOURCE: &'static str = "namespaces";

    fn reduce(mut self) -> Reduced {
        reduce_metadata(&mut self.metadata);
        let namespace = core::Namespace { metadata: self.metadata, ..Default::default() };
        Reduced::Relevant(Box::new(Object::Namespace(Box::new(namespace))))
    }

    fn show(&self, _seen: &Seen) {}
}

impl Followed for Secret {
    const KIND: ObjectKind = ObjectKind::Secret;
    const RESOURCE: &'static str = "secrets";
    /// They matter only where TLS ends here. Not everyone will let us read them for that.
    const MAY_BE_FORBIDDEN: bool = true;
    const ORDERS: bool = false;
    const FIELDS: Option<&'static str> = Some("type=kubernetes.io/tls");

    fn reduce(mut self) -> Reduced {
        reduce_metadata(&mut self.metadata);
        self.metadata.annotations = None;
        self.metadata.labels = None;
        let mut data = self.data.unwrap_or_default();
        data.retain(|key, _| ["tls.crt", "tls.key"].contains(&key.as_str()));
        let secret = core::Secret {
            metadata: self.metadata,
            type_: self.type_,
            data: Some(data),
            ..Default::default()
        };
        Reduced::Relevant(Box::new(Object::Secret(Box::new(secret))))
    }

    fn show(&self, _seen: &Seen) {}
}

/// A kind with a definition of its own, as planning takes it.
trait Defined:
    kube::Resource<DynamicType = ()> + Clone + fmt::Debug + DeserializeOwned + Send + Sync + 'static
{
    const KIND: ObjectKind;
    const RESOURCE: &'static str;
    /// Whether it is of the Gateway API, which not every cluster has.
    const IS_OPTIONAL: bool;

    fn into_object(self) -> Object;

    fn status(&self) -> Option<impl Serialize>;
}

impl<K: Defined> Followed for DeserializeGuard<K> {
    const KIND: ObjectKind = K::KIND;
    const RESOURCE: &'static str = K::RESOURCE;
    const ABSENT_PAUSE: Option<Duration> =
        Some(if K::IS_OPTIONAL { GATEWAY_API_PAUSE } else { Duration::from_secs(5) });
    const IS_OPTIONAL: bool = K::IS_OPTIONAL;
    const KEEPS: bool = true;

    fn reduce(self) -> Reduced {
        match self.0 {
            Ok(mut object) => {
                reduce_metadata(object.meta_mut());
                object.meta_mut().labels = None;
                Reduced::Relevant(Box::new(object.into_object()))
            }
            Err(invalid) => {
                Reduced::Unreadable(reference(K::KIND, &invalid.metadata), invalid.error)
            }
        }
    }

    fn show(&self, seen: &Seen) {
        match &self.0 {
            Ok(object) => seen.status(self.reference(), object.meta(), object.status().as_ref()),
            Err(invalid) => seen.object(self.reference(), &invalid.metadata),
        }
    }
}

macro_rules! defined {
    ($kind:ident, $resource:literal, optional: $optional:literal) => {
        impl Defined for $kind {
            const KIND: ObjectKind = ObjectKind::$kind;
            const RESOURCE: &'static str = $resource;
            const IS_OPTIONAL: bool = $optional;

            fn into_object(self) -> Object {
                Object::$kind(Box::new(self))
            }

            fn status(&self) -> Option<impl Serialize> {
                self.status.as_ref()
            }
        }
    };
}

defined!(EdgeGateway, "edgegateways.portcullis.dev", optional: false);
defined!(GatewayClass, "gatewayclasses.gateway.networking.k8s.io", optional: true);
defined!(Gateway, "gateways.gateway.networking.k8s.io", optional: true);
defined!(ListenerSet, "listenersets.gateway.networking.k8s.io", optional: true);
defined!(TcpRoute, "tcproutes.gateway.networking.k8s.io", optional: true);
defined!(UdpRoute, "udproutes.gateway.networking.k8s.io", optional: true);
defined!(TlsRoute, "tlsroutes.gateway.networking.k8s.io", optional: true);
defined!(HttpRoute, "httproutes.gateway.networking.k8s.io", optional: true);

impl Defined for ReferenceGrant {
    const KIND: ObjectKind = ObjectKind::ReferenceGrant;
    const RESOURCE: &'static str = "referencegrants.gateway.networking.k8s.io";
    const IS_OPTIONAL: bool = true;

    fn into_object(self) -> Object {
        Object::ReferenceGrant(Box::new(self))
    }

    fn status(&self) -> Option<impl Serialize> {
        None::<()>
    }
}
