//! Listeners of protocol HTTP and HTTPS, and where TLS ends.

use expect_test::{Expect, expect};
use planner::publish::{Publication, StatusPatch, Support, plan, statuses};

use crate::world::{BASE, all_well, backends, objects, ports, show_patch, view_for};

const CERTIFICATES: &str = "
---
kind: Secret
metadata: { namespace: infra, name: wildcard }
type: kubernetes.io/tls
stringData: { tls.crt: \"-----BEGIN CERTIFICATE-----\\nMIIBAAECAwQ=\\n-----END CERTIFICATE-----\\n\", tls.key: \"-----BEGIN EC PRIVATE KEY-----\\nMHcCAQEEIA==\\n-----END EC PRIVATE KEY-----\\n\" }
---
kind: Secret
metadata: { namespace: infra, name: second }
type: kubernetes.io/tls
stringData: { tls.crt: \"-----BEGIN CERTIFICATE-----\\nMIIBAAECAwQ=\\n-----END CERTIFICATE-----\\n\", tls.key: \"-----BEGIN EC PRIVATE KEY-----\\nMHcCAQEEIA==\\n-----END EC PRIVATE KEY-----\\n\" }
";

#[test]
fn requests_are_carried_unread_where_no_look_into_them_is_needed() {
    check(
        "
kind: Gateway
metadata: { namespace: infra, name: public }
spec: { gatewayClassName: portcullis, listeners: [{ name: http, port: 80, protocol: HTTP, allowedRoutes: { namespaces: { from: All } } }] }
---
kind: HTTPRoute
metadata: { namespace: web, name: all, creationTimestamp: 2026-01-01T00:00:00Z }
spec: { parentRefs: [{ name: public, namespace: infra }], rules: [{ name: only, matches: [{ path: { type: PathPrefix, value: / } }], backendRefs: [{ name: blog, port: 443 }] }] }
---
kind: HTTPRoute
metadata: { namespace: web, name: younger, creationTimestamp: 2026-01-02T00:00:00Z }
spec: { parentRefs: [{ name: public, namespace: infra }], rules: [{ backendRefs: [{ name: shop, port: 443 }] }] }
---
kind: HTTPRoute
metadata: { namespace: web, name: by-host }
spec: { parentRefs: [{ name: public, namespace: infra }], hostnames: [blog.example.com], rules: [{ backendRefs: [{ name: blog, port: 443 }] }] }
---
kind: HTTPRoute
metadata: { namespace: web, name: by-path }
spec: { parentRefs: [{ name: public, namespace: infra }], rules: [{ matches: [{ path: { type: PathPrefix, value: /api } }], backendRefs: [{ name: blog, port: 443 }] }] }
---
kind: HTTPRoute
metadata: { namespace: web, name: by-header }
spec: { parentRefs: [{ name: public, namespace: infra }], rules: [{ matches: [{ headers: [{ name: a, value: b }] }], backendRefs: [{ name: blog, port: 443 }] }] }
---
kind: HTTPRoute
metadata: { namespace: web, name: filtering }
spec: { parentRefs: [{ name: public, namespace: infra }], rules: [{ filters: [{ type: RequestRedirect }], backendRefs: [{ name: blog, port: 443 }] }] }
---
kind: HTTPRoute
metadata: { namespace: web, name: two-rules }
spec: { parentRefs: [{ name: public, namespace: infra }], rules: [{ backendRefs: [{ name: blog, port: 443 }] }, { backendRefs: [{ name: shop, port: 443 }] }] }
",
        &expect![[r#"
            fra1 203.0.113.7 80/tcp -> HTTPRoute web/all/0 for Gateway infra/public listener http
            HTTPRoute web/all/0: 1x 10.1.0.1:8443@n1
            Gateway infra/public: Accepted, Programmed [203.0.113.7] 0 sets
              http (HTTPRoute) 2 routes: Accepted, Programmed, ResolvedRefs
            HTTPRoute web/all:
              public *: Accepted, ResolvedRefs
            HTTPRoute web/by-header:
              public *: not Accepted (UnsupportedValue: `matches` needs a look into requests, and connections are forwarded unread), ResolvedRefs
            HTTPRoute web/by-host:
              public *: not Accepted (UnsupportedValue: not served by listener http: only a look into each request could tell host names apart, and connections of protocol HTTP are forwarded unread; use protocol HTTPS, or leave out the hostnames), ResolvedRefs
            HTTPRoute web/by-path:
              public *: not Accepted (UnsupportedValue: `matches` needs a look into requests, and connections are forwarded unread), ResolvedRefs
            HTTPRoute web/filtering:
              public *: not Accepted (UnsupportedValue: `filters` needs a look into requests, and connections are forwarded unread), ResolvedRefs
            HTTPRoute web/two-rules:
              public *: not Accepted (UnsupportedValue: it has more than one rule, and connections can follow only one), ResolvedRefs
            HTTPRoute web/younger:
              public *: Accepted, ResolvedRefs
        "#]],
    );
}

#[test]
fn where_hostnames_share_a_port_without_tls_nobody_gets_the_requests_of_others() {
    check(
        "
kind: Gateway
metadata: { namespace: infra, name: public }
spec:
  gatewayClassName: portcullis
  allowedListeners: { namespaces: { from: Same } }
  listeners:
  - { name: every, port: 80, protocol: HTTP, allowedRoutes: { namespaces: { from: All } } }
  - { name: alone, port: 8080, protocol: HTTP, allowedRoutes: { namespaces: { from: All } } }
  - { name: same, port: 80, protocol: HTTP, hostname: one.example.com }
  - { name: again, port: 80, protocol: HTTP, hostname: one.example.com }
---
kind: ListenerSet
metadata: { namespace: infra, name: more }
spec: { parentRef: { name: public }, listeners: [{ name: two, port: 80, protocol: HTTP, hostname: two.example.com }, { name: raw, port: 8080, protocol: TCP }] }
---
kind: HTTPRoute
metadata: { namespace: web, name: everywhere }
spec: { parentRefs: [{ name: public, namespace: infra }], rules: [{ backendRefs: [{ name: blog, port: 443 }] }] }
---
kind: HTTPRoute
metadata: { namespace: web, name: shared }
spec: { parentRefs: [{ name: public, namespace: infra, sectionName: every }], rules: [{ backendRefs: [{ name: blog, port: 443 }] }] }
",
        &expect![[r#"
            fra1 203.0.113.7 80/tcp -> nowhere for Gateway infra/public listener every, ListenerSet infra/more listener two
            fra1 203.0.113.7 8080/tcp -> HTTPRoute web/everywhere/0 for Gateway infra/public listener alone
            HTTPRoute web/everywhere/0: 1x 10.1.0.1:8443@n1
            Gateway infra/public: Accepted (ListenersNotValid: listener same: cannot be told apart from listener again; listener again: cannot be told apart from listener same), Programmed [203.0.113.7] 1 sets
              every (HTTPRoute) 1 routes: Accepted, Programmed (Programmed: connections are refused: only a look into each request could tell host names apart, and connections of protocol HTTP are forwarded unread; use protocol HTTPS, or leave out the hostnames), ResolvedRefs
              alone (HTTPRoute) 1 routes: Accepted, Programmed, ResolvedRefs
              same (HTTPRoute) 0 routes: not Accepted (HostnameConflict: cannot be told apart from listener again), not Programmed (HostnameConflict: cannot be told apart from listener again), ResolvedRefs, Conflicted (HostnameConflict: cannot be told apart from listener again)
              again (HTTPRoute) 0 routes: not Accepted (HostnameConflict: cannot be told apart from listener same), not Programmed (HostnameConflict: cannot be told apart from listener same), ResolvedRefs, Conflicted (HostnameConflict: cannot be told apart from listener same)
            ListenerSet infra/more: Accepted (ListenersNotValid: some of its listeners are not valid), Programmed
              two (HTTPRoute) 0 routes: Accepted, Programmed (Programmed: connections are refused: only a look into each request could tell host names apart, and connections of protocol HTTP are forwarded unread; use protocol HTTPS, or leave out the hostnames), ResolvedRefs
              raw (TCPRoute) 0 routes: not Accepted (ProtocolConflict: a listener of the Gateway that comes first has this port), not Programmed (ProtocolConflict: a listener of the Gateway that comes first has this port), ResolvedRefs, Conflicted (ProtocolConflict: a listener of the Gateway that comes first has this port)
            HTTPRoute web/everywhere:
              public *: Accepted (Accepted: not served by listener every: only a look into each request could tell host names apart, and connections of protocol HTTP are forwarded unread; use protocol HTTPS, or leave out the hostnames), ResolvedRefs
            HTTPRoute web/shared:
              public every: not Accepted (UnsupportedValue: not served by listener every: only a look into each request could tell host names apart, and connections of protocol HTTP are forwarded unread; use protocol HTTPS, or leave out the hostnames), ResolvedRefs
        "#]],
    );
}

#[test]
fn tls_ends_by_the_names_in_greetings() {
    check(
        &format!(
            "
kind: Gateway
metadata: {{ namespace: infra, name: public }}
spec:
  gatewayClassName: portcullis
  listeners:
  - {{ name: every, port: 443, protocol: HTTPS, allowedRoutes: {{ namespaces: {{ from: All }} }}, tls: {{ certificateRefs: [{{ name: wildcard }}, {{ name: second }}] }} }}
  - {{ name: apps, port: 443, protocol: HTTPS, hostname: '*.apps.example.com', allowedRoutes: {{ namespaces: {{ from: All }} }}, tls: {{ certificateRefs: [{{ name: wildcard }}] }} }}
  - {{ name: ends, port: 8443, protocol: TLS, hostname: tls.example.com, allowedRoutes: {{ namespaces: {{ from: All }} }}, tls: {{ mode: Terminate, certificateRefs: [{{ name: second }}] }} }}
  - {{ name: goes, port: 8443, protocol: TLS, hostname: '*.example.com', allowedRoutes: {{ namespaces: {{ from: All }} }}, tls: {{ mode: Passthrough }} }}
  - {{ name: lacks, port: 9443, protocol: HTTPS, tls: {{ certificateRefs: [{{ name: absent }}] }} }}
---
kind: HTTPRoute
metadata: {{ namespace: web, name: blog }}
spec: {{ parentRefs: [{{ name: public, namespace: infra }}], hostnames: [blog.example.com, blog.apps.example.com], rules: [{{ backendRefs: [{{ name: blog, port: 443 }}] }}] }}
---
kind: HTTPRoute
metadata: {{ namespace: web, name: rest }}
spec: {{ parentRefs: [{{ name: public, namespace: infra, sectionName: every }}], rules: [{{ backendRefs: [{{ name: shop, port: 443 }}] }}] }}
---
kind: TLSRoute
metadata: {{ namespace: web, name: raw }}
spec: {{ parentRefs: [{{ name: public, namespace: infra }}], hostnames: [tls.example.com], rules: [{{ backendRefs: [{{ name: blog, port: 443 }}] }}] }}
---
kind: TLSRoute
metadata: {{ namespace: web, name: unbroken }}
spec: {{ parentRefs: [{{ name: public, namespace: infra, sectionName: goes }}], rules: [{{ backendRefs: [{{ name: shop, port: 443 }}] }}] }}
{CERTIFICATES}"
        ),
        &expect![[r#"
            fra1 203.0.113.7 443/tcp -> { blog.apps.example.com HTTPRoute web/blog/0+https:infra/wildcard, blog.example.com HTTPRoute web/blog/0+https:infra/wildcard,infra/second, *.apps.example.com nobody, * HTTPRoute web/rest/0+https:infra/wildcard,infra/second } for Gateway infra/public listener apps, Gateway infra/public listener every
            fra1 203.0.113.7 8443/tcp -> { tls.example.com TLSRoute web/raw/0+tls:infra/second, *.example.com TLSRoute web/unbroken/0 } for Gateway infra/public listener ends, Gateway infra/public listener goes
            HTTPRoute web/blog/0+https:infra/wildcard: 1x 10.1.0.1:8443@n1
            HTTPRoute web/blog/0+https:infra/wildcard,infra/second: 1x 10.1.0.1:8443@n1
            HTTPRoute web/rest/0+https:infra/wildcard,infra/second: 1x 10.1.0.2:8443@n2
            TLSRoute web/raw/0+tls:infra/second: 1x 10.1.0.1:8443@n1
            TLSRoute web/unbroken/0: 1x 10.1.0.2:8443@n2
            Gateway infra/public: Accepted, Programmed [203.0.113.7] 0 sets
              every (HTTPRoute) 2 routes: Accepted, Programmed, ResolvedRefs
              apps (HTTPRoute) 1 routes: Accepted, Programmed, ResolvedRefs
              ends (TLSRoute) 1 routes: Accepted, Programmed, ResolvedRefs
              goes (TLSRoute) 2 routes: Accepted, Programmed, ResolvedRefs
              lacks (HTTPRoute) 0 routes: Accepted, not Programmed (Invalid: Secret infra/absent does not exist, is not of type kubernetes.io/tls, or agents may not list and watch Secrets), not ResolvedRefs (InvalidCertificateRef: Secret infra/absent does not exist, is not of type kubernetes.io/tls, or agents may not list and watch Secrets)
            TLSRoute web/raw:
              public *: Accepted, ResolvedRefs
            TLSRoute web/unbroken:
              public goes: Accepted, ResolvedRefs
            HTTPRoute web/blog:
              public *: Accepted, ResolvedRefs
            HTTPRoute web/rest:
              public every: Accepted, ResolvedRefs
        "#]],
    );
}

#[test]
fn a_certificate_that_turns_out_useless_is_told_until_its_secret_changes() {
    let gateway = "
kind: Gateway
metadata: { namespace: infra, name: public }
spec: { gatewayClassName: portcullis, listeners: [{ name: https, port: 443, protocol: HTTPS, tls: { certificateRefs: [{ name: wildcard }] } }] }
";
    let all = format!("{BASE}---{gateway}{CERTIFICATES}");
    let mut view = view_for(BOTH, objects(&all));
    let secret = objects(&all).into_iter().find(|it| it.reference().name == "wildcard");
    let secret = secret.expect("it is there");
    assert!(view.refuse_certificate(&secret.reference(), "cannot end TLS: too old"));
    assert!(!view.refuse_certificate(&secret.reference(), "cannot end TLS: too old"));
    expect![[r#"
        Gateway infra/public: Accepted, not Programmed (Invalid: none of its listeners can be opened: certificates are missing) [] 0 sets
          https (HTTPRoute) 0 routes: Accepted, not Programmed (Invalid: Secret infra/wildcard cannot end TLS: too old), not ResolvedRefs (InvalidCertificateRef: Secret infra/wildcard cannot end TLS: too old)
    "#]].assert_eq(&told(&plan(&view)));
    assert!(view.change(planner::object::Change::Applied(secret)));
    expect![[r#"
        Gateway infra/public: Accepted, Programmed [203.0.113.7] 0 sets
          https (HTTPRoute) 0 routes: Accepted, Programmed, ResolvedRefs
    "#]]
    .assert_eq(&told(&plan(&view)));
}

const BOTH: Support = Support { http: true, terminate: true };

/// Compares ports, backends and the statuses of the kinds of the Gateway API, for manifests beside
/// [`BASE`].
#[track_caller]
fn check(manifests: &str, expected: &Expect) {
    let world = objects(BASE).into_iter().chain(objects(manifests));
    let publication = plan(&view_for(BOTH, world));
    expected.assert_eq(&format!(
        "{}{}{}",
        ports(&publication),
        backends(&publication),
        told(&publication)
    ));
}

fn told(publication: &Publication) -> String {
    let patches = statuses(publication, &all_well(publication));
    let told = patches.iter().filter(|it| {
        !matches!(it, StatusPatch::EdgeGateway { .. } | StatusPatch::GatewayClass { .. })
    });
    told.map(show_patch).collect()
}
