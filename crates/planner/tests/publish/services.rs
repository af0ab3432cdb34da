//! Services that ask to be published, by class or by annotation.

use expect_test::expect;

use planner::publish::{StatusPatch, plan, statuses};

use crate::world::{
    BASE, all_well, backends, check, findings, objects, ports, published, show_patch, view,
};

#[test]
fn wb_07_a_service_of_our_class_is_published_port_by_port() {
    let manifests = "
kind: Service
metadata: { namespace: web, name: blog }
spec:
  type: LoadBalancer
  loadBalancerClass: portcullis.dev/gateway
  ports: [{ name: https, port: 443, targetPort: 8443 }, { name: dns, port: 53, protocol: UDP }]
";
    check(
        manifests,
        &expect![[r#"
        fra1 203.0.113.7 443/tcp -> tcp:web/blog:443 for Service web/blog
        fra1 203.0.113.7 53/udp -> udp:web/blog:53 for Service web/blog
    "#]],
    );
    expect![[r#"
        tcp:web/blog:443: 1x 10.1.0.1:8443@n1
        udp:web/blog:53: 1x 10.1.0.1:53@n1
    "#]]
    .assert_eq(&backends(&published(manifests)));
}

#[test]
fn services_of_other_classes_and_without_annotation_are_left_alone() {
    check(
        "
kind: Service
metadata: { namespace: web, name: other }
spec: { type: LoadBalancer, loadBalancerClass: portcullis.dev/host, ports: [{ port: 80 }] }
---
kind: Service
metadata: { namespace: web, name: classless }
spec: { type: LoadBalancer, ports: [{ port: 80 }] }
---
kind: Service
metadata: { namespace: web, name: cluster, annotations: { portcullis.dev/gateway-ports: '80' } }
spec: { ports: [{ port: 80 }] }
",
        &expect![[r#""#]],
    );
}

#[test]
fn annotations_publish_a_service_of_any_type() {
    let manifests = "
kind: Service
metadata:
  namespace: web
  name: blog
  annotations:
    portcullis.dev/gateway: '*'
    portcullis.dev/gateway-ports: '8080:443, 5353:53:udp'
    portcullis.dev/allow-from: 192.0.2.0/24, 2001:db8::/32
    portcullis.dev/max-new-per-second: '20'
    portcullis.dev/max-open: '100'
spec: { ports: [{ name: https, port: 443 }, { name: dns, port: 53, protocol: UDP }] }
";
    check(
        manifests,
        &expect![[r#"
        fra1 203.0.113.7 8080/tcp -> tcp:web/blog:443 for Service web/blog from 192.0.2.0/24, 2001:db8::/32 at most 20/s, 100 open
        fra1 203.0.113.7 5353/udp -> udp:web/blog:53 for Service web/blog from 192.0.2.0/24, 2001:db8::/32 at most 20/s, 100 open
    "#]],
    );
}

#[test]
fn wb_08_many_services_share_a_port_by_server_name() {
    check(
        "
kind: Service
metadata:
  namespace: web
  name: blog
  annotations: { portcullis.dev/gateway: fra1, portcullis.dev/hostnames: 'Blog.example.com, *.blog.example.com' }
spec: { ports: [{ name: https, port: 443 }] }
---
kind: Service
metadata:
  namespace: web
  name: shop
  annotations: { portcullis.dev/gateway: fra1, portcullis.dev/hostnames: '*.example.com' }
spec: { ports: [{ name: https, port: 443 }] }
",
        &expect![[r#"
            fra1 203.0.113.7 443/tcp -> { blog.example.com tcp:web/blog:443, *.blog.example.com tcp:web/blog:443, *.example.com tcp:web/shop:443 } for Service web/blog, Service web/shop
        "#]],
    );
}

#[test]
fn wb_08_client_addresses_are_part_of_the_key() {
    let manifests = "
kind: Service
metadata:
  namespace: web
  name: blog
  annotations: { portcullis.dev/gateway: fra1, portcullis.dev/proxy-protocol: 'v1, 443=v2' }
spec: { ports: [{ name: https, port: 443 }, { name: dns, port: 53, protocol: UDP }, { name: http, port: 80 }] }
---
kind: Service
metadata:
  namespace: web
  name: shop
  annotations: { portcullis.dev/gateway: fra1, portcullis.dev/gateway-ports: '8443:443', portcullis.dev/client-address: transparent }
spec: { externalTrafficPolicy: Local, sessionAffinity: ClientIP, ports: [{ name: https, port: 443 }] }
";
    check(
        manifests,
        &expect![[r#"
        fra1 203.0.113.7 80/tcp -> tcp:web/blog:80+proxy-v1 for Service web/blog
        fra1 203.0.113.7 443/tcp -> tcp:web/blog:443+proxy-v2 for Service web/blog
        fra1 203.0.113.7 8443/tcp -> tcp:web/shop:443+transparent for Service web/shop
        fra1 203.0.113.7 53/udp -> udp:web/blog:53 for Service web/blog
        ? ProxyProtocolWithoutUdp Service web/blog: portcullis.dev/proxy-protocol: "53/udp": version 1 of the PROXY protocol knows TCP alone; these ports get no header; write v2 for them
    "#]],
    );
    expect![[r#"
        tcp:web/blog:443+proxy-v2: 1x 10.1.0.1:8443@n1 proxy-v2
        tcp:web/blog:80+proxy-v1: 1x no endpoint proxy-v1
        tcp:web/shop:443+transparent: 1x 10.1.0.2:8443@n2 transparent local affine
        udp:web/blog:53: 1x 10.1.0.1:53@n1
    "#]]
    .assert_eq(&backends(&published(manifests)));
}

#[test]
fn wb_07_a_program_on_the_agents_own_machine_can_be_the_target() {
    let manifests = "
kind: Service
metadata:
  namespace: ingress
  name: nginx
  annotations: { portcullis.dev/gateway: fra1, portcullis.dev/target: host }
spec: { ports: [{ name: https, port: 443, targetPort: 8443 }, { name: http, port: 80, targetPort: web }] }
";
    check(
        manifests,
        &expect![[r#"
            fra1 203.0.113.7 80/tcp -> tcp:ingress/nginx:80+host for Service ingress/nginx
            fra1 203.0.113.7 443/tcp -> tcp:ingress/nginx:443+host for Service ingress/nginx
            ! UnsupportedValue Service ingress/nginx: spec.ports[].targetPort: "80/tcp": leads to a port by name, which only pods have; every visitor is refused; write the number of the port on the agent's own machine
        "#]],
    );
    expect![[r#"
        tcp:ingress/nginx:443+host: 1x own host 127.0.0.1:8443
        tcp:ingress/nginx:80+host: 1x invalid (targetPort of port 80 is not a number)
    "#]]
    .assert_eq(&backends(&published(manifests)));
}

#[test]
fn a_program_on_the_agents_own_machine_is_out_of_reach_unless_agents_may() {
    let manifests = "
kind: Service
metadata:
  namespace: ingress
  name: nginx
  annotations: { portcullis.dev/gateway: fra1, portcullis.dev/target: host }
spec: { ports: [{ name: https, port: 443, targetPort: 8443 }] }
";
    let mut view = view(objects(BASE).into_iter().chain(objects(manifests)));
    view.refuse_own_host();
    let publication = plan(&view);
    expect![[r#"
        tcp:ingress/nginx:443+host: 1x invalid (agents may not lead visitors to their own machines; start them with --allow-host-target)
        ! OwnHostNotAllowed Service ingress/nginx: portcullis.dev/target: "host": agents may not lead visitors to their own machines; every visitor is refused; start the agents with --allow-host-target, or leave the annotation out
    "#]].assert_eq(&(backends(&publication) + &findings(&publication.findings)));
}

#[test]
fn a_route_that_leads_to_the_agents_own_machine_says_so_itself() {
    let service = "
kind: Service
metadata: { namespace: web, name: nginx, annotations: { portcullis.dev/target: host } }
spec: { ports: [{ name: https, port: 443, targetPort: 8443 }] }
---
kind: Service
metadata: { namespace: web, name: local }
spec: { ports: [{ port: 8080 }] }
---
kind: EndpointSlice
metadata: { namespace: web, name: local-1, labels: { kubernetes.io/service-name: local } }
addressType: IPv4
endpoints: [{ addresses: [127.0.0.1] }]
ports: [{ name: '', port: 8080 }]
---
kind: Gateway
metadata: { namespace: web, name: public }
spec:
  gatewayClassName: portcullis
  listeners:
    - { name: tcp, port: 81, protocol: TCP }
    - { name: udp, port: 82, protocol: UDP }
    - { name: tls, port: 83, protocol: TLS, tls: { mode: Passthrough } }
";
    let route = |kind: &str, backend: &str, port: u16| {
        let listener = &kind[..3].to_lowercase();
        format!(
            "---\nkind: {kind}\nmetadata: {{ namespace: web, name: {listener}-{backend} }}\nspec: {{ \
             parentRefs: [{{ name: public, sectionName: {listener} }}], \
             rules: [{{ backendRefs: [{{ name: {backend}, port: {port} }}] }}] }}\n"
        )
    };
    let manifests = service.to_owned()
        + &route("TCPRoute", "nginx", 443)
        + &route("TLSRoute", "nginx", 443)
        + &route("TCPRoute", "local", 8080);
    let udp = service.replace("port: 443,", "port: 443, protocol: UDP,");
    let mut told = String::new();
    for manifests in [manifests, udp + &route("UDPRoute", "nginx", 443)] {
        let mut view = view(objects(BASE).into_iter().chain(objects(&manifests)));
        view.refuse_own_host();
        let publication = plan(&view);
        told += &findings(&publication.findings);
        let patches = statuses(&publication, &all_well(&publication));
        let routes =
            patches.iter().filter(|it| matches!(it, StatusPatch::Route { .. })).map(show_patch);
        told.extend(routes);
    }
    expect![[r#"
        ! OwnHostNotAllowed TCPRoute web/tcp-nginx: spec.rules[].backendRefs: "Service web/nginx": has portcullis.dev/target: "host": agents may not lead visitors to their own machines; every visitor is refused; for that Service: start the agents with --allow-host-target, or leave the annotation out
        ! OwnHostNotAllowed TLSRoute web/tls-nginx: spec.rules[].backendRefs: "Service web/nginx": has portcullis.dev/target: "host": agents may not lead visitors to their own machines; every visitor is refused; for that Service: start the agents with --allow-host-target, or leave the annotation out
        ? UnusableEndpoint TCPRoute web/tcp-local: spec.rules[].backendRefs: "Service web/local": has endpoints[].addresses: "127.0.0.1": no other machine can reach such an address; these endpoints are left out; for that Service: write portcullis.dev/target: host for a program on the agent's own machine, or an address that agents can reach
        TCPRoute web/tcp-local:
          public tcp: Accepted, ResolvedRefs
        TCPRoute web/tcp-nginx:
          public tcp: Accepted, not ResolvedRefs (OwnHostNotAllowed: Service web/nginx has portcullis.dev/target: "host": agents may not lead visitors to their own machines; every visitor is refused)
        TLSRoute web/tls-nginx:
          public tls: Accepted, not ResolvedRefs (OwnHostNotAllowed: Service web/nginx has portcullis.dev/target: "host": agents may not lead visitors to their own machines; every visitor is refused)
        ! OwnHostNotAllowed UDPRoute web/udp-nginx: spec.rules[].backendRefs: "Service web/nginx": has portcullis.dev/target: "host": agents may not lead visitors to their own machines; every visitor is refused; for that Service: start the agents with --allow-host-target, or leave the annotation out
        UDPRoute web/udp-nginx:
          public udp: Accepted, not ResolvedRefs (OwnHostNotAllowed: Service web/nginx has portcullis.dev/target: "host": agents may not lead visitors to their own machines; every visitor is refused)
    "#]].assert_eq(&told);
}

#[test]
fn endpoints_that_no_agent_can_reach_are_told() {
    check(
        "
kind: Service
metadata: { namespace: web, name: local, annotations: { portcullis.dev/gateway: fra1 } }
spec: { ports: [{ port: 8080 }] }
---
kind: EndpointSlice
metadata: { namespace: web, name: local-1, labels: { kubernetes.io/service-name: local } }
addressType: IPv4
endpoints: [{ addresses: [127.0.0.1] }, { addresses: [10.1.0.9] }]
ports: [{ name: '', port: 8080 }]
",
        &expect![[r#"
            fra1 203.0.113.7 8080/tcp -> tcp:web/local:8080 for Service web/local
            ? UnusableEndpoint Service web/local: endpoints[].addresses: "127.0.0.1": no other machine can reach such an address; these endpoints are left out; write portcullis.dev/target: host for a program on the agent's own machine, or an address that agents can reach
        "#]],
    );
}

#[test]
fn what_a_user_got_wrong_is_told_and_publishes_nothing() {
    check(
        "
kind: Service
metadata: { namespace: web, name: a, annotations: { portcullis.dev/gateway: 'fra1,ams1' } }
spec: { ports: [{ port: 80 }] }
---
kind: Service
metadata: { namespace: web, name: b, annotations: { portcullis.dev/gateway: fra1, portcullis.dev/gateway-ports: '81:9, 82:80:sctp' } }
spec: { ports: [{ port: 80 }] }
---
kind: Service
metadata: { namespace: web, name: c, annotations: { portcullis.dev/gateway: fra1, portcullis.dev/gateway-ports: '83:9' } }
spec: { ports: [{ port: 80 }] }
---
kind: Service
metadata: { namespace: web, name: d, annotations: { portcullis.dev/gateway: fra1, portcullis.dev/hostnames: 192.0.2.1 } }
spec: { ports: [{ port: 84 }] }
---
kind: Service
metadata: { namespace: web, name: e, annotations: { portcullis.dev/gateway: fra1, portcullis.dev/proxy-protocol: v2, portcullis.dev/client-address: transparent } }
spec: { ports: [{ port: 85 }] }
---
kind: Service
metadata: { namespace: web, name: f, annotations: { portcullis.dev/gateway: fra1, portcullis.dev/max-open: '0', portcullis.dev/target: pod } }
spec: { ports: [{ port: 86 }] }
---
kind: Service
metadata: { namespace: web, name: g, annotations: { portcullis.dev/allow-from: 192.0.2.0/24 } }
spec: { type: LoadBalancer, loadBalancerClass: portcullis.dev/gateway, loadBalancerSourceRanges: [10.0.0.0/8], ports: [{ port: 87 }] }
---
kind: Service
metadata: { namespace: web, name: h, annotations: { portcullis.dev/gateway: fra1 } }
spec: { ports: [{ port: 88, protocol: SCTP }] }
",
        &expect![[r#"
            fra1 203.0.113.7 80/tcp -> tcp:web/a:80 for Service web/a
            ! InvalidValue Service web/b: portcullis.dev/gateway-ports: "81:9, 82:80:sctp": port 82 asks for SCTP, which tunnels do not carry; nothing is published for it; write tcp or udp, or leave the port out
            ! InvalidValue Service web/d: portcullis.dev/hostnames: "192.0.2.1": `192.0.2.1` is not a host name such as www.example.com or *.example.com; nothing is published for it; write host names such as blog.example.com or *.apps.example.com, separated by commas
            ! InvalidValue Service web/e: portcullis.dev/client-address: "transparent": together with proxy-protocol it leaves open how backends learn who the visitor is; nothing is published for it; keep one of the two annotations
            ! InvalidValue Service web/f: portcullis.dev/max-open: "0": expected a number between 1 and 4294967295; nothing is published for it; write a number, or leave it out for any number
            ! InvalidValue Service web/f: portcullis.dev/target: "pod": expected host; nothing is published for it; write host to reach programs on the agent's own machine, or leave it out
            ! MissingServicePort Service web/c: portcullis.dev/gateway-ports: "83/tcp": no port of this Service says where it leads; not published; write PUBLIC:SERVICE with a port of the Service, such as 443:8443
            ! NobodyAllowed Service web/g: spec.loadBalancerSourceRanges: "10.0.0.0/8": shares no address with the annotation's list (192.0.2.0/24); nobody is allowed, so nothing is published; keep one of the two lists, or make them overlap
            ! UnknownGateway Service web/a: portcullis.dev/gateway: "ams1": there is no EdgeGateway of this name; name one of: fra1; or write * for all
            ! UnsupportedProtocol Service web/h: spec.ports: "88/sctp": tunnels do not carry SCTP; not published; name the other ports in portcullis.dev/gateway-ports
        "#]],
    );
}

#[test]
fn wb_10_the_older_service_gets_the_port_and_the_other_learns_from_whom() {
    check(
        "
kind: Service
metadata: { namespace: web, name: a, creationTimestamp: 2026-01-02T00:00:00Z, annotations: { portcullis.dev/gateway: fra1 } }
spec: { ports: [{ port: 80 }, { name: b, port: 81 }, { name: u, port: 80, protocol: UDP }] }
---
kind: Service
metadata: { namespace: web, name: z, creationTimestamp: 2026-01-01T00:00:00Z, annotations: { portcullis.dev/gateway: fra1 } }
spec: { ports: [{ port: 80 }] }
---
kind: Service
metadata: { namespace: web, name: names, creationTimestamp: 2026-01-03T00:00:00Z, annotations: { portcullis.dev/gateway: fra1, portcullis.dev/hostnames: a.example.com } }
spec: { ports: [{ port: 80 }, { name: tls, port: 443 }] }
---
kind: Service
metadata: { namespace: web, name: same, creationTimestamp: 2026-01-04T00:00:00Z, annotations: { portcullis.dev/gateway: fra1, portcullis.dev/hostnames: 'a.example.com, b.example.com' } }
spec: { ports: [{ port: 443 }] }
---
kind: Service
metadata: { namespace: web, name: listed, creationTimestamp: 2026-01-05T00:00:00Z, annotations: { portcullis.dev/gateway: fra1, portcullis.dev/hostnames: c.example.com, portcullis.dev/allow-from: 10.0.0.0/8 } }
spec: { ports: [{ port: 443 }] }
",
        &expect![[r#"
            fra1 203.0.113.7 80/tcp -> tcp:web/z:80 for Service web/z
            fra1 203.0.113.7 81/tcp -> tcp:web/a:81 for Service web/a
            fra1 203.0.113.7 443/tcp -> { a.example.com tcp:web/names:443, b.example.com tcp:web/same:443 } for Service web/names, Service web/same
            fra1 203.0.113.7 80/udp -> udp:web/a:80 for Service web/a
            ! PortConflict Service web/a: spec.ports: "80/tcp": taken at 203.0.113.7 of gateway fra1 by Service web/z, which comes first (the older object, then by kind, namespace and name); not published there; choose another port, another gateway with portcullis.dev/gateway, or other host names
            ! PortConflict Service web/listed: spec.ports: "443/tcp": shared at 203.0.113.7 of gateway fra1 with Service web/names, which comes first and lets in others or sets other limits; a port has one allow list, so it is not published there; make allow lists and limits the same, or choose another port or gateway
            ! PortConflict Service web/names: spec.ports: "80/tcp": taken at 203.0.113.7 of gateway fra1 by Service web/z, which comes first (the older object, then by kind, namespace and name); not published there; choose another port, another gateway with portcullis.dev/gateway, or other host names
            ! PortConflict Service web/same: portcullis.dev/hostnames: "a.example.com (443/tcp)": taken at 203.0.113.7 of gateway fra1 by Service web/names, which comes first (the older object, then by kind, namespace and name); not published there; choose another port, another gateway with portcullis.dev/gateway, or other host names
        "#]],
    );
}

#[test]
fn a_service_that_cannot_be_understood_keeps_its_last_good_state() {
    use planner::object::Change;
    use planner::publish::plan;

    use crate::world::{BASE, objects, view};
    let service = |ports: &str| {
        objects(&format!(
            "
kind: Service
metadata:
  {{ namespace: web, name: blog, annotations: {{ portcullis.dev/gateway: fra1, portcullis.dev/gateway-ports: '{ports}' }} }}
spec: {{ ports: [{{ name: https, port: 443 }}] }}
"
        ))
    };
    let mut view = view(objects(BASE).into_iter().chain(service("443")));
    let before = ports(&plan(&view));
    for object in service("x") {
        assert!(view.change(Change::Applied(object)));
    }
    assert_eq!(ports(&plan(&view)), before);
    expect![[r#"
        ! InvalidValue Service web/blog: portcullis.dev/gateway-ports: "x": `x` in `x` is not a port between 1 and 65535; its last good state stays in effect; write entries such as 443, 443:8443, 53:udp or 53:5353:udp, separated by commas
    "#]].assert_eq(&findings(&plan(&view).findings));
    for object in service("444:443") {
        assert!(view.change(Change::Applied(object)));
    }
    expect![[r#"
        fra1 203.0.113.7 444/tcp -> tcp:web/blog:443 for Service web/blog
    "#]]
    .assert_eq(&ports(&plan(&view)));
}
