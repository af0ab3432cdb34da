//! Reading GatewayClasses, Gateways and ListenerSets.

use api::gateway_api::{
    CONTROLLER_NAME, GROUP, Gateway, GatewayAddress, GatewayClass, Listener, ListenerSet,
    LocalParametersReference, ParametersReference, RouteGroupKind, SecretObjectReference,
};
use api::object::{ObjectKind, ObjectRef};
use api::port::Port;
use api::server_name::ServerName;

use super::object::{Annotated, From, Key, Meta};
use crate::object::reference;

/// What is kept of a GatewayClass of ours.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Class {
    pub(crate) meta: Meta,
    pub(crate) parameters: Option<ParametersReference>,
}

/// Reads a GatewayClass; `None` when another controller drives it.
pub(super) fn read_class(class: &GatewayClass) -> Option<Class> {
    let ours = class.spec.controller_name == CONTROLLER_NAME;
    let parameters = class.spec.parameters_ref.clone();
    ours.then(|| Class { meta: Meta::read(&class.metadata), parameters })
}

/// What is kept of a Gateway.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GatewayForm {
    pub(crate) meta: Meta,
    pub(crate) class: String,
    pub(crate) listeners: Vec<ListenerForm>,
    pub(crate) addresses: Vec<GatewayAddress>,
    pub(crate) parameters: Option<LocalParametersReference>,
    /// From where ListenerSets may attach.
    pub(crate) allowed_listeners: From,
    pub(crate) annotated: Annotated,
    /// The addresses that its status tells.
    pub(crate) current: Vec<String>,
}

pub(super) fn read_gateway(gateway: &Gateway, before: Option<&GatewayForm>) -> GatewayForm {
    let object = reference(ObjectKind::Gateway, &gateway.metadata);
    let spec = &gateway.spec;
    let sets = spec.allowed_listeners.as_ref().and_then(|it| it.namespaces.as_ref());
    let status = gateway.status.as_ref();
    GatewayForm {
        meta: Meta::read(&gateway.metadata),
        class: spec.gateway_class_name.clone(),
        listeners: spec.listeners.iter().map(read_listener).collect(),
        addresses: spec.addresses.clone(),
        parameters: spec.infrastructure.as_ref().and_then(|it| it.parameters_ref.clone()),
        allowed_listeners: sets.map_or(From::Nowhere, |it| {
            From::read(it.from.as_deref(), it.selector.as_ref(), From::Nowhere)
        }),
        annotated: Annotated::read(
            &object,
            &gateway.metadata,
            Vec::new(),
            before.map(|it| &it.annotated),
        ),
        current: status
            .into_iter()
            .flat_map(|it| &it.addresses)
            .map(|it| it.value.clone())
            .collect(),
    }
}

/// What is kept of a ListenerSet.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SetForm {
    pub(crate) meta: Meta,
    /// Its Gateway; `None` when it names something else.
    pub(crate) parent: Option<Key>,
    pub(crate) listeners: Vec<ListenerForm>,
    pub(crate) annotated: Annotated,
}

pub(super) fn read_set(set: &ListenerSet, before: Option<&SetForm>) -> SetForm {
    let object = reference(ObjectKind::ListenerSet, &set.metadata);
    let parent = &set.spec.parent_ref;
    let is_gateway = parent.group.as_deref().unwrap_or(GROUP) == GROUP
        && parent.kind.as_deref().unwrap_or("Gateway") == "Gateway";
    SetForm {
        meta: Meta::read(&set.metadata),
        parent: is_gateway.then(|| parent_key(&object, parent.namespace.as_ref(), &parent.name)),
        listeners: set.spec.listeners.iter().map(read_listener).collect(),
        annotated: Annotated::read(
            &object,
            &set.metadata,
            Vec::new(),
            before.map(|it| &it.annotated),
        ),
    }
}

fn parent_key(object: &ObjectRef, namespace: Option<&String>, name: &str) -> Key {
    let namespace = namespace.or(object.namespace.as_ref()).cloned().unwrap_or_default();
    (namespace, name.to_owned())
}

/// What is kept of a listener.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ListenerForm {
    pub(crate) name: String,
    /// Which names it is for; as written where that is no host name.
    pub(crate) hostname: Result<ServerName, String>,
    pub(crate) port: Option<Port>,
    pub(crate) protocol: String,
    /// Whether TLS goes on to backends unbroken.
    pub(crate) passthrough: bool,
    pub(crate) certificates: Vec<SecretObjectReference>,
    /// From where routes may attach.
    pub(crate) from: From,
    /// Of which kinds routes may be; empty for those that fit the protocol.
    pub(crate) kinds: Vec<RouteGroupKind>,
}

fn read_listener(listener: &Listener) -> ListenerForm {
    let hostname = listener.hostname.as_deref().filter(|it| !it.is_empty());
    let tls = listener.tls.as_ref();
    let routes = listener.allowed_routes.as_ref();
    let namespaces = routes.and_then(|it| it.namespaces.as_ref());
    ListenerForm {
        name: listener.name.clone(),
        hostname: hostname.map_or(Ok(ServerName::Any), |it| it.parse().map_err(|_| it.to_owned())),
        port: u16::try_from(listener.port).ok().and_then(Port::new),
        protocol: listener.protocol.clone(),
        passthrough: tls.and_then(|it| it.mode.as_deref()) == Some("Passthrough"),
        certificates: tls.map(|it| it.certificate_refs.clone()).unwrap_or_default(),
        from: namespaces.map_or(From::Same, |it| {
            From::read(it.from.as_deref(), it.selector.as_ref(), From::Same)
        }),
        kinds: routes.map(|it| it.kinds.clone()).unwrap_or_default(),
    }
}
