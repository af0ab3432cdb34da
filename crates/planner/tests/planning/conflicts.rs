//! Two objects, one host port.

use expect_test::expect;
use k8s_openapi::api::core::v1::Service;

use crate::objects::{IntoObject, Named, ServiceParts, pod, service};
use crate::world::{check, edge, plain};

#[test]
fn ep_15_the_older_object_wins_and_the_loser_is_told_by_whom() {
    let objects = [web("web/a").created(200), web("web/b").created(100)];
    check(
        plain(),
        objects.map(IntoObject::object),
        &expect![[r#"
        80/tcp -> nodes:30080 [3 addresses] # Service web/b
        ! HostPortConflict Service web/a: portcullis.dev/host-ports: "80/tcp": taken on host edge by Service web/b, which comes first (the older object, then by kind, namespace and name); not forwarded for this object; choose another host port, or another host with portcullis.dev/host
    "#]],
    );
}

#[test]
fn ep_15_among_objects_of_one_age_kind_namespace_and_name_decide() {
    let service = web("web/z").created(100).object();
    let pod = pod("a/a", &["10.2.0.1"]).host_ports("80").created(100).object();
    check(
        plain(),
        [pod, service],
        &expect![[r#"
        80/tcp -> nodes:30080 [3 addresses] # Service web/z
        ! HostPortConflict Pod a/a: portcullis.dev/host-ports: "80/tcp": taken on host edge by Service web/z, which comes first (the older object, then by kind, namespace and name); not forwarded for this object; choose another host port, or another host with portcullis.dev/host
    "#]],
    );
}

#[test]
fn ep_15_only_the_ports_in_conflict_are_lost() {
    let wide = service("web/wide").port(80, 30081).host_ports("80, 81, 82").created(200);
    let objects = [web("web/a").created(100), wide];
    check(
        plain(),
        objects.map(IntoObject::object),
        &expect![[r#"
        80/tcp -> nodes:30080 [3 addresses] # Service web/a
        81/tcp -> nodes:30081 [3 addresses] # Service web/wide
        82/tcp -> nodes:30081 [3 addresses] # Service web/wide
        ! HostPortConflict Service web/wide: portcullis.dev/host-ports: "80/tcp": taken on host edge by Service web/a, which comes first (the older object, then by kind, namespace and name); not forwarded for this object; choose another host port, or another host with portcullis.dev/host
    "#]],
    );
}

#[test]
fn one_port_may_lead_inside_and_outside_to_different_places() {
    let inside = web("web/inside").annotate("portcullis.dev/internal", "true").created(100);
    let outside = pod("web/outside", &["10.2.0.1"]).host_ports("80").created(200);
    let outside = outside.annotate("portcullis.dev/external", "true");
    check(
        edge(),
        [inside.object(), outside.object()],
        &expect![[r#"
        80/tcp internal -> nodes:30080 [3 addresses] # Service web/inside
        80/tcp external -> pods 10.2.0.1:80 # Pod web/outside
    "#]],
    );
}

#[test]
fn ep_15_an_object_for_everywhere_that_finds_one_way_in_taken_gets_none() {
    let inside = web("web/inside").annotate("portcullis.dev/internal", "true").created(100);
    check(
        edge(),
        [inside, web("web/all").created(200)].map(IntoObject::object),
        &expect![[r#"
        80/tcp internal -> nodes:30080 [3 addresses] # Service web/inside
        ! HostPortConflict Service web/all: portcullis.dev/host-ports: "80/tcp": taken on host edge by Service web/inside, which comes first (the older object, then by kind, namespace and name); not forwarded for this object; choose another host port, or another host with portcullis.dev/host
    "#]],
    );
}

#[test]
fn an_object_without_targets_keeps_its_port_from_others() {
    let local = web("web/local").local().created(100);
    check(
        plain(),
        [local, web("web/b").created(200)].map(IntoObject::object),
        &expect![[r#"
        ! HostPortConflict Service web/b: portcullis.dev/host-ports: "80/tcp": taken on host edge by Service web/local, which comes first (the older object, then by kind, namespace and name); not forwarded for this object; choose another host port, or another host with portcullis.dev/host
        ! NoReadyEndpoints Service web/local: portcullis.dev/host-ports: "80/tcp": no node that takes traffic has a ready endpoint of this Service, and its externalTrafficPolicy is Local; not forwarded on host edge; look at its Pods and at `kubectl get endpointslices`
    "#]],
    );
}

#[test]
fn one_port_of_two_protocols_is_no_conflict() {
    let dns = service("dns/dns").port_of("UDP", 80, 30053).host_ports("80:udp");
    check(
        plain(),
        [web("web/a"), dns].map(IntoObject::object),
        &expect![[r#"
        80/tcp -> nodes:30080 [3 addresses] # Service web/a
        80/udp -> nodes:30053 [3 addresses] # Service dns/dns
    "#]],
    );
}

fn web(name: &str) -> Service {
    service(name).port(80, 30080).host_ports("80")
}
