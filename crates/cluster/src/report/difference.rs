//! What has to be written so that objects say what they should. Nothing is written here.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::host::HostStatus;
use api::object::{ObjectKind, ObjectRef};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::LoadBalancerIngress;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::{Value, json};

use super::seen::{Entry, Says, ServiceSays};
use super::{FORWARDED, Report, ServiceReport};

/// The patch of a status by server-side apply: the whole of what we say about one object.
pub(super) type Writes = BTreeMap<ObjectRef, Value>;

/// Returns what differs from `report` in what the objects say.
pub(super) fn difference(
    report: &Report,
    seen: &BTreeMap<ObjectRef, Entry>,
    now: Timestamp,
) -> Writes {
    let mut writes = Writes::new();
    for (name, status) in &report.hosts {
        let reference = ObjectRef::cluster(ObjectKind::Host, name);
        if let Some(Entry { uid, says: Says::Host(says), .. }) = seen.get(&reference)
            && let Some(status) = host_status(status, says, now)
        {
            writes.insert(reference, patch(name, None, uid, status));
        }
    }
    let services = report.services.iter().flat_map(|wanted| {
        let services = seen.iter().filter(|(it, _)| it.kind == ObjectKind::Service);
        services.map(|(reference, entry)| (reference, entry, wanted.get(reference)))
    });
    for (reference, entry, wanted) in services {
        if let Says::Service(says) = &entry.says
            && let Some(status) = service_status(wanted, entry.generation, says, now)
        {
            let namespace = reference.namespace.as_deref();
            let patch = patch(&reference.name, namespace, &entry.uid, status);
            writes.insert(reference.clone(), patch);
        }
    }
    writes
}

/// With the `uid`, so that a later object of the same name is not told what was meant for this.
fn patch(name: &str, namespace: Option<&str>, uid: &str, status: Value) -> Value {
    let mut metadata = json!({ "name": name, "uid": uid });
    if let Some(namespace) = namespace {
        metadata["namespace"] = json!(namespace);
    }
    let (version, kind) = match namespace {
        Some(_) => ("v1", "Service"),
        None => ("portcullis.dev/v1alpha1", "Host"),
    };
    json!({ "apiVersion": version, "kind": kind, "metadata": metadata, "status": status })
}

/// The status of a Host, if it differs from what the object says.
fn host_status(wanted: &HostStatus, says: &Value, now: Timestamp) -> Option<Value> {
    let said: HostStatus = serde_json::from_value(says.clone()).unwrap_or_default();
    let mut wanted = wanted.clone();
    for condition in &mut wanted.conditions {
        let before = said.conditions.iter().find(|it| it.type_ == condition.type_);
        condition.last_transition_time = transition(condition, before, now);
    }
    let mut wanted = serde_json::to_value(&wanted).ok()?;
    let said = serde_json::to_value(&said).ok()?;
    if wanted == said {
        return None;
    }
    // An empty list says nothing that its absence does not.
    wanted.as_object_mut()?.retain(|_, it| it.as_array().is_none_or(|it| !it.is_empty()));
    Some(wanted)
}

/// The status of a Service, if it differs from what the object says.
fn service_status(
    wanted: Option<&ServiceReport>,
    generation: Option<i64>,
    says: &ServiceSays,
    now: Timestamp,
) -> Option<Value> {
    let condition = wanted.map(|it| {
        let mut condition = Condition {
            type_: FORWARDED.to_owned(),
            status: if it.forwarded { "True" } else { "False" }.to_owned(),
            reason: it.reason.clone(),
            message: it.message.clone(),
            observed_generation: generation,
            last_transition_time: Time(now),
        };
        condition.last_transition_time = transition(&condition, says.forwarded.as_ref(), now);
        condition
    });
    let addresses = wanted.map(|it| it.addresses.as_slice()).unwrap_or_default();
    let ingress: Vec<_> = addresses.iter().map(|it| ingress(*it)).collect();
    let ingress_is_right = !says.is_of_our_class || ingress == says.ingress;
    if condition == says.forwarded && ingress_is_right {
        return None;
    }

    let mut status = json!({});
    if let Some(condition) = condition {
        status["conditions"] = json!([condition]);
    }
    if says.is_of_our_class {
        // Applied as an empty list and not left out: what another hand wrote there goes too.
        status["loadBalancer"] = json!({ "ingress": ingress });
    }
    Some(status)
}

/// When a condition came to be as it is: its status, not its reason, decides.
fn transition(condition: &Condition, before: Option<&Condition>, now: Timestamp) -> Time {
    match before {
        Some(before) if before.status == condition.status => before.last_transition_time.clone(),
        // The API keeps whole seconds; more would differ from what is read back.
        Some(_) | None => Time(Timestamp::from_second(now.as_second()).unwrap_or(now)),
    }
}

/// `Proxy`: traffic has to pass through the host, so that nodes must not short-circuit it.
fn ingress(address: IpAddr) -> LoadBalancerIngress {
    LoadBalancerIngress {
        ip: Some(address.to_string()),
        ip_mode: Some("Proxy".to_owned()),
        ..Default::default()
    }
}
