//! The types against the names and statuses of the real API.

use kube::Resource;
use serde_json::{Value, json};

use super::*;
use crate::object::ObjectKind;

#[test]
fn kinds_are_named_as_the_api_names_them() {
    fn check<K: Resource<DynamicType = ()>>(kind: ObjectKind, plural: &str) {
        assert_eq!(K::api_version(&()), kind.api_version(), "{kind}");
        assert_eq!((K::kind(&()).as_ref(), K::plural(&()).as_ref()), (kind.name(), plural));
    }
    check::<GatewayClass>(ObjectKind::GatewayClass, "gatewayclasses");
    check::<Gateway>(ObjectKind::Gateway, "gateways");
    check::<ListenerSet>(ObjectKind::ListenerSet, "listenersets");
    check::<TcpRoute>(ObjectKind::TcpRoute, "tcproutes");
    check::<UdpRoute>(ObjectKind::UdpRoute, "udproutes");
    check::<TlsRoute>(ObjectKind::TlsRoute, "tlsroutes");
    check::<HttpRoute>(ObjectKind::HttpRoute, "httproutes");
    check::<ReferenceGrant>(ObjectKind::ReferenceGrant, "referencegrants");
}

#[test]
fn what_another_controller_said_about_a_route_is_written_back_whole() {
    let status = json!({ "parents": [{
        "parentRef": {
            "group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "infra",
            "name": "public", "sectionName": "tls", "port": 443,
        },
        "controllerName": "example.com/other",
        "conditions": [{
            "type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
            "observedGeneration": 3, "lastTransitionTime": "2026-01-02T03:04:05Z",
        }],
    }] });
    let read: RouteStatus = serde_json::from_value(status.clone()).expect("a status");
    assert_eq!(serde_json::to_value(read).expect("a value"), status);
}

#[test]
fn unknown_fields_are_skipped_and_absent_ones_are_defaults() {
    let gateway: Gateway = serde_json::from_value(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": { "name": "public", "namespace": "infra" },
        "spec": {
            "gatewayClassName": "portcullis", "defaultScope": "All",
            "listeners": [{ "name": "tls", "port": 443, "protocol": "TLS", "tls": { "options": {} } }],
        },
    }))
    .expect("a Gateway");
    assert_eq!(gateway.spec.listeners[0].tls, Some(ListenerTls::default()));
    assert_eq!(gateway.spec.listeners[0].allowed_routes, None);
    assert_eq!(gateway.status, None);
    let rule: HttpRouteRule =
        serde_json::from_value(json!({ "matches": [{}], "timeouts": { "request": "1s" } }))
            .expect("a rule");
    assert_eq!(rule.rest.keys().collect::<Vec<_>>(), ["timeouts"]);
    assert_eq!(rule.matches[0].rest.get("headers"), None::<&Value>);
}
