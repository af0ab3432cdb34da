//! What Services ask for, and what they get.

use expect_test::expect;

use crate::objects::{IntoObject, Named, ServiceParts, host, node, service, slice};
use crate::world::{check, edge, forwards, plain, plan, view};

#[test]
fn a_plan_reads_from_entry_to_targets() {
    let blog = service("web/blog").port(443, 30443).host_ports("443:30443").object();
    let view = view(edge().into_iter().chain([blog]));
    expect![[r#"
        through wg0 eth0 (external) to 203.0.113.7 2001:db8::7
        nodes: 10.0.0.1 10.0.0.2 2001:db8:1::2
        443/tcp external+internal -> nodes:30443 [3 addresses] # Service web/blog
    "#]]
    .assert_eq(&plan(&view).forwarding.to_string());
}

#[test]
fn ep_18_a_node_port_is_looked_up_by_number_and_protocol_when_omitted() {
    let dns = service("dns/dns")
        .port_of("UDP", 53, 30053)
        .port_of("TCP", 53, 30054)
        .host_ports("53, 53:udp");
    check(
        plain(),
        [dns.object()],
        &expect![[r#"
        53/tcp -> nodes:30054 [3 addresses] # Service dns/dns
        53/udp -> nodes:30053 [3 addresses] # Service dns/dns
    "#]],
    );
}

#[test]
fn ep_18_the_only_port_of_a_protocol_serves_any_host_port() {
    let web = service("web/blog").port(80, 30080).port_of("UDP", 81, 30081);
    check(
        plain(),
        [web.host_ports("8080, 8443").object()],
        &expect![[r#"
        8080/tcp -> nodes:30080 [3 addresses] # Service web/blog
        8443/tcp -> nodes:30080 [3 addresses] # Service web/blog
    "#]],
    );
}

#[test]
fn ep_18_a_port_that_no_node_port_can_be_found_for_costs_only_itself() {
    let web = service("web/blog").port(80, 30080).port(81, 30081).host_ports("80, 443, 444, 445");
    check(
        plain(),
        [web.object()],
        &expect![[r#"
        80/tcp -> nodes:30080 [3 addresses] # Service web/blog
        ! MissingNodePort Service web/blog: portcullis.dev/host-ports: "443-445/tcp": no port of this Service says which node port is meant; not forwarded; write HOST:NODE, or give the Service a port of that number and protocol
    "#]],
    );
}

#[test]
fn ep_18_an_explicit_node_port_is_honoured_even_when_the_service_does_not_list_it() {
    let web = service("web/blog").port(80, 30080).host_ports("80:31000");
    check(
        plain(),
        [web.object()],
        &expect![[r#"
        80/tcp -> nodes:31000 [3 addresses] # Service web/blog
        ? NodePortNotListed Service web/blog: portcullis.dev/host-ports: "31000/tcp": is not a node port of this Service; it is used as written; leave the node port out to have it looked up, or set it in spec.ports
    "#]],
    );
}

#[test]
fn a_service_without_node_ports_says_what_to_do() {
    let web = service("web/blog").port(80, 0).host_ports("80");
    let web = web.spec(|it| it.type_ = Some("ClusterIP".to_owned()));
    check(
        plain(),
        [web.object()],
        &expect![[r#"
        ! MissingNodePort Service web/blog: portcullis.dev/host-ports: "80/tcp": the Service is of a type without node ports; not forwarded; set spec.type to NodePort
    "#]],
    );
}

#[test]
fn ep_16_a_range_leads_to_a_range_of_its_length() {
    let media = service("av/media").host_ports("9000-9002:30100-30102:udp");
    let media = (0..3).fold(media, |it, n| it.port_of("UDP", 100 + n, 30100 + n));
    check(
        plain(),
        [media.object()],
        &expect![[r#"
        9000/udp -> nodes:30100 [3 addresses] # Service av/media
        9001/udp -> nodes:30101 [3 addresses] # Service av/media
        9002/udp -> nodes:30102 [3 addresses] # Service av/media
    "#]],
    );
}

#[test]
fn a_load_balancer_of_our_class_needs_no_annotation() {
    let web = service("web/blog").load_balancer().port(80, 30080).port_of("SCTP", 99, 30099);
    check(
        plain(),
        [web.object()],
        &expect![[r#"
        80/tcp -> nodes:30080 [3 addresses] # Service web/blog
        99/sctp -> nodes:30099 [3 addresses] # Service web/blog
    "#]],
    );
}

#[test]
fn a_load_balancer_of_our_class_may_move_its_ports_by_annotation() {
    let web = service("web/blog").load_balancer().port(80, 30080).host_ports("8080:30080");
    check(
        plain(),
        [web.object()],
        &expect![[r#"
        8080/tcp -> nodes:30080 [3 addresses] # Service web/blog
    "#]],
    );
}

#[test]
fn a_load_balancer_without_node_ports_says_what_to_do() {
    let web = service("web/blog").load_balancer().port(80, 0);
    let web = web.spec(|it| it.allocate_load_balancer_node_ports = Some(false));
    check(
        plain(),
        [web.object()],
        &expect![[r#"
        ! MissingNodePort Service web/blog: spec.ports: "80/tcp": no port of this Service says which node port is meant; not forwarded; set spec.allocateLoadBalancerNodePorts to true, or spec.ports[].nodePort
    "#]],
    );
}

#[test]
fn a_load_balancer_of_another_class_is_left_alone_unless_annotated() {
    let other = |name| {
        let service = service(name).load_balancer().port(80, 30080);
        service.spec(|it| it.load_balancer_class = Some("example.com/other".to_owned()))
    };
    let objects = [other("web/a").object(), other("web/b").host_ports("8080").object()];
    check(
        plain(),
        objects,
        &expect![[r#"
        8080/tcp -> nodes:30080 [3 addresses] # Service web/b
    "#]],
    );
}

#[test]
fn an_internal_service_is_not_reachable_through_the_external_interface() {
    let admin = service("web/admin").port(80, 30081).host_ports("80");
    let admin = admin.annotate("portcullis.dev/internal", "true").object();
    check(
        edge(),
        [admin.clone()],
        &expect![[r#"
        80/tcp internal -> nodes:30081 [3 addresses] # Service web/admin
    "#]],
    );
    // Without an external interface there is nothing to keep away from.
    check(
        plain(),
        [admin],
        &expect![[r#"
        80/tcp -> nodes:30081 [3 addresses] # Service web/admin
    "#]],
    );
}

#[test]
fn session_affinity_is_carried_over() {
    let web = service("web/blog").port(80, 30080).host_ports("80");
    let web = web.spec(|it| it.session_affinity = Some("ClientIP".to_owned()));
    check(
        plain(),
        [web.object()],
        &expect![[r#"
        80/tcp -> nodes:30080 [3 addresses] sticky # Service web/blog
    "#]],
    );
}

#[test]
fn two_allow_lists_leave_what_both_allow() {
    let with = |annotation, ranges: &[&str]| {
        let ranges = ranges.iter().map(|it| (*it).to_owned()).collect();
        let service = service("web/blog").load_balancer().port(80, 30080);
        let service = service.spec(|it| it.load_balancer_source_ranges = Some(ranges));
        service.annotate("portcullis.dev/allow-from", annotation).object()
    };
    check(
        plain(),
        [with("10.0.0.0/8, 2001:db8::/32", &["10.1.0.0/16", "192.0.2.0/24"])],
        &expect![[r#"
        80/tcp -> nodes:30080 [3 addresses] from 10.1.0.0/16 # Service web/blog
    "#]],
    );
    check(
        plain(),
        [with("10.0.0.0/8", &["192.0.2.0/24"])],
        &expect![[r#"
        ! NobodyAllowed Service web/blog: spec.loadBalancerSourceRanges: "192.0.2.0/24": shares no address with the annotation's list (10.0.0.0/8); nobody is allowed, so nothing is forwarded; keep one of the two lists, or make them overlap
    "#]],
    );
}

#[test]
fn ep_11_a_malformed_allow_list_opens_nothing() {
    for key in ["portcullis.dev/allow-from", "epok.getbetter.ro/allow-range"] {
        let web = service("web/blog").port(80, 30080).host_ports("80");
        let web = web.annotate(key, "10.0.0.0/8; reboot");
        let desired = plan(&view(plain().into_iter().chain([web.object()])));
        assert_eq!(desired.forwarding.forwards.len(), 0, "{key}");
        assert_eq!(desired.findings.len(), 1, "{key}");
    }
    let web = service("web/blog").load_balancer().port(80, 30080);
    let web = web.spec(|it| it.load_balancer_source_ranges = Some(vec!["$(reboot)".to_owned()]));
    check(
        plain(),
        [web.object()],
        &expect![[r#"
            ! InvalidValue Service web/blog: spec.loadBalancerSourceRanges: "$(reboot)": `$(reboot)` is not an address or CIDR range such as 10.0.0.0/8 or 2001:db8::/32; nothing new is forwarded for it; write addresses and CIDR ranges, separated by commas; names are not looked up
            kept as it is: Service web/blog
        "#]],
    );
}

#[test]
fn source_ranges_of_the_spec_count_only_on_load_balancers() {
    let web = service("web/blog").port(80, 30080).host_ports("80");
    let web = web.spec(|it| it.load_balancer_source_ranges = Some(vec!["10.0.0.0/8".to_owned()]));
    check(
        plain(),
        [web.object()],
        &expect![[r#"
        80/tcp -> nodes:30080 [3 addresses] # Service web/blog
    "#]],
    );
}

#[test]
fn the_predecessors_annotations_mean_what_they_meant() {
    let web = service("web/blog").port(80, 30080).port(443, 30443);
    let web = web
        .annotate("epok.getbetter.ro/externalports", "80:30080,443:30443")
        .annotate("epok.getbetter.ro/internal", "")
        .annotate("epok.getbetter.ro/allow-range", "10.0.0.0/8");
    let old = service("web/old").port_of("UDP", 53, 30053);
    let old = old.annotate("epok.getbetter.ro/externalport", "53:30053:udp");
    check(
        edge(),
        [web.object(), old.object()],
        &expect![[r#"
        80/tcp internal -> nodes:30080 [3 addresses] from 10.0.0.0/8 # Service web/blog
        443/tcp internal -> nodes:30443 [3 addresses] from 10.0.0.0/8 # Service web/blog
        53/udp external+internal -> nodes:30053 [3 addresses] # Service web/old
    "#]],
    );
}

#[test]
fn ep_11_a_malformed_service_is_told_and_costs_nobody_else() {
    let bad = service("web/bad").port(80, 30080).host_ports("80:30080:tpc");
    let good = service("web/good").port(81, 30081).host_ports("81");
    check(
        plain(),
        [bad.object(), good.object()],
        &expect![[r#"
        81/tcp -> nodes:30081 [3 addresses] # Service web/good
        ! InvalidValue Service web/bad: portcullis.dev/host-ports: "80:30080:tpc": `tpc` in `80:30080:tpc` is not a protocol, expected tcp, udp or sctp; nothing new is forwarded for it; end the entry with :tcp, :udp or :sctp, or leave it out for tcp
        kept as it is: Service web/bad
    "#]],
    );
}

#[test]
fn ep_16_a_service_of_one_family_is_forwarded_in_that_family_alone() {
    let of = |name: &str, families: Option<&[&str]>, port: i32| {
        let service = service(name).port(port, 30000 + port).host_ports(&port.to_string());
        let families = families.map(|it| it.iter().map(|it| (*it).to_owned()).collect());
        service.spec(|it| it.ip_families = families)
    };
    let objects = [
        of("web/v4", Some(&["IPv4"]), 80).object(),
        of("web/v6", Some(&["IPv6"]), 81).object(),
        of("web/both", Some(&["IPv6", "IPv4"]), 82).object(),
        of("web/manifest", None, 83).object(),
        of("web/odd", Some(&["IPv5"]), 84).object(),
        of("web/local", Some(&["IPv6"]), 85).local().object(),
        slice("web/local", &["n1", "n2"]).object(),
        of("web/nowhere", Some(&["IPv6"]), 86).local().object(),
        slice("web/nowhere", &["n1"]).object(),
    ];
    let desired = plan(&view(plain().into_iter().chain(objects.clone())));
    expect![[r#"
        through eth0 wg0 to any address of the host
        nodes: 10.0.0.1 10.0.0.2 2001:db8:1::2
        nodes of web/local: 2001:db8:1::2
        80/tcp -> IPv4 nodes:30080 [2 addresses] # Service web/v4
        81/tcp -> IPv6 nodes:30081 [1 address] # Service web/v6
        82/tcp -> nodes:30082 [3 addresses] # Service web/both
        83/tcp -> nodes:30083 [3 addresses] # Service web/manifest
        84/tcp -> nodes:30084 [3 addresses] # Service web/odd
        85/tcp -> nodes of web/local:30085 [1 address] # Service web/local
        80/tcp -> IPv4 nodes:30080 [2 addresses] # Service web/v4
        81/tcp -> IPv6 nodes:30081 [1 address] # Service web/v6
        82/tcp -> nodes:30082 [3 addresses] # Service web/both
        83/tcp -> nodes:30083 [3 addresses] # Service web/manifest
        84/tcp -> nodes:30084 [3 addresses] # Service web/odd
        85/tcp -> nodes of web/local:30085 [1 address] # Service web/local
        ! NoReadyEndpoints Service web/nowhere: portcullis.dev/host-ports: "86/tcp": no node that takes traffic at an IPv6 address has a ready endpoint of this Service, and its externalTrafficPolicy is Local; not forwarded on host edge; look at its Pods and at `kubectl get endpointslices`
    "#]].assert_eq(&(desired.forwarding.to_string() + &forwards(&desired)));
    // Where no node has such an address, the Service is told.
    let world = vec![node("n1", &["10.0.0.1"]).object(), host("edge", &["eth0"]).object()];
    check(
        world,
        objects,
        &expect![[r#"
        80/tcp -> IPv4 nodes:30080 [1 address] # Service web/v4
        82/tcp -> nodes:30082 [1 address] # Service web/both
        83/tcp -> nodes:30083 [1 address] # Service web/manifest
        84/tcp -> nodes:30084 [1 address] # Service web/odd
        ! NoNodeAddress Service web/v6: portcullis.dev/host-ports: "81/tcp": no node that takes traffic has an IPv6 InternalIP, and this Service is IPv6 alone (spec.ipFamilies); not forwarded on host edge; set spec.ipFamilyPolicy to PreferDualStack, or give the nodes such addresses
        ! NoReadyEndpoints Service web/local: portcullis.dev/host-ports: "85/tcp": no node that takes traffic at an IPv6 address has a ready endpoint of this Service, and its externalTrafficPolicy is Local; not forwarded on host edge; look at its Pods and at `kubectl get endpointslices`
        ! NoReadyEndpoints Service web/nowhere: portcullis.dev/host-ports: "86/tcp": no node that takes traffic at an IPv6 address has a ready endpoint of this Service, and its externalTrafficPolicy is Local; not forwarded on host edge; look at its Pods and at `kubectl get endpointslices`
    "#]],
    );
    // Where no node is there at all, the host is.
    let alone = of("web/v6", Some(&["IPv6"]), 81).object();
    check(
        vec![host("edge", &["eth0"]).object()],
        [alone],
        &expect![[r#"
        ! NoReadyNodes Host edge: status.nodes: "0": no node of the cluster is ready, has an InternalIP and is not excluded; no Service is forwarded; look at `kubectl get nodes -o wide`
    "#]],
    );
}
