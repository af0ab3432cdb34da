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
    let ingress: Vec<_> = match wanted.map(|it| it.addresses.as_deref()) {
        Some(Some(addresses)) => addresses.iter().map(|it| ingress(*it)).collect(),
        // Applied again and not left out: what we once applied and leave out is removed.
        Some(None) => says.ingress.clone(),
        None => Vec::new(),
    };
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

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use k8s_openapi::api::core::v1::Service;

    use super::*;
    use crate::report::Seen;

    const OURS: &str = r#"{"loadBalancerClass": "portcullis.dev/host"}"#;
    const WRITTEN: &str = r#"{
        "loadBalancer": {"ingress": [{"ip": "192.0.2.1", "ipMode": "Proxy"}]},
        "conditions": [{"type": "portcullis.dev/Forwarded", "status": "True", "reason": "Forwarded",
            "message": "on edge-a", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}"#;

    #[test]
    fn says_what_the_service_does_not_say_yet() {
        check(
            OURS,
            "{}",
            Some(report(true, &["192.0.2.1", "2001:db8::1"])),
            expect![[r#"
            Service web/blog: {"conditions":[{"lastTransitionTime":"2026-07-07T07:07:07Z","message":"on edge-a","reason":"Forwarded","status":"True","type":"portcullis.dev/Forwarded"}],"loadBalancer":{"ingress":[{"ip":"192.0.2.1","ipMode":"Proxy"},{"ip":"2001:db8::1","ipMode":"Proxy"}]}}
        "#]],
        );
    }

    #[test]
    fn says_nothing_that_is_said_already() {
        check(OURS, WRITTEN, Some(report(true, &["192.0.2.1"])), expect![[r#""#]]);
    }

    #[test]
    fn a_condition_keeps_its_time_while_its_status_stays() {
        let mut report = report(true, &["192.0.2.1"]);
        report.message = "on edge-a and edge-b".to_owned();
        check(
            OURS,
            WRITTEN,
            Some(report.clone()),
            expect![[r#"
            Service web/blog: {"conditions":[{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"on edge-a and edge-b","reason":"Forwarded","status":"True","type":"portcullis.dev/Forwarded"}],"loadBalancer":{"ingress":[{"ip":"192.0.2.1","ipMode":"Proxy"}]}}
        "#]],
        );
        report.forwarded = false;
        check(
            OURS,
            WRITTEN,
            Some(report),
            expect![[r#"
            Service web/blog: {"conditions":[{"lastTransitionTime":"2026-07-07T07:07:07Z","message":"on edge-a and edge-b","reason":"Forwarded","status":"False","type":"portcullis.dev/Forwarded"}],"loadBalancer":{"ingress":[{"ip":"192.0.2.1","ipMode":"Proxy"}]}}
        "#]],
        );
    }

    #[test]
    fn addresses_that_nobody_knows_now_stay() {
        let mut report = report(false, &[]);
        report.addresses = None;
        check(
            OURS,
            WRITTEN,
            Some(report),
            expect![[r#"
            Service web/blog: {"conditions":[{"lastTransitionTime":"2026-07-07T07:07:07Z","message":"on edge-a","reason":"Forwarded","status":"False","type":"portcullis.dev/Forwarded"}],"loadBalancer":{"ingress":[{"ip":"192.0.2.1","ipMode":"Proxy"}]}}
        "#]],
        );
    }

    #[test]
    fn takes_back_what_is_no_longer_ours_to_say() {
        check(
            OURS,
            WRITTEN,
            None,
            expect![[r#"
            Service web/blog: {"loadBalancer":{"ingress":[]}}
        "#]],
        );
    }

    #[test]
    fn never_touches_addresses_of_another_class() {
        check(
            r#"{"loadBalancerClass": "example.com/lb"}"#,
            WRITTEN,
            None,
            expect![[r#"
            Service web/blog: {}
        "#]],
        );
        check("{}", WRITTEN, Some(report(true, &["198.51.100.1"])), expect![[r#""#]]);
    }

    #[test]
    fn is_silent_about_services_when_another_replica_speaks() {
        let seen = seen(OURS, WRITTEN);
        let report = Report { services: None, ..Report::default() };
        assert!(difference(&report, &seen.all(), now()).is_empty());
    }

    #[test]
    fn a_host_is_told_only_what_differs() {
        let seen = Seen::default();
        let host = json!({
            "metadata": {"name": "edge-a", "uid": "u"}, "spec": {"interfaces": ["eth0"]},
            "status": {"forwards": 1, "conditions": [{"type": "Applied", "status": "True",
                "reason": "Applied", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
        });
        seen.host(&serde_json::from_value(host).expect("a Host"));
        let condition = Condition {
            type_: "Applied".to_owned(),
            status: "True".to_owned(),
            reason: "Applied".to_owned(),
            message: String::new(),
            last_transition_time: Time(now()),
            observed_generation: None,
        };
        let mut status =
            HostStatus { forwards: Some(1), conditions: vec![condition], ..HostStatus::default() };
        let of = |status: &HostStatus| Report {
            hosts: [("edge-a".to_owned(), status.clone())].into(),
            ..Report::default()
        };
        assert!(difference(&of(&status), &seen.all(), now()).is_empty());

        status.forwards = Some(2);
        let writes = difference(&of(&status), &seen.all(), now());
        expect![[r#"
            Host edge-a: {"conditions":[{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"","reason":"Applied","status":"True","type":"Applied"}],"forwards":2}
        "#]].assert_eq(&print(&writes));
    }

    fn now() -> Timestamp {
        "2026-07-07T07:07:07.123Z".parse().expect("a time")
    }

    fn report(forwarded: bool, addresses: &[&str]) -> ServiceReport {
        ServiceReport {
            forwarded,
            reason: "Forwarded".to_owned(),
            message: "on edge-a".to_owned(),
            addresses: Some(addresses.iter().map(|it| it.parse().expect("an address")).collect()),
        }
    }

    fn seen(spec: &str, status: &str) -> Seen {
        let seen = Seen::default();
        let service: Service = serde_json::from_str(&format!(
            r#"{{"metadata": {{"name": "blog", "namespace": "web", "uid": "u",
                "annotations": {{"portcullis.dev/host-ports": "443"}}}},
                "spec": {spec}, "status": {status}}}"#
        ))
        .expect("a Service");
        seen.service(&service.metadata, service.spec.as_ref(), service.status.as_ref());
        seen
    }

    #[track_caller]
    fn check(spec: &str, status: &str, report: Option<ServiceReport>, expected: Expect) {
        let blog = ObjectRef::namespaced(ObjectKind::Service, "web", "blog");
        let services = report.into_iter().map(|it| (blog.clone(), it)).collect();
        let report = Report { services: Some(services), ..Report::default() };
        let writes = difference(&report, &seen(spec, status).all(), now());
        expected.assert_eq(&print(&writes));
    }

    fn print(writes: &Writes) -> String {
        writes.iter().map(|(object, patch)| format!("{object}: {}\n", patch["status"])).collect()
    }
}
