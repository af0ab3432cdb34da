//! Reads one object of a known kind, from whatever deserializer.

use api::name::ObjectName;
use api::object::{ObjectKind, ObjectRef};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use planner::cluster_view::Object;
use serde::Deserialize;
use serde::de::Deserializer;

/// Reads an object, and the paths of the fields that its kind does not have.
pub(super) fn read_object<'de, D: Deserializer<'de>>(
    kind: ObjectKind,
    manifest: D,
) -> Result<(Object, Vec<String>), D::Error> {
    let (mut object, unknown) = match kind {
        ObjectKind::Service => read(manifest).map(|(it, unknown)| (Object::Service(it), unknown)),
        ObjectKind::Pod => read(manifest).map(|(it, unknown)| (Object::Pod(it), unknown)),
        ObjectKind::Node => read(manifest).map(|(it, unknown)| (Object::Node(it), unknown)),
        ObjectKind::EndpointSlice => {
            read(manifest).map(|(it, unknown)| (Object::EndpointSlice(it), unknown))
        }
        ObjectKind::Host => {
            let (host, problems) = api::host::read_manifest(manifest)?;
            let unknown = problems.into_iter().map(|it| it.field).collect();
            Ok((Object::Host(Box::new(host)), unknown))
        }
    }?;
    metadata(&mut object).managed_fields = None;
    Ok((object, unknown))
}

/// Whether two objects say the same.
pub(super) fn is_same(one: &Object, other: &Object) -> bool {
    match (one, other) {
        (Object::Service(one), Object::Service(other)) => one == other,
        (Object::Pod(one), Object::Pod(other)) => one == other,
        (Object::Node(one), Object::Node(other)) => one == other,
        (Object::EndpointSlice(one), Object::EndpointSlice(other)) => one == other,
        (Object::Host(one), Object::Host(other)) => one == other,
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

fn read<'de, K, D>(manifest: D) -> Result<(Box<K>, Vec<String>), D::Error>
where
    K: Deserialize<'de>,
    D: Deserializer<'de>,
{
    let mut unknown = Vec::new();
    let object = serde_ignored::deserialize(manifest, |path| {
        // Option layers show as `?`, which is not how people write paths.
        let path = path.to_string();
        unknown.push(path.split('.').filter(|it| *it != "?").collect::<Vec<_>>().join("."));
    })?;
    Ok((Box::new(object), unknown))
}

fn metadata(object: &mut Object) -> &mut ObjectMeta {
    match object {
        Object::Service(it) => &mut it.metadata,
        Object::Node(it) => &mut it.metadata,
        Object::Pod(it) => &mut it.metadata,
        Object::EndpointSlice(it) => &mut it.metadata,
        Object::Host(it) => &mut it.metadata,
    }
}
