//! Reads one object of a known kind, from whatever deserializer.

use api::name::ObjectName;
use api::object::{ObjectKind, ObjectRef};
use planner::cluster_view::Object;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

/// Where the kinds come from of which only a part is read.
const GATEWAY_API: &str = "gateway.networking.k8s.io/v1";

/// Reads an object, and the paths of the fields that its kind does not have.
pub(super) fn read_object<'de, D: Deserializer<'de>>(
    kind: ObjectKind,
    manifest: D,
) -> Result<(Object, Vec<String>), D::Error> {
    let manifest = &mut <dyn erased_serde::Deserializer<'_>>::erase(manifest);
    read_known(kind, manifest).map_err(D::Error::custom)
}

fn read_known(
    kind: ObjectKind,
    manifest: &mut dyn erased_serde::Deserializer<'_>,
) -> Result<(Object, Vec<String>), erased_serde::Error> {
    let (mut object, unknown) = match kind {
        ObjectKind::Service => read(manifest, Object::Service),
        ObjectKind::Pod => read(manifest, Object::Pod),
        ObjectKind::Node => read(manifest, Object::Node),
        ObjectKind::EndpointSlice => read(manifest, Object::EndpointSlice),
        ObjectKind::Host => {
            let (host, problems) = api::host::read_manifest(manifest)?;
            let unknown = problems.into_iter().map(|it| it.field).collect();
            Ok((Object::Host(Box::new(host)), unknown))
        }
        ObjectKind::Namespace => read(manifest, Object::Namespace),
        ObjectKind::Secret => read(manifest, Object::Secret),
        ObjectKind::GatewayClass => read(manifest, Object::GatewayClass),
        ObjectKind::Gateway => read(manifest, Object::Gateway),
        ObjectKind::ListenerSet => read(manifest, Object::ListenerSet),
        ObjectKind::TcpRoute => read(manifest, Object::TcpRoute),
        ObjectKind::UdpRoute => read(manifest, Object::UdpRoute),
        ObjectKind::TlsRoute => read(manifest, Object::TlsRoute),
        ObjectKind::HttpRoute => read(manifest, Object::HttpRoute),
        ObjectKind::ReferenceGrant => read(manifest, Object::ReferenceGrant),
        ObjectKind::EdgeGateway => {
            let (object, mut unknown) = read(manifest, Object::EdgeGateway)?;
            // The type itself says which kind it is; the header has been compared with it.
            unknown.retain(|it| it != "apiVersion" && it != "kind");
            Ok((object, unknown))
        }
    }?;
    object.metadata_mut().managed_fields = None;
    // Of these only a part is read: what our types leave out is no mistake.
    let is_part = kind.api_version() == GATEWAY_API;
    Ok((object, if is_part { Vec::new() } else { unknown }))
}

/// Whether two objects say the same.
pub(super) fn is_same(one: &Object, other: &Object) -> bool {
    match (one, other) {
        (Object::Service(one), Object::Service(other)) => one == other,
        (Object::Pod(one), Object::Pod(other)) => one == other,
        (Object::Node(one), Object::Node(other)) => one == other,
        (Object::EndpointSlice(one), Object::EndpointSlice(other)) => one == other,
        (Object::Host(one), Object::Host(other)) => one == other,
        (Object::Namespace(one), Object::Namespace(other)) => one == other,
        (Object::Secret(one), Object::Secret(other)) => one == other,
        (Object::GatewayClass(one), Object::GatewayClass(other)) => one == other,
        (Object::Gateway(one), Object::Gateway(other)) => one == other,
        (Object::ListenerSet(one), Object::ListenerSet(other)) => one == other,
        (Object::TcpRoute(one), Object::TcpRoute(other)) => one == other,
        (Object::UdpRoute(one), Object::UdpRoute(other)) => one == other,
        (Object::TlsRoute(one), Object::TlsRoute(other)) => one == other,
        (Object::HttpRoute(one), Object::HttpRoute(other)) => one == other,
        (Object::ReferenceGrant(one), Object::ReferenceGrant(other)) => one == other,
        (Object::EdgeGateway(one), Object::EdgeGateway(other)) => one == other,
        _ => false,
    }
}

/// Checks the name and namespace of an object, as the API server would.
///
/// # Errors
///
/// Says what is wrong, with the name.
pub(super) fn check_names(reference: &ObjectRef) -> Result<(), String> {
    if reference.name.is_empty() {
        return Err("metadata.name is missing".to_owned());
    }
    for (field, name) in
        [("name", Some(&reference.name)), ("namespace", reference.namespace.as_ref())]
    {
        if let Some(name) = name {
            name.parse::<ObjectName>().map_err(|it| format!("metadata.{field}: {it}"))?;
        }
    }
    Ok(())
}

fn read<'de, K: Deserialize<'de>>(
    manifest: &mut dyn erased_serde::Deserializer<'de>,
    object: impl Fn(Box<K>) -> Object,
) -> Result<(Object, Vec<String>), erased_serde::Error> {
    let mut unknown = Vec::new();
    let read = serde_ignored::deserialize(manifest, |path| {
        // Option layers show as `?`, which is not how people write paths.
        let path = path.to_string();
        unknown.push(path.split('.').filter(|it| *it != "?").collect::<Vec<_>>().join("."));
    })?;
    Ok((object(Box::new(read)), unknown))
}
