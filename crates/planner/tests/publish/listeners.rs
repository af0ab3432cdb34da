//! Which listeners of Gateways and ListenerSets are sound.

use expect_test::expect;
use planner::publish::{Support, plan, statuses};

use crate::world::{BASE, all_well, check, check_statuses, objects, show_patch, view_for};

#[test]
fn protocols_that_are_not_supported_are_told_and_cost_only_themselves() {
    check_statuses(
        "
kind: Gateway
metadata: { namespace: infra, name: mixed, generation: 7 }
spec:
  gatewayClassName: portcullis
  listeners:
  - { name: http, port: 80, protocol: HTTP }
  - { name: https, port: 443, protocol: HTTPS, tls: { certificateRefs: [{ name: c, namespace: other }] } }
  - { name: odd, port: 1111, protocol: INVALID }
  - { name: ends, port: 8443, protocol: TLS, tls: { mode: Terminate, certificateRefs: [{ name: c }] } }
  - { name: port, port: 0, protocol: TCP }
  - { name: tcp, port: 80, protocol: TCP }
---
kind: Gateway
metadata: { namespace: infra, name: none }
spec: { gatewayClassName: portcullis, listeners: [{ name: http, port: 80, protocol: HTTP }] }
---
kind: Gateway
metadata: { namespace: infra, name: foreign }
spec: { gatewayClassName: other, listeners: [{ name: tcp, port: 81, protocol: TCP }] }
",
        &expect![[r#"
            Gateway infra/mixed: Accepted (ListenersNotValid: listener http: protocol HTTP is not supported; TCP, UDP and TLS are; listener https: protocol HTTPS is not supported; TCP, UDP and TLS are; listener odd: protocol INVALID is not supported; TCP, UDP and TLS are; listener ends: tls.mode Terminate is not supported; write Passthrough, and let the Pods end TLS; listener port: not a port between 1 and 65535), Programmed [203.0.113.7] 0 sets
              http () 0 routes: not Accepted (UnsupportedProtocol: protocol HTTP is not supported; TCP, UDP and TLS are), not Programmed (Invalid: protocol HTTP is not supported; TCP, UDP and TLS are), ResolvedRefs
              https () 0 routes: not Accepted (UnsupportedProtocol: protocol HTTPS is not supported; TCP, UDP and TLS are), not Programmed (Invalid: protocol HTTPS is not supported; TCP, UDP and TLS are), not ResolvedRefs (RefNotPermitted: no ReferenceGrant in namespace other allows a Gateway of namespace infra to use Secret c)
              odd () 0 routes: not Accepted (UnsupportedProtocol: protocol INVALID is not supported; TCP, UDP and TLS are), not Programmed (Invalid: protocol INVALID is not supported; TCP, UDP and TLS are), ResolvedRefs
              ends () 0 routes: not Accepted (UnsupportedValue: tls.mode Terminate is not supported; write Passthrough, and let the Pods end TLS), not Programmed (Invalid: tls.mode Terminate is not supported; write Passthrough, and let the Pods end TLS), ResolvedRefs
              port (TCPRoute) 0 routes: not Accepted (PortUnavailable: not a port between 1 and 65535), not Programmed (Invalid: not a port between 1 and 65535), ResolvedRefs
              tcp (TCPRoute) 0 routes: Accepted, Programmed, ResolvedRefs
            Gateway infra/none: not Accepted (ListenersNotValid: listener http: protocol HTTP is not supported; TCP, UDP and TLS are), not Programmed (Invalid: listener http: protocol HTTP is not supported; TCP, UDP and TLS are) [] 0 sets
              http () 0 routes: not Accepted (UnsupportedProtocol: protocol HTTP is not supported; TCP, UDP and TLS are), not Programmed (Invalid: protocol HTTP is not supported; TCP, UDP and TLS are), ResolvedRefs
        "#]],
    );
}

#[test]
fn kinds_that_do_not_fit_the_protocol_are_told() {
    check_statuses(
        "
kind: Gateway
metadata: { namespace: infra, name: kinds }
spec:
  gatewayClassName: portcullis
  listeners:
  - { name: none, port: 1, protocol: TCP, allowedRoutes: { kinds: [{ kind: UDPRoute }] } }
  - { name: some, port: 443, protocol: TLS, tls: { mode: Passthrough }, allowedRoutes: { kinds: [{ kind: TCPRoute }, { kind: TLSRoute }] } }
  - { name: group, port: 2, protocol: TCP, allowedRoutes: { kinds: [{ group: example.com, kind: TCPRoute }] } }
",
        &expect![[r#"
            Gateway infra/kinds: Accepted, Programmed [203.0.113.7] 0 sets
              none () 0 routes: Accepted, Programmed, not ResolvedRefs (InvalidRouteKinds: not taken by protocol TCP: UDPRoute)
              some (TLSRoute) 0 routes: Accepted, Programmed, not ResolvedRefs (InvalidRouteKinds: not taken by protocol TLS: TCPRoute)
              group () 0 routes: Accepted, Programmed, not ResolvedRefs (InvalidRouteKinds: not taken by protocol TCP: TCPRoute)
        "#]],
    );
}

#[test]
fn listeners_of_one_gateway_that_cannot_be_told_apart_all_lose() {
    check_statuses(
        "
kind: Gateway
metadata: { namespace: infra, name: conflicts }
spec:
  gatewayClassName: portcullis
  listeners:
  - { name: a, port: 443, protocol: TLS, hostname: a.example.com, tls: { mode: Passthrough } }
  - { name: b, port: 443, protocol: TLS, hostname: A.example.com, tls: { mode: Passthrough } }
  - { name: c, port: 443, protocol: TLS, hostname: c.example.com, tls: { mode: Passthrough } }
  - { name: d, port: 444, protocol: TLS, hostname: c.example.com, tls: { mode: Passthrough } }
  - { name: e, port: 444, protocol: TCP }
  - { name: f, port: 444, protocol: UDP }
",
        &expect![[r#"
            Gateway infra/conflicts: Accepted (ListenersNotValid: listener a: cannot be told apart from listener b; listener b: cannot be told apart from listener a; listener d: cannot be told apart from listener e; listener e: cannot be told apart from listener d), Programmed [203.0.113.7] 0 sets
              a (TLSRoute) 0 routes: not Accepted (HostnameConflict: cannot be told apart from listener b), not Programmed (HostnameConflict: cannot be told apart from listener b), ResolvedRefs, Conflicted (HostnameConflict: cannot be told apart from listener b)
              b (TLSRoute) 0 routes: not Accepted (HostnameConflict: cannot be told apart from listener a), not Programmed (HostnameConflict: cannot be told apart from listener a), ResolvedRefs, Conflicted (HostnameConflict: cannot be told apart from listener a)
              c (TLSRoute) 0 routes: Accepted, Programmed, ResolvedRefs
              d (TLSRoute) 0 routes: not Accepted (ProtocolConflict: cannot be told apart from listener e), not Programmed (ProtocolConflict: cannot be told apart from listener e), ResolvedRefs, Conflicted (ProtocolConflict: cannot be told apart from listener e)
              e (TCPRoute) 0 routes: not Accepted (ProtocolConflict: cannot be told apart from listener d), not Programmed (ProtocolConflict: cannot be told apart from listener d), ResolvedRefs, Conflicted (ProtocolConflict: cannot be told apart from listener d)
              f (UDPRoute) 0 routes: Accepted, Programmed, ResolvedRefs
        "#]],
    );
}

#[test]
fn listener_sets_add_listeners_where_they_may() {
    check_statuses(
        "
kind: Gateway
metadata: { namespace: infra, name: public }
spec:
  gatewayClassName: portcullis
  listeners: [{ name: own, port: 80, protocol: TCP }]
  allowedListeners: { namespaces: { from: Selector, selector: { matchLabels: { edge: 'yes' }, matchExpressions: [{ key: stage, operator: NotIn, values: [test] }] } } }
---
kind: Namespace
metadata: { name: web, labels: { edge: 'yes' } }
---
kind: Namespace
metadata: { name: stage, labels: { edge: 'yes', stage: test } }
---
kind: ListenerSet
metadata: { namespace: web, name: first, creationTimestamp: 2026-01-01T00:00:00Z, generation: 4 }
spec:
  parentRef: { name: public, namespace: infra }
  listeners: [{ name: taken, port: 80, protocol: TCP }, { name: more, port: 81, protocol: TCP }]
---
kind: ListenerSet
metadata: { namespace: web, name: second, creationTimestamp: 2026-01-02T00:00:00Z }
spec: { parentRef: { name: public, namespace: infra }, listeners: [{ name: taken, port: 81, protocol: TCP }] }
---
kind: ListenerSet
metadata: { namespace: stage, name: refused }
spec: { parentRef: { name: public, namespace: infra }, listeners: [{ name: more, port: 82, protocol: TCP }] }
---
kind: ListenerSet
metadata: { namespace: web, name: foreign }
spec: { parentRef: { name: other }, listeners: [{ name: more, port: 82, protocol: TCP }] }
---
kind: TCPRoute
metadata: { namespace: web, name: by-set }
spec: { parentRefs: [{ kind: ListenerSet, name: first }], rules: [{ backendRefs: [{ name: blog, port: 443 }] }] }
---
kind: TCPRoute
metadata: { namespace: web, name: by-gateway }
spec: { parentRefs: [{ name: public, namespace: infra, sectionName: more }], rules: [{ backendRefs: [{ name: blog, port: 443 }] }] }
",
        &expect![[r#"
            Gateway infra/public: Accepted, Programmed [203.0.113.7] 1 sets
              own (TCPRoute) 0 routes: Accepted, Programmed, ResolvedRefs
            ListenerSet stage/refused: not Accepted (NotAllowed: spec.allowedListeners of the Gateway does not allow this ListenerSet), not Programmed (NotAllowed: spec.allowedListeners of the Gateway does not allow this ListenerSet)
            ListenerSet web/first: Accepted (ListenersNotValid: some of its listeners are not valid), Programmed
              taken (TCPRoute) 1 routes: not Accepted (ProtocolConflict: a listener of the Gateway that comes first has this port), not Programmed (ProtocolConflict: a listener of the Gateway that comes first has this port), ResolvedRefs, Conflicted (ProtocolConflict: a listener of the Gateway that comes first has this port)
              more (TCPRoute) 1 routes: Accepted, Programmed, ResolvedRefs
            ListenerSet web/second: not Accepted (ListenersNotValid: none of its listeners is valid), not Programmed (ListenersNotValid: none of its listeners is valid)
              taken (TCPRoute) 0 routes: not Accepted (ProtocolConflict: a listener of the ListenerSet that comes first has this port), not Programmed (ProtocolConflict: a listener of the ListenerSet that comes first has this port), ResolvedRefs, Conflicted (ProtocolConflict: a listener of the ListenerSet that comes first has this port)
            TCPRoute web/by-gateway:
              public more: not Accepted (NoMatchingParent: parent public has no listener named more; name one of its listeners), ResolvedRefs
            TCPRoute web/by-set:
              first *: Accepted, ResolvedRefs
        "#]],
    );
}

#[test]
fn without_leave_there_are_no_listener_sets() {
    check_statuses(
        "
kind: Gateway
metadata: { namespace: infra, name: public }
spec: { gatewayClassName: portcullis, listeners: [{ name: own, port: 80, protocol: TCP }] }
---
kind: ListenerSet
metadata: { namespace: infra, name: refused }
spec: { parentRef: { name: public }, listeners: [{ name: more, port: 82, protocol: TCP }] }
",
        &expect![[r#"
            Gateway infra/public: Accepted, Programmed [203.0.113.7] 0 sets
              own (TCPRoute) 0 routes: Accepted, Programmed, ResolvedRefs
            ListenerSet infra/refused: not Accepted (NotAllowed: spec.allowedListeners of the Gateway does not allow this ListenerSet), not Programmed (NotAllowed: spec.allowedListeners of the Gateway does not allow this ListenerSet)
        "#]],
    );
}

#[test]
fn parameters_choose_the_edge_gateway_and_must_exist() {
    let more = "
kind: EdgeGateway
metadata: { name: ams1 }
spec: { endpoints: [{ host: ams1.example.com }] }
---
kind: GatewayClass
metadata: { name: ams }
spec: { controllerName: portcullis.dev/gateway-controller, parametersRef: { group: portcullis.dev, kind: EdgeGateway, name: ams1 } }
---
kind: GatewayClass
metadata: { name: broken }
spec: { controllerName: portcullis.dev/gateway-controller, parametersRef: { group: '', kind: ConfigMap, name: x, namespace: other } }
---
";
    let gateway = |name: &str, class: &str, port: u16, more: &str, annotation: &str| {
        format!(
            "
---
kind: Gateway
metadata: {{ namespace: infra, name: {name}, annotations: {{ {annotation} }} }}
spec: {{ gatewayClassName: {class}, listeners: [{{ name: tcp, port: {port}, protocol: TCP }}]{more} }}
"
        )
    };
    let refer = |name: &str| {
        format!(
            ", infrastructure: {{ parametersRef: {{ group: portcullis.dev, kind: EdgeGateway, name: {name} }} }}"
        )
    };
    let manifests = more.to_owned()
        + &gateway("everywhere", "portcullis", 1, "", "")
        + &gateway("by-class", "ams", 2, "", "")
        + &gateway("by-reference", "ams", 3, &refer("fra1"), "")
        + &gateway("by-annotation", "ams", 4, "", "portcullis.dev/gateway: 'fra1, gone'")
        + &gateway("nowhere", "portcullis", 5, &refer("gone"), "")
        + &gateway("of-broken", "broken", 6, "", "")
        + &gateway("all-gone", "ams", 7, "", "portcullis.dev/gateway: gone")
        + &gateway("odd", "ams", 8, "", "portcullis.dev/gateway: Fra1");
    check(
        &manifests,
        &expect![[r#"
        ams1 * 1/tcp -> nowhere for Gateway infra/everywhere listener tcp
        ams1 * 2/tcp -> nowhere for Gateway infra/by-class listener tcp
        fra1 203.0.113.7 1/tcp -> nowhere for Gateway infra/everywhere listener tcp
        fra1 203.0.113.7 3/tcp -> nowhere for Gateway infra/by-reference listener tcp
        fra1 203.0.113.7 4/tcp -> nowhere for Gateway infra/by-annotation listener tcp
        ! InvalidValue Gateway infra/odd: portcullis.dev/gateway: "Fra1": `Fra1` is not the name of an object: expected lower case letters, digits, - and .; nothing is published for it; write the names of EdgeGateway objects, separated by commas, or * for all
        ! UnknownGateway Gateway infra/all-gone: portcullis.dev/gateway: "gone": there is no EdgeGateway of this name; name one of: ams1, fra1; or write * for all
        ! UnknownGateway Gateway infra/by-annotation: portcullis.dev/gateway: "gone": there is no EdgeGateway of this name; name one of: ams1, fra1; or write * for all
    "#]],
    );
    check_statuses(
        &manifests,
        &expect![[r#"
            Gateway infra/all-gone: not Accepted (InvalidParameters: portcullis.dev/gateway: none of these EdgeGateways exists), not Programmed (Invalid: portcullis.dev/gateway: none of these EdgeGateways exists) [] 0 sets
              tcp (TCPRoute) 0 routes: Accepted, not Programmed (Invalid: portcullis.dev/gateway: none of these EdgeGateways exists), ResolvedRefs
            Gateway infra/by-annotation: Accepted, Programmed [203.0.113.7] 0 sets
              tcp (TCPRoute) 0 routes: Accepted, Programmed, ResolvedRefs
            Gateway infra/by-class: Accepted, Programmed [ams1.example.com] 0 sets
              tcp (TCPRoute) 0 routes: Accepted, Programmed, ResolvedRefs
            Gateway infra/by-reference: Accepted, Programmed [203.0.113.7] 0 sets
              tcp (TCPRoute) 0 routes: Accepted, Programmed, ResolvedRefs
            Gateway infra/everywhere: Accepted, Programmed [ams1.example.com 203.0.113.7] 0 sets
              tcp (TCPRoute) 0 routes: Accepted, Programmed, ResolvedRefs
            Gateway infra/nowhere: not Accepted (InvalidParameters: spec.infrastructure.parametersRef: there is no EdgeGateway `gone`), not Programmed (Invalid: spec.infrastructure.parametersRef: there is no EdgeGateway `gone`) [] 0 sets
              tcp (TCPRoute) 0 routes: Accepted, not Programmed (Invalid: spec.infrastructure.parametersRef: there is no EdgeGateway `gone`), ResolvedRefs
            Gateway infra/odd: not Accepted (Invalid: portcullis.dev/gateway: `Fra1` is not the name of an object: expected lower case letters, digits, - and .; nothing is published for it), not Programmed (Invalid: portcullis.dev/gateway: `Fra1` is not the name of an object: expected lower case letters, digits, - and .; nothing is published for it) [] 0 sets
              tcp (TCPRoute) 0 routes: Accepted, not Programmed (Invalid: portcullis.dev/gateway: `Fra1` is not the name of an object: expected lower case letters, digits, - and .; nothing is published for it), ResolvedRefs
            Gateway infra/of-broken: not Accepted (InvalidParameters: GatewayClass broken is not accepted: spec.parametersRef names ConfigMap other/x of group ``; it must name an EdgeGateway (group portcullis.dev, no namespace)), not Programmed (Invalid: GatewayClass broken is not accepted: spec.parametersRef names ConfigMap other/x of group ``; it must name an EdgeGateway (group portcullis.dev, no namespace)) [] 0 sets
              tcp (TCPRoute) 0 routes: Accepted, not Programmed (Invalid: GatewayClass broken is not accepted: spec.parametersRef names ConfigMap other/x of group ``; it must name an EdgeGateway (group portcullis.dev, no namespace)), ResolvedRefs
        "#]],
    );
}

#[test]
fn addresses_are_used_as_asked_or_told() {
    let gateway = |name: &str, port: u16, addresses: &str| {
        format!(
            "
---
kind: Gateway
metadata: {{ namespace: infra, name: {name} }}
spec: {{ gatewayClassName: portcullis, addresses: {addresses}, listeners: [{{ name: tcp, port: {port}, protocol: TCP }}] }}
"
        )
    };
    let manifests = gateway("good", 1, "[{ value: 203.0.113.7 }]")
        + &gateway("empty", 2, "[{ type: IPAddress }]")
        + &gateway("unusable", 3, "[{ value: 192.0.2.1 }, { value: 203.0.113.7 }]")
        + &gateway("unsupported", 4, "[{ type: example.com/pool, value: a }]");
    check_statuses(
        &manifests,
        &expect![[r#"
        Gateway infra/empty: Accepted, Programmed [203.0.113.7] 0 sets
          tcp (TCPRoute) 0 routes: Accepted, Programmed, ResolvedRefs
        Gateway infra/good: Accepted, Programmed [203.0.113.7] 0 sets
          tcp (TCPRoute) 0 routes: Accepted, Programmed, ResolvedRefs
        Gateway infra/unsupported: not Accepted (UnsupportedAddress: spec.addresses: type `example.com/pool` is not supported), not Programmed (Invalid: spec.addresses: type `example.com/pool` is not supported) [] 0 sets
          tcp (TCPRoute) 0 routes: Accepted, not Programmed (Invalid: spec.addresses: type `example.com/pool` is not supported), ResolvedRefs
        Gateway infra/unusable: Accepted, not Programmed (AddressNotUsable: none of its gateways offers 192.0.2.1; name an address of one) [203.0.113.7] 0 sets
          tcp (TCPRoute) 0 routes: Accepted, Programmed, ResolvedRefs
    "#]],
    );
}

#[test]
fn certificates_count_where_tls_ends() {
    let manifests = "
kind: Gateway
metadata: { namespace: infra, name: ends }
spec:
  gatewayClassName: portcullis
  listeners:
  - { name: good, port: 1, protocol: TLS, tls: { certificateRefs: [{ name: good }] } }
  - { name: granted, port: 2, protocol: TLS, tls: { certificateRefs: [{ name: good, namespace: web }] } }
  - { name: absent, port: 3, protocol: TLS, tls: { certificateRefs: [{ name: absent }] } }
  - { name: malformed, port: 4, protocol: TLS, tls: { certificateRefs: [{ name: malformed }] } }
  - { name: kind, port: 5, protocol: TLS, tls: { certificateRefs: [{ kind: ConfigMap, name: good }] } }
  - { name: group, port: 6, protocol: TLS, tls: { certificateRefs: [{ group: example.com, name: good }] } }
  - { name: forbidden, port: 7, protocol: TLS, tls: { certificateRefs: [{ name: other, namespace: web }] } }
  - { name: mixed, port: 1, protocol: TLS, hostname: x.example.com, tls: { mode: Passthrough } }
  - { name: apart, port: 8, protocol: TLS, hostname: x.example.com, tls: { certificateRefs: [{ name: good }] } }
---
kind: Secret
metadata: { namespace: infra, name: good }
type: kubernetes.io/tls
stringData: { tls.crt: \"-----BEGIN CERTIFICATE-----\\nMIIBAAECAwQ=\\n-----END CERTIFICATE-----\\n\", tls.key: \"-----BEGIN EC PRIVATE KEY-----\\nMHcCAQEEIA==\\n-----END EC PRIVATE KEY-----\\n\" }
---
kind: Secret
metadata: { namespace: web, name: good }
type: kubernetes.io/tls
stringData: { tls.crt: \"-----BEGIN CERTIFICATE-----\\nMIIBAAECAwQ=\\n-----END CERTIFICATE-----\\n\", tls.key: \"-----BEGIN EC PRIVATE KEY-----\\nMHcCAQEEIA==\\n-----END EC PRIVATE KEY-----\\n\" }
---
kind: Secret
metadata: { namespace: infra, name: malformed }
type: kubernetes.io/tls
data: { tls.crt: SGVsbG8gd29ybGQK, tls.key: SGVsbG8gd29ybGQK }
---
kind: ReferenceGrant
metadata: { namespace: web, name: grant }
spec: { from: [{ group: gateway.networking.k8s.io, kind: Gateway, namespace: infra }], to: [{ group: '', kind: Secret, name: good }] }
";
    let support = Support { terminate: true, ..Support::default() };
    let view = view_for(support, objects(BASE).into_iter().chain(objects(manifests)));
    let publication = plan(&view);
    let patches = statuses(&publication, &all_well(&publication));
    let gateway = patches.iter().find(|it| it.object().name == "ends").expect("its status");
    expect![[r#"
        Gateway infra/ends: Accepted, Programmed [203.0.113.7] 0 sets
          good (TLSRoute) 0 routes: Accepted, Programmed, ResolvedRefs
          granted (TLSRoute) 0 routes: Accepted, Programmed, ResolvedRefs
          absent (TLSRoute) 0 routes: Accepted, not Programmed (Invalid: Secret infra/absent does not exist, is not of type kubernetes.io/tls, or agents may not list and watch Secrets), not ResolvedRefs (InvalidCertificateRef: Secret infra/absent does not exist, is not of type kubernetes.io/tls, or agents may not list and watch Secrets)
          malformed (TLSRoute) 0 routes: Accepted, not Programmed (Invalid: Secret infra/malformed has no PEM certificate in `tls.crt`), not ResolvedRefs (InvalidCertificateRef: Secret infra/malformed has no PEM certificate in `tls.crt`)
          kind (TLSRoute) 0 routes: Accepted, not Programmed (Invalid: ConfigMap good of group `` is not a Secret), not ResolvedRefs (InvalidCertificateRef: ConfigMap good of group `` is not a Secret)
          group (TLSRoute) 0 routes: Accepted, not Programmed (Invalid: Secret good of group `example.com` is not a Secret), not ResolvedRefs (InvalidCertificateRef: Secret good of group `example.com` is not a Secret)
          forbidden (TLSRoute) 0 routes: Accepted, not Programmed (Invalid: no ReferenceGrant in namespace web allows a Gateway of namespace infra to use Secret other), not ResolvedRefs (RefNotPermitted: no ReferenceGrant in namespace web allows a Gateway of namespace infra to use Secret other)
          mixed (TLSRoute) 0 routes: Accepted, Programmed, ResolvedRefs
          apart (TLSRoute) 0 routes: Accepted, Programmed, ResolvedRefs
    "#]].assert_eq(&show_patch(gateway));
}
