//! The cluster as publishing sees it: the little that is needed of each object.
//!
//! Objects come in one by one or as complete lists, from whatever source; each is read once.
//! Nothing is decided here that depends on another object.

mod certificate;
mod edge;
mod gateway;
mod object;
mod reach;
mod route;
mod service;
mod slice;

use std::collections::{BTreeMap, BTreeSet};

use api::gateway_api::{ReferenceGrantFrom, ReferenceGrantTo};
use api::object::{ObjectKind, ObjectRef};
use api::port::Protocol;

use super::publication::Endpoint;
use crate::object::{Change, Object};
pub(crate) use edge::Edge;
pub(crate) use gateway::{Class, GatewayForm, ListenerForm, SetForm};
pub(crate) use object::{Key, Labels, object};
pub(crate) use route::RouteForm;
pub(crate) use service::ServiceForm;
use slice::Slices;

/// What the data plane can do beyond forwarding bytes unread. Without, such listeners are told to
/// be unsupported.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Support {
    /// Listeners of protocol `HTTP`, with HTTPRoutes that need no look into requests: connections
    /// are carried unread. Needs nothing of the data plane but leave.
    pub http: bool,
    /// Ending TLS ([`TlsEnd`](super::TlsEnd)): listeners of mode `Terminate` and, together with
    /// `http`, of protocol `HTTPS`.
    pub terminate: bool,
}

/// The cluster as publishing sees it.
#[derive(Debug, Default)]
pub struct PublishView {
    support: Support,
    bundle: Option<String>,
    listed: BTreeSet<ObjectKind>,
    version: u64,
    edges: BTreeMap<String, Edge>,
    namespaces: BTreeMap<String, Labels>,
    classes: BTreeMap<String, Class>,
    gateways: BTreeMap<Key, GatewayForm>,
    sets: BTreeMap<Key, SetForm>,
    routes: BTreeMap<ObjectRef, RouteForm>,
    grants: BTreeMap<Key, GrantForm>,
    services: BTreeMap<Key, ServiceForm>,
    slices: Slices,
    certificates: BTreeMap<Key, Result<(), String>>,
    own_host_refused: bool,
}

/// What is kept of a ReferenceGrant.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct GrantForm {
    from: Vec<ReferenceGrantFrom>,
    to: Vec<ReferenceGrantTo>,
}

impl PublishView {
    /// A view of nothing yet, for a data plane that can do this.
    #[must_use]
    pub fn new(support: Support) -> Self {
        Self { support, ..Self::default() }
    }

    /// The kinds that must be listed, in the order in which they are best read. Of Secrets only
    /// those of type `kubernetes.io/tls` are wanted.
    #[must_use]
    pub fn wanted(support: Support) -> Vec<ObjectKind> {
        let mut kinds = vec![
            ObjectKind::EdgeGateway,
            ObjectKind::Namespace,
            ObjectKind::Service,
            ObjectKind::EndpointSlice,
            ObjectKind::GatewayClass,
            ObjectKind::Gateway,
            ObjectKind::ListenerSet,
            ObjectKind::TcpRoute,
            ObjectKind::UdpRoute,
            ObjectKind::TlsRoute,
            ObjectKind::ReferenceGrant,
        ];
        kinds.extend(support.http.then_some(ObjectKind::HttpRoute));
        kinds.extend(support.terminate.then_some(ObjectKind::Secret));
        kinds
    }

    /// Takes in a change; returns whether anything changed that planning or statuses read. Kinds
    /// that are not wanted change nothing.
    ///
    /// An object that can no longer be understood keeps its last good state, with a finding, until
    /// it is corrected or deleted.
    pub fn change(&mut self, change: Change) -> bool {
        let changed = match change {
            Change::Applied(object) => self.apply(&object),
            Change::Deleted(object) => self.delete(&object),
            Change::Reset(kind, objects) => {
                let present: BTreeSet<_> = objects.iter().map(Object::reference).collect();
                let wanted = Self::wanted(self.support).contains(&kind);
                let mut changed = wanted && self.listed.insert(kind);
                let gone = self.known(kind).into_iter().filter(|it| !present.contains(it));
                for gone in gone.collect::<Vec<_>>() {
                    changed |= self.delete(&gone);
                }
                for object in &objects {
                    changed |= self.apply(object);
                }
                changed
            }
        };
        self.version += u64::from(changed);
        changed
    }

    /// Tells the version of the Gateway API's definitions, as their annotation
    /// `gateway.networking.k8s.io/bundle-version` says; `None` when it is unknown. Returns whether
    /// that is news.
    pub fn set_bundle_version(&mut self, version: Option<String>) -> bool {
        let changed = self.bundle != version;
        self.bundle = version;
        self.version += u64::from(changed);
        changed
    }

    /// Whether a complete list of every kind was seen. Until then, what is missing here may well
    /// exist, so nothing must be planned.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.missing().next().is_none()
    }

    /// The kinds of which no complete list was seen yet.
    pub fn missing(&self) -> impl Iterator<Item = ObjectKind> + '_ {
        Self::wanted(self.support).into_iter().filter(|it| !self.listed.contains(it))
    }

    /// A number that grows with every change that [`change`](Self::change) reports.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The `metadata.uid` of an object, for Events; `None` when it is unknown.
    #[must_use]
    pub fn uid(&self, object: &ObjectRef) -> Option<&str> {
        let key = || (object.namespace.clone().unwrap_or_default(), object.name.clone());
        let meta = match object.kind {
            ObjectKind::EdgeGateway => &self.edges.get(&object.name)?.meta,
            ObjectKind::GatewayClass => &self.classes.get(&object.name)?.meta,
            ObjectKind::Gateway => &self.gateways.get(&key())?.meta,
            ObjectKind::ListenerSet => &self.sets.get(&key())?.meta,
            ObjectKind::Service => &self.services.get(&key())?.meta,
            ObjectKind::TcpRoute
            | ObjectKind::UdpRoute
            | ObjectKind::TlsRoute
            | ObjectKind::HttpRoute => &self.routes.get(object)?.meta,
            ObjectKind::Pod
            | ObjectKind::Node
            | ObjectKind::EndpointSlice
            | ObjectKind::Host
            | ObjectKind::Namespace
            | ObjectKind::Secret
            | ObjectKind::ReferenceGrant => return None,
        };
        Some(meta.uid.as_ref()).filter(|it| !it.is_empty())
    }

    pub(crate) fn support(&self) -> Support {
        self.support
    }

    pub(crate) fn bundle(&self) -> Option<&str> {
        self.bundle.as_deref()
    }

    pub(crate) fn edges(&self) -> &BTreeMap<String, Edge> {
        &self.edges
    }

    pub(crate) fn classes(&self) -> &BTreeMap<String, Class> {
        &self.classes
    }

    pub(crate) fn gateways(&self) -> &BTreeMap<Key, GatewayForm> {
        &self.gateways
    }

    pub(crate) fn sets(&self) -> &BTreeMap<Key, SetForm> {
        &self.sets
    }

    pub(crate) fn routes(&self) -> &BTreeMap<ObjectRef, RouteForm> {
        &self.routes
    }

    pub(crate) fn services(&self) -> &BTreeMap<Key, ServiceForm> {
        &self.services
    }

    /// The labels of a namespace; none when it is unknown.
    pub(crate) fn labels(&self, namespace: &str) -> &Labels {
        static NONE: Labels = Labels::new();
        self.namespaces.get(namespace).unwrap_or(&NONE)
    }

    /// Notes that a Secret, which looked sound, cannot serve as a certificate: whoever ends TLS
    /// looked closer. Counts until the Secret changes. Returns whether that is news.
    ///
    /// `why` continues a sentence that begins with the Secret's name; it must not tell what the
    /// Secret holds.
    pub fn refuse_certificate(&mut self, secret: &ObjectRef, why: &str) -> bool {
        let key = (secret.namespace.clone().unwrap_or_default(), secret.name.clone());
        let changed = match self.certificates.get_mut(&key) {
            Some(sound @ Ok(())) => {
                *sound = Err(why.to_owned());
                true
            }
            // What is wrong already is told better, or was never seen.
            Some(Err(_)) | None => false,
        };
        self.version += u64::from(changed);
        changed
    }

    /// What is wrong with a Secret as a certificate.
    pub(crate) fn certificate(&self, secret: &Key) -> Result<(), String> {
        let unknown = || {
            Err("does not exist, is not of type kubernetes.io/tls, or agents may not list and \
                 watch Secrets"
                .to_owned())
        };
        self.certificates.get(secret).cloned().unwrap_or_else(unknown)
    }

    /// The endpoints of one port of a Service.
    pub(crate) fn endpoints(
        &self,
        service: &Key,
        port: &str,
        protocol: Protocol,
        prefers_ipv6: bool,
    ) -> Vec<Endpoint> {
        self.slices.endpoints(service, port, protocol, prefers_ipv6)
    }

    /// Whether a ReferenceGrant allows an object of a kind of the Gateway API in one namespace to
    /// refer to an object of the core group in another one.
    pub(crate) fn is_granted(
        &self,
        (kind, namespace): (ObjectKind, &str),
        to_kind: &str,
        (to_namespace, to_name): &Key,
    ) -> bool {
        let first = (to_namespace.clone(), String::new());
        let there = self.grants.range(first..).take_while(|((it, _), _)| it == to_namespace);
        there.into_iter().any(|(_, grant)| {
            let from = grant.from.iter().any(|it| {
                it.group == api::gateway_api::GROUP
                    && it.kind == kind.name()
                    && it.namespace == namespace
            });
            let name = |it: &ReferenceGrantTo| it.name.as_ref().is_none_or(|it| it == to_name);
            from && grant.to.iter().any(|it| it.group.is_empty() && it.kind == to_kind && name(it))
        })
    }

    fn known(&self, kind: ObjectKind) -> Vec<ObjectRef> {
        let named = |it: &Key| object(kind, it);
        let cluster = |it: &String| ObjectRef::cluster(kind, it);
        match kind {
            ObjectKind::EdgeGateway => self.edges.keys().map(cluster).collect(),
            ObjectKind::Namespace => self.namespaces.keys().map(cluster).collect(),
            ObjectKind::GatewayClass => self.classes.keys().map(cluster).collect(),
            ObjectKind::Gateway => self.gateways.keys().map(named).collect(),
            ObjectKind::ListenerSet => self.sets.keys().map(named).collect(),
            ObjectKind::ReferenceGrant => self.grants.keys().map(named).collect(),
            ObjectKind::Service => self.services.keys().map(named).collect(),
            ObjectKind::EndpointSlice => self.slices.keys().map(named).collect(),
            ObjectKind::Secret => self.certificates.keys().map(named).collect(),
            ObjectKind::TcpRoute
            | ObjectKind::UdpRoute
            | ObjectKind::TlsRoute
            | ObjectKind::HttpRoute => {
                self.routes.keys().filter(|it| it.kind == kind).cloned().collect()
            }
            ObjectKind::Pod | ObjectKind::Node | ObjectKind::Host => Vec::new(),
        }
    }

    fn apply(&mut self, object: &Object) -> bool {
        let reference = object.reference();
        let name = reference.name.clone();
        let key = || (reference.namespace.clone().unwrap_or_default(), name.clone());
        match object {
            Object::EdgeGateway(it) => {
                let read = edge::read(it, self.edges.get(&name));
                replace(&mut self.edges, name, Some(read))
            }
            Object::Namespace(it) => {
                let labels = it.metadata.labels.clone().unwrap_or_default();
                replace(&mut self.namespaces, name, Some(labels))
            }
            Object::GatewayClass(it) => replace(&mut self.classes, name, gateway::read_class(it)),
            Object::Gateway(it) => {
                let read = gateway::read_gateway(it, self.gateways.get(&key()));
                replace(&mut self.gateways, key(), Some(read))
            }
            Object::ListenerSet(it) => {
                let read = gateway::read_set(it, self.sets.get(&key()));
                replace(&mut self.sets, key(), Some(read))
            }
            Object::TcpRoute(it) => {
                let read = route::read_tcp(it, self.routes.get(&reference));
                replace(&mut self.routes, reference, Some(read))
            }
            Object::UdpRoute(it) => {
                let read = route::read_udp(it, self.routes.get(&reference));
                replace(&mut self.routes, reference, Some(read))
            }
            Object::TlsRoute(it) => {
                let read = route::read_tls(it, self.routes.get(&reference));
                replace(&mut self.routes, reference, Some(read))
            }
            Object::HttpRoute(it) if self.support.http => {
                let read = route::read_http(it, self.routes.get(&reference));
                replace(&mut self.routes, reference, Some(read))
            }
            Object::ReferenceGrant(it) => {
                let (from, to) = (it.spec.from.clone(), it.spec.to.clone());
                replace(&mut self.grants, key(), Some(GrantForm { from, to }))
            }
            Object::Service(it) => {
                let read = service::read(it, self.services.get(&key()));
                replace(&mut self.services, key(), Some(read))
            }
            Object::EndpointSlice(it) => self.slices.insert(key(), it),
            Object::Secret(it) if self.support.terminate => {
                replace(&mut self.certificates, key(), Some(certificate::read(it)))
            }
            Object::Pod(_)
            | Object::Node(_)
            | Object::Host(_)
            | Object::HttpRoute(_)
            | Object::Secret(_) => false,
        }
    }

    fn delete(&mut self, object: &ObjectRef) -> bool {
        let name = &object.name;
        let key = (object.namespace.clone().unwrap_or_default(), name.clone());
        match object.kind {
            ObjectKind::EdgeGateway => self.edges.remove(name).is_some(),
            ObjectKind::Namespace => self.namespaces.remove(name).is_some(),
            ObjectKind::GatewayClass => self.classes.remove(name).is_some(),
            ObjectKind::Gateway => self.gateways.remove(&key).is_some(),
            ObjectKind::ListenerSet => self.sets.remove(&key).is_some(),
            ObjectKind::ReferenceGrant => self.grants.remove(&key).is_some(),
            ObjectKind::Service => self.services.remove(&key).is_some(),
            ObjectKind::EndpointSlice => self.slices.remove(&key),
            ObjectKind::Secret => self.certificates.remove(&key).is_some(),
            ObjectKind::TcpRoute
            | ObjectKind::UdpRoute
            | ObjectKind::TlsRoute
            | ObjectKind::HttpRoute => self.routes.remove(object).is_some(),
            ObjectKind::Pod | ObjectKind::Node | ObjectKind::Host => false,
        }
    }
}

/// Replaces what is kept under a key; returns whether anything changed.
fn replace<K: Ord, V: PartialEq>(kept: &mut BTreeMap<K, V>, key: K, new: Option<V>) -> bool {
    if kept.get(&key) == new.as_ref() {
        return false;
    }
    match new {
        Some(new) => kept.insert(key, new),
        None => kept.remove(&key),
    };
    true
}
