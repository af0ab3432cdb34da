//! Which address of a gateway somebody gets, and who may publish what.

use expect_test::{Expect, expect};
use planner::publish::plan;

use crate::world::{check, findings, objects, ports, view};

/// Two gateways: one with three addresses, one without any.
const GATEWAYS: &str = "
kind: EdgeGateway
metadata: { name: fra1 }
spec:
  endpoints: [{ host: fra1.example.com }]
  addresses: [{ address: 203.0.113.7 }, { address: 10.0.0.8, advertise: 203.0.113.8 }, { address: '2001:db8::7' }]
---
kind: EdgeGateway
metadata: { name: ams1 }
spec: { endpoints: [{ host: ams1.example.com, port: 9443 }] }
---
kind: GatewayClass
metadata: { name: portcullis }
spec: { controllerName: portcullis.dev/gateway-controller }
---
";

fn service(name: &str, second: u32, more: &str) -> String {
    format!(
        "
---
kind: Service
metadata: {{ namespace: web, name: {name}, creationTimestamp: '2026-01-01T00:00:{second:02}Z' }}
spec: {{ type: LoadBalancer, loadBalancerClass: portcullis.dev/gateway, ports: [{{ port: 443 }}]{more} }}
"
    )
}

#[track_caller]
fn check_on(gateways: &str, manifests: &str, expected: &Expect) {
    let publication = plan(&view(objects(gateways).into_iter().chain(objects(manifests))));
    expected.assert_eq(&(ports(&publication) + &findings(&publication.findings)));
}

#[test]
fn one_address_of_each_family_on_each_gateway_that_has_the_port_free() {
    let three = service("a", 1, "") + &service("b", 2, "") + &service("c", 3, "");
    check_on(
        GATEWAYS,
        &three,
        &expect![[r#"
            ams1 * 443/tcp -> tcp:web/a:443 for Service web/a
            fra1 10.0.0.8 443/tcp -> tcp:web/b:443 for Service web/b
            fra1 203.0.113.7 443/tcp -> tcp:web/a:443 for Service web/a
            fra1 2001:db8::7 443/tcp -> tcp:web/a:443 for Service web/a
            ! PortConflict Service web/b: spec.ports: "443/tcp": taken at 2001:db8::7 of gateway fra1 by Service web/a, which comes first (the older object, then by kind, namespace and name); not published there; choose another port, another gateway with portcullis.dev/gateway, or other host names
            ! PortConflict Service web/b: spec.ports: "443/tcp": taken on gateway ams1 by Service web/a, which comes first (the older object, then by kind, namespace and name); not published there; choose another port, another gateway with portcullis.dev/gateway, or other host names
            ! PortConflict Service web/c: spec.ports: "443/tcp": taken at 2001:db8::7 of gateway fra1 by Service web/a, which comes first (the older object, then by kind, namespace and name); not published there; choose another port, another gateway with portcullis.dev/gateway, or other host names
            ! PortConflict Service web/c: spec.ports: "443/tcp": taken at 203.0.113.7 of gateway fra1 by Service web/a, which comes first (the older object, then by kind, namespace and name); not published there; choose another port, another gateway with portcullis.dev/gateway, or other host names
            ! PortConflict Service web/c: spec.ports: "443/tcp": taken on gateway ams1 by Service web/a, which comes first (the older object, then by kind, namespace and name); not published there; choose another port, another gateway with portcullis.dev/gateway, or other host names
        "#]],
    );
}

#[test]
fn an_address_that_is_asked_for_counts_by_itself_or_by_what_is_announced() {
    let asked = |address: &str| service("a", 1, &format!(", loadBalancerIP: '{address}'"));
    check_on(
        GATEWAYS,
        &asked("203.0.113.8"),
        &expect![[r#"
        fra1 10.0.0.8 443/tcp -> tcp:web/a:443 for Service web/a
    "#]],
    );
    check_on(
        GATEWAYS,
        &asked("10.0.0.8"),
        &expect![[r#"
        fra1 10.0.0.8 443/tcp -> tcp:web/a:443 for Service web/a
    "#]],
    );
    check_on(
        GATEWAYS,
        &asked("192.0.2.1"),
        &expect![[r#"
        ! AddressNotUsable Service web/a: spec.loadBalancerIP: "192.0.2.1": none of its gateways offers this address; name one of spec.addresses of an EdgeGateway, or none to take any
    "#]],
    );
}

#[test]
fn the_end_of_one_object_moves_no_other_one() {
    let told = |address: &str| {
        format!("}}\nstatus: {{ loadBalancer: {{ ingress: [{{ ip: {address} }}] }}")
    };
    // `a`, which had 203.0.113.7, is gone.
    let rest = service("b", 2, &told("203.0.113.8"));
    check_on(
        GATEWAYS,
        &rest,
        &expect![[r#"
        ams1 * 443/tcp -> tcp:web/b:443 for Service web/b
        fra1 10.0.0.8 443/tcp -> tcp:web/b:443 for Service web/b
        fra1 2001:db8::7 443/tcp -> tcp:web/b:443 for Service web/b
    "#]],
    );
    // An older object that comes later takes what is free; one that asks gets what it asks for.
    let older = service("older", 1, "") + &rest;
    check_on(
        GATEWAYS,
        &older,
        &expect![[r#"
            ams1 * 443/tcp -> tcp:web/older:443 for Service web/older
            fra1 10.0.0.8 443/tcp -> tcp:web/b:443 for Service web/b
            fra1 203.0.113.7 443/tcp -> tcp:web/older:443 for Service web/older
            fra1 2001:db8::7 443/tcp -> tcp:web/older:443 for Service web/older
            ! PortConflict Service web/b: spec.ports: "443/tcp": taken at 2001:db8::7 of gateway fra1 by Service web/older, which comes first (the older object, then by kind, namespace and name); not published there; choose another port, another gateway with portcullis.dev/gateway, or other host names
            ! PortConflict Service web/b: spec.ports: "443/tcp": taken on gateway ams1 by Service web/older, which comes first (the older object, then by kind, namespace and name); not published there; choose another port, another gateway with portcullis.dev/gateway, or other host names
        "#]],
    );
    let asks = service("older", 1, ", loadBalancerIP: 203.0.113.8") + &rest;
    check_on(
        GATEWAYS,
        &asks,
        &expect![[r#"
        ams1 * 443/tcp -> tcp:web/b:443 for Service web/b
        fra1 10.0.0.8 443/tcp -> tcp:web/older:443 for Service web/older
        fra1 203.0.113.7 443/tcp -> tcp:web/b:443 for Service web/b
        fra1 2001:db8::7 443/tcp -> tcp:web/b:443 for Service web/b
    "#]],
    );
}

#[test]
fn a_gateway_would_rather_have_an_address_of_its_own() {
    let gateway = |name: &str, second: u32, host: &str| {
        format!(
            "
---
kind: Gateway
metadata: {{ namespace: infra, name: {name}, creationTimestamp: '2026-01-01T00:00:{second:02}Z' }}
spec:
  gatewayClassName: portcullis
  listeners: [{{ name: tls, port: 443, protocol: TLS, hostname: '{host}', tls: {{ mode: Passthrough }} }}]
"
        )
    };
    let gateways = gateway("a", 1, "*.example.com")
        + &gateway("b", 2, "*.example.net")
        + &gateway("c", 3, "*.example.org")
        + &gateway("d", 4, "*.example.com");
    check_on(
        GATEWAYS,
        &gateways,
        &expect![[r#"
            ams1 * 443/tcp -> nowhere for Gateway infra/a listener tls, Gateway infra/b listener tls, Gateway infra/c listener tls
            fra1 10.0.0.8 443/tcp -> nowhere for Gateway infra/b listener tls, Gateway infra/d listener tls
            fra1 203.0.113.7 443/tcp -> nowhere for Gateway infra/a listener tls, Gateway infra/c listener tls
            fra1 2001:db8::7 443/tcp -> nowhere for Gateway infra/a listener tls, Gateway infra/b listener tls, Gateway infra/c listener tls
            ! PortConflict Gateway infra/d: spec.listeners: "443/tcp for *.example.com": taken at 2001:db8::7 of gateway fra1 by Gateway infra/a, which comes first (the older object, then by kind, namespace and name); not published there; choose another port, another gateway with portcullis.dev/gateway, or other host names
            ! PortConflict Gateway infra/d: spec.listeners: "443/tcp for *.example.com": taken on gateway ams1 by Gateway infra/a, which comes first (the older object, then by kind, namespace and name); not published there; choose another port, another gateway with portcullis.dev/gateway, or other host names
        "#]],
    );
}

#[test]
fn wb_09_only_what_is_granted_is_published() {
    const GRANTS: &str = "
kind: EdgeGateway
metadata: { name: fra1 }
spec:
  endpoints: [{ host: fra1.example.com }]
  grants:
  - { namespaces: [web], hostnames: ['*.example.com'], ports: ['443'], maxPorts: 2 }
  - { namespaces: ['*'], ports: ['8000-8001', '53/udp'] }
---
";
    check_on(
        GRANTS,
        "
kind: Service
metadata: { namespace: web, name: a, annotations: { portcullis.dev/gateway: '*', portcullis.dev/hostnames: 'a.example.com, b.example.com, evil.example.net, c.example.com' } }
spec: { ports: [{ port: 443 }] }
---
kind: Service
metadata: { namespace: web, name: whole, annotations: { portcullis.dev/gateway: '*' } }
spec: { ports: [{ port: 443 }, { name: b, port: 8000 }, { name: c, port: 8002 }, { name: d, port: 53, protocol: UDP }, { name: e, port: 53 }] }
---
kind: Service
metadata: { namespace: mail, name: a, annotations: { portcullis.dev/gateway: '*', portcullis.dev/hostnames: mail.example.com } }
spec: { ports: [{ port: 443 }, { name: t, port: 7443 }] }
",
        &expect![[r#"
            fra1 * 443/tcp -> { a.example.com tcp:web/a:443, b.example.com tcp:web/a:443 } for Service web/a
            fra1 * 8000/tcp -> tcp:web/whole:8000 for Service web/whole
            fra1 * 53/udp -> udp:web/whole:53 for Service web/whole
            ! NotGranted Service mail/a: portcullis.dev/hostnames: "mail.example.com (443/tcp)": no grant of gateway fra1 allows it to this namespace; not published there; ask whoever owns the EdgeGateway for an entry in spec.grants
            ! NotGranted Service web/a: portcullis.dev/hostnames: "evil.example.net (443/tcp)": no grant of gateway fra1 allows it to this namespace; not published there; ask whoever owns the EdgeGateway for an entry in spec.grants
            ! NotGranted Service web/whole: spec.ports: "53/tcp, 443/tcp, 8002/tcp": no grant of gateway fra1 allows it to this namespace; not published there; ask whoever owns the EdgeGateway for an entry in spec.grants
            ! PortIsTunnel Service mail/a: spec.ports: "7443/tcp": is the port by which agents dial gateway fra1; not published there; choose another port, or another port for the tunnel in spec.endpoints
            ! TooManyPorts Service web/a: portcullis.dev/hostnames: "c.example.com (443/tcp)": the namespace has all ports that gateway fra1 grants it; not published there; give up other ports there, or ask whoever owns the EdgeGateway for more (maxPorts)
        "#]],
    );
    let nothing = GRANTS.split("  grants").next().expect("before the grants").to_owned()
        + "  grants: []\n---\n";
    check_on(
        &nothing,
        &service("a", 1, ""),
        &expect![[r#"
        ! NotGranted Service web/a: spec.ports: "443/tcp": no grant of gateway fra1 allows it to this namespace; not published there; ask whoever owns the EdgeGateway for an entry in spec.grants
    "#]],
    );
}

#[test]
fn an_edge_gateway_that_cannot_be_understood_is_told() {
    check(
        "
kind: EdgeGateway
metadata: { name: ams1 }
spec: { endpoints: [{ host: '-x' }], addresses: [{ address: 10.0.0.0/8 }], carrier: pigeon }
",
        &expect![[r#"
            ! InvalidValue EdgeGateway ams1: spec.addresses[0].address: "10.0.0.0/8": not an IP address; nothing is published on it; write an address such as 10.8.0.1 or 2001:db8::1, without a prefix length or zone
            ! InvalidValue EdgeGateway ams1: spec.carrier: "pigeon": not a carrier of tunnels; nothing is published on it; write auto, quic or tls, or leave it out for auto
            ! InvalidValue EdgeGateway ams1: spec.endpoints[0].host: "-x": neither an IP address nor a host name; nothing is published on it; write it without user and port, such as edge-a.example.com or 2001:db8::1
        "#]],
    );
}
