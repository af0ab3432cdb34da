//! Which routes attach to which listeners, and where they lead.

use expect_test::expect;

use crate::world::{backends, check, check_statuses, published};

const GATEWAY: &str = "
kind: Gateway
metadata: { namespace: web, name: public, generation: 3 }
spec:
  gatewayClassName: portcullis
  listeners:
  - { name: tcp, port: 9300, protocol: TCP }
  - { name: udp, port: 9300, protocol: UDP }
  - { name: tls, port: 443, protocol: TLS, hostname: '*.example.com', tls: { mode: Passthrough } }
---
";

#[test]
fn a_route_attaches_to_every_listener_that_fits() {
    let manifests = &(GATEWAY.to_owned()
        + "
kind: TCPRoute
metadata: { namespace: web, name: tcp, generation: 2 }
spec: { parentRefs: [{ name: public }], rules: [{ backendRefs: [{ name: blog, port: 443 }] }] }
---
kind: UDPRoute
metadata: { namespace: web, name: udp, generation: 2 }
spec: { parentRefs: [{ name: public, port: 9300 }], rules: [{ backendRefs: [{ name: blog, port: 53 }] }] }
---
kind: TLSRoute
metadata: { namespace: web, name: tls, generation: 2 }
spec:
  parentRefs: [{ name: public, sectionName: tls }]
  hostnames: [blog.example.com, '*.shop.example.com', other.example.net]
  rules: [{ backendRefs: [{ name: shop, port: 443 }] }]
");
    check(
        manifests,
        &expect![[r#"
        fra1 203.0.113.7 443/tcp -> { blog.example.com TLSRoute web/tls/0, *.shop.example.com TLSRoute web/tls/0 } for Gateway web/public listener tls
        fra1 203.0.113.7 9300/tcp -> TCPRoute web/tcp/0 for Gateway web/public listener tcp
        fra1 203.0.113.7 9300/udp -> UDPRoute web/udp/0 for Gateway web/public listener udp
    "#]],
    );
    check_statuses(
        manifests,
        &expect![[r#"
        Gateway web/public: Accepted, Programmed [203.0.113.7] 0 sets
          tcp (TCPRoute) 1 routes: Accepted, Programmed, ResolvedRefs
          udp (UDPRoute) 1 routes: Accepted, Programmed, ResolvedRefs
          tls (TLSRoute) 1 routes: Accepted, Programmed, ResolvedRefs
        TCPRoute web/tcp:
          public *: Accepted, ResolvedRefs
        UDPRoute web/udp:
          public *: Accepted, ResolvedRefs
        TLSRoute web/tls:
          public tls: Accepted, ResolvedRefs
    "#]],
    );
}

#[test]
fn the_reasons_why_a_route_is_not_accepted() {
    let manifests = &(GATEWAY.to_owned()
        + "
kind: TCPRoute
metadata: { namespace: web, name: no-such-listener }
spec: { parentRefs: [{ name: public, sectionName: tcp, port: 9301 }], rules: [{ backendRefs: [{ name: blog, port: 443 }] }] }
---
kind: TCPRoute
metadata: { namespace: web, name: wrong-kind }
spec: { parentRefs: [{ name: public, sectionName: tls }], rules: [{ backendRefs: [{ name: blog, port: 443 }] }] }
---
kind: TCPRoute
metadata: { namespace: other, name: elsewhere }
spec: { parentRefs: [{ name: public, namespace: web }], rules: [{ backendRefs: [{ name: blog, namespace: web, port: 443 }] }] }
---
kind: TLSRoute
metadata: { namespace: web, name: other-name }
spec: { parentRefs: [{ name: public }], hostnames: [blog.example.net, example.com], rules: [{ backendRefs: [{ name: blog, port: 443 }] }] }
---
kind: TCPRoute
metadata: { namespace: web, name: nobody-knows }
spec: { parentRefs: [{ name: private }, { kind: Service, group: '', name: blog }], rules: [{ backendRefs: [{ name: blog, port: 443 }] }] }
---
kind: TCPRoute
metadata: { namespace: web, name: two-rules }
spec: { parentRefs: [{ name: public }], rules: [{ backendRefs: [{ name: blog, port: 443 }] }, { backendRefs: [{ name: shop, port: 443 }] }] }
");
    check(
        manifests,
        &expect![[r#"
        fra1 203.0.113.7 443/tcp -> nowhere for Gateway web/public listener tls
        fra1 203.0.113.7 9300/tcp -> nowhere for Gateway web/public listener tcp
        fra1 203.0.113.7 9300/udp -> nowhere for Gateway web/public listener udp
    "#]],
    );
    check_statuses(
        manifests,
        &expect![[r#"
            Gateway web/public: Accepted, Programmed [203.0.113.7] 0 sets
              tcp (TCPRoute) 0 routes: Accepted, Programmed, ResolvedRefs
              udp (UDPRoute) 0 routes: Accepted, Programmed, ResolvedRefs
              tls (TLSRoute) 0 routes: Accepted, Programmed, ResolvedRefs
            TCPRoute other/elsewhere:
              public *: not Accepted (NotAllowedByListeners: no listener of parent public takes a TCPRoute from namespace other; see allowedRoutes there), not ResolvedRefs (RefNotPermitted: no ReferenceGrant in namespace web allows a TCPRoute of namespace other to use Service blog)
            TCPRoute web/no-such-listener:
              public tcp: not Accepted (NoMatchingParent: parent public has no listener named tcp with port 9301; name one of its listeners), ResolvedRefs
            TCPRoute web/two-rules:
              public *: not Accepted (UnsupportedValue: it has more than one rule, and connections can follow only one), ResolvedRefs
            TCPRoute web/wrong-kind:
              public tls: not Accepted (NotAllowedByListeners: no listener of parent public takes a TCPRoute from namespace web; see allowedRoutes there), ResolvedRefs
            TLSRoute web/other-name:
              public *: not Accepted (NoMatchingListenerHostname: no listener of parent public has a hostname that one of spec.hostnames (blog.example.net, example.com) matches; name hosts of a listener, or change the listener's hostname), ResolvedRefs
        "#]],
    );
}

#[test]
fn invalid_backends_keep_their_share_and_are_told() {
    let manifests = &(GATEWAY.to_owned()
        + "
kind: TCPRoute
metadata: { namespace: web, name: mixed }
spec:
  parentRefs: [{ name: public }]
  rules:
  - backendRefs:
    - { name: blog, port: 443, weight: 70 }
    - { name: shop, port: 443, weight: 0 }
    - { name: nobody, port: 443 }
    - { name: blog, port: 444 }
    - { name: blog, port: 53 }
    - { name: blog, port: 443, kind: Bucket, group: example.com }
    - { name: db, namespace: data, port: 5432 }
    - { name: outside, port: 443 }
---
kind: Service
metadata: { namespace: web, name: outside }
spec: { type: ExternalName, externalName: example.com, ports: [{ port: 443 }] }
");
    expect![[r#"
        TCPRoute web/mixed/0: 70x 10.1.0.1:8443@n1 | 0x 10.1.0.2:8443@n2 | 1x invalid (there is no Service web/nobody) | 1x invalid (Service web/blog has no port 444/tcp) | 1x invalid (Service web/blog has no port 53/tcp) | 1x invalid (Bucket web/blog of group `example.com` is not a Service) | 1x invalid (no ReferenceGrant in namespace data allows a TCPRoute of namespace web to use Service db) | 1x invalid (Service web/outside is of type ExternalName, which leads out of the cluster)
    "#]].assert_eq(&backends(&published(manifests)));
    check_statuses(
        manifests,
        &expect![[r#"
        Gateway web/public: Accepted, Programmed [203.0.113.7] 0 sets
          tcp (TCPRoute) 1 routes: Accepted, Programmed, ResolvedRefs
          udp (UDPRoute) 0 routes: Accepted, Programmed, ResolvedRefs
          tls (TLSRoute) 0 routes: Accepted, Programmed, ResolvedRefs
        TCPRoute web/mixed:
          public *: Accepted, not ResolvedRefs (BackendNotFound: there is no Service web/nobody)
    "#]],
    );
}

#[test]
fn a_reference_into_another_namespace_needs_its_grant() {
    let world = |grant: &str| {
        GATEWAY.to_owned()
            + &format!(
                "
kind: TCPRoute
metadata: {{ namespace: web, name: db }}
spec: {{ parentRefs: [{{ name: public }}], rules: [{{ backendRefs: [{{ name: db, namespace: data, port: 5432 }}] }}] }}
---
kind: Service
metadata: {{ namespace: data, name: db }}
spec: {{ ports: [{{ port: 5432 }}] }}
---
kind: ReferenceGrant
metadata: {{ namespace: data, name: grant }}
spec: {grant}
"
            )
    };
    let resolved = |grant: &str| {
        let publication = published(&world(grant));
        backends(&publication)
    };
    let gateway = "gateway.networking.k8s.io";
    for good in [
        format!(
            "{{ from: [{{ group: {gateway}, kind: TCPRoute, namespace: web }}], to: [{{ group: '', kind: Service }}] }}"
        ),
        format!(
            "{{ from: [{{ group: {gateway}, kind: TCPRoute, namespace: web }}], to: [{{ group: '', kind: Service, name: db }}] }}"
        ),
    ] {
        assert_eq!(resolved(&good), "TCPRoute web/db/0: 1x no endpoint\n", "{good}");
    }
    for bad in [
        format!("{{ from: [{{ group: {gateway}, kind: UDPRoute, namespace: web }}], to: [{{ group: '', kind: Service }}] }}"),
        format!("{{ from: [{{ group: {gateway}, kind: TCPRoute, namespace: other }}], to: [{{ group: '', kind: Service }}] }}"),
        "{ from: [{ group: '', kind: TCPRoute, namespace: web }], to: [{ group: '', kind: Service }] }".to_owned(),
        format!("{{ from: [{{ group: {gateway}, kind: TCPRoute, namespace: web }}], to: [{{ group: '', kind: Secret }}] }}"),
        format!("{{ from: [{{ group: {gateway}, kind: TCPRoute, namespace: web }}], to: [{{ group: '', kind: Service, name: other }}] }}"),
    ] {
        expect!["TCPRoute web/db/0: 1x invalid (no ReferenceGrant in namespace data allows a TCPRoute of namespace web to use Service db)\n"]
            .assert_eq(&resolved(&bad));
    }
}

#[test]
fn of_two_routes_at_one_listener_the_older_one_gets_the_traffic_and_both_count() {
    let manifests = &(GATEWAY.to_owned()
        + "
kind: TCPRoute
metadata: { namespace: web, name: newer, creationTimestamp: 2026-01-02T00:00:00Z }
spec: { parentRefs: [{ name: public }], rules: [{ backendRefs: [{ name: shop, port: 443 }] }] }
---
kind: TCPRoute
metadata: { namespace: web, name: older, creationTimestamp: 2026-01-01T00:00:00Z }
spec: { parentRefs: [{ name: public }], rules: [{ backendRefs: [{ name: blog, port: 443 }] }] }
---
kind: TLSRoute
metadata: { namespace: web, name: newer, creationTimestamp: 2026-01-02T00:00:00Z }
spec: { parentRefs: [{ name: public }], hostnames: [a.example.com, b.example.com], rules: [{ backendRefs: [{ name: shop, port: 443 }] }] }
---
kind: TLSRoute
metadata: { namespace: web, name: older, creationTimestamp: 2026-01-01T00:00:00Z }
spec: { parentRefs: [{ name: public }], hostnames: [a.example.com], rules: [{ backendRefs: [{ name: blog, port: 443 }] }] }
");
    check(
        manifests,
        &expect![[r#"
        fra1 203.0.113.7 443/tcp -> { a.example.com TLSRoute web/older/0, b.example.com TLSRoute web/newer/0 } for Gateway web/public listener tls
        fra1 203.0.113.7 9300/tcp -> TCPRoute web/older/0 for Gateway web/public listener tcp
        fra1 203.0.113.7 9300/udp -> nowhere for Gateway web/public listener udp
    "#]],
    );
    check_statuses(
        manifests,
        &expect![[r#"
        Gateway web/public: Accepted, Programmed [203.0.113.7] 0 sets
          tcp (TCPRoute) 2 routes: Accepted, Programmed, ResolvedRefs
          udp (UDPRoute) 0 routes: Accepted, Programmed, ResolvedRefs
          tls (TLSRoute) 2 routes: Accepted, Programmed, ResolvedRefs
        TCPRoute web/newer:
          public *: Accepted, ResolvedRefs
        TCPRoute web/older:
          public *: Accepted, ResolvedRefs
        TLSRoute web/newer:
          public *: Accepted, ResolvedRefs
        TLSRoute web/older:
          public *: Accepted, ResolvedRefs
    "#]],
    );
}

#[test]
fn hostnames_intersect_and_listeners_are_isolated() {
    // The listener for `*.example.com` has a route for one name alone; what else is below that
    // domain must not fall to the listener for every name.
    check(
        "
kind: Gateway
metadata: { namespace: web, name: public }
spec:
  gatewayClassName: portcullis
  listeners:
  - { name: every, port: 443, protocol: TLS, tls: { mode: Passthrough } }
  - { name: domain, port: 443, protocol: TLS, hostname: '*.example.com', tls: { mode: Passthrough } }
  - { name: exact, port: 443, protocol: TLS, hostname: abc.example.com, tls: { mode: Passthrough } }
---
kind: TLSRoute
metadata: { namespace: web, name: wide }
spec: { parentRefs: [{ name: public, sectionName: every }], hostnames: ['*.com', x.example.com], rules: [{ backendRefs: [{ name: blog, port: 443 }] }] }
---
kind: TLSRoute
metadata: { namespace: web, name: narrow }
spec: { parentRefs: [{ name: public, sectionName: domain }], hostnames: [a.example.com], rules: [{ backendRefs: [{ name: shop, port: 443 }] }] }
---
kind: TLSRoute
metadata: { namespace: web, name: exact }
spec: { parentRefs: [{ name: public, sectionName: exact }], hostnames: ['*.example.com'], rules: [{ backendRefs: [{ name: shop, port: 443 }] }] }
",
        &expect![[r#"
            fra1 203.0.113.7 443/tcp -> { a.example.com TLSRoute web/narrow/0, abc.example.com TLSRoute web/exact/0, *.example.com nobody, *.com TLSRoute web/wide/0 } for Gateway web/public listener domain, Gateway web/public listener every, Gateway web/public listener exact
        "#]],
    );
}

#[test]
fn client_addresses_can_be_set_for_a_route_a_gateway_or_a_service() {
    let manifests = "
kind: Gateway
metadata: { namespace: web, name: public, annotations: { portcullis.dev/proxy-protocol: '9301=v2', portcullis.dev/allow-from: 10.0.0.0/8, portcullis.dev/max-open: '5' } }
spec:
  gatewayClassName: portcullis
  listeners: [{ name: a, port: 9300, protocol: TCP }, { name: b, port: 9301, protocol: TCP }, { name: c, port: 9302, protocol: TCP }]
---
kind: TCPRoute
metadata: { namespace: web, name: plain }
spec: { parentRefs: [{ name: public, port: 9300 }, { name: public, port: 9301 }], rules: [{ backendRefs: [{ name: mail, port: 25 }, { name: blog, port: 443 }] }] }
---
kind: TCPRoute
metadata: { namespace: web, name: own, annotations: { portcullis.dev/client-address: transparent } }
spec: { parentRefs: [{ name: public, port: 9302 }], rules: [{ backendRefs: [{ name: mail, port: 25 }] }] }
---
kind: Service
metadata: { namespace: web, name: mail, annotations: { portcullis.dev/proxy-protocol: v1 } }
spec: { ports: [{ port: 25 }] }
";
    check(
        manifests,
        &expect![[r#"
        fra1 203.0.113.7 9300/tcp -> TCPRoute web/plain/0 for Gateway web/public listener a from 10.0.0.0/8 at most 0/s, 5 open
        fra1 203.0.113.7 9301/tcp -> TCPRoute web/plain/0+proxy-v2 for Gateway web/public listener b from 10.0.0.0/8 at most 0/s, 5 open
        fra1 203.0.113.7 9302/tcp -> TCPRoute web/own/0+transparent for Gateway web/public listener c from 10.0.0.0/8 at most 0/s, 5 open
    "#]],
    );
    expect![[r#"
        TCPRoute web/own/0+transparent: 1x no endpoint transparent
        TCPRoute web/plain/0: 1x no endpoint proxy-v1 | 1x 10.1.0.1:8443@n1
        TCPRoute web/plain/0+proxy-v2: 1x no endpoint proxy-v2 | 1x 10.1.0.1:8443@n1 proxy-v2
    "#]]
    .assert_eq(&backends(&published(manifests)));
}
