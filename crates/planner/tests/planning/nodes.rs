//! Which nodes take traffic.

use expect_test::{Expect, expect};
use k8s_openapi::api::core::v1::NodeAddress;
use k8s_openapi::api::discovery::v1::EndpointConditions;
use planner::cluster_view::{Change, Object};

use crate::objects::{IntoObject, Named, Readiness, ServiceParts, host, node, service, slice};
use crate::world::{check, plain, plan, view};

#[test]
fn a_node_takes_traffic_when_it_is_ready_and_not_excluded() {
    let n1 = || node("n1", &["10.0.0.1"]);
    check_nodes(n1().object(), &expect!["nodes: 10.0.0.1"]);
    check_nodes(n1().ready("False").object(), &expect![""]);
    check_nodes(n1().annotate("epok.getbetter.ro/exclude", "").object(), &expect![""]);
    check_nodes(n1().label("epok_exclude", "whatever").object(), &expect![""]);
    check_nodes(n1().annotate("portcullis.dev/exclude", "true").object(), &expect![""]);
    check_nodes(
        n1().annotate("portcullis.dev/exclude", "false").object(),
        &expect!["nodes: 10.0.0.1"],
    );
    let balancers = "node.kubernetes.io/exclude-from-external-load-balancers";
    check_nodes(n1().label(balancers, "").object(), &expect![""]);
    // What cannot be understood excludes: that is what the key is for.
    check_nodes(n1().annotate("portcullis.dev/exclude", "perhaps").object(), &expect![""]);
}

#[test]
fn ep_16_every_internal_address_of_both_families_is_used() {
    let n1 = node("n1", &["2001:db8:1::1", "10.0.0.1", "10.0.0.1"]);
    check_nodes(n1.object(), &expect!["nodes: 10.0.0.1 2001:db8:1::1"]);
}

#[test]
fn addresses_of_other_types_or_that_lead_nowhere_are_not_used() {
    let mut n1 = node("n1", &["10.0.0.1", "127.0.0.1", "0.0.0.0", "::1", "224.0.0.1", "$(reboot)"]);
    let public = NodeAddress { address: "198.51.100.1".into(), type_: "ExternalIP".into() };
    n1.status.as_mut().and_then(|it| it.addresses.as_mut()).expect("addresses").push(public);
    check_nodes(n1.object(), &expect!["nodes: 10.0.0.1"]);
}

#[track_caller]
fn check_nodes(node: Object, expected: &Expect) {
    let text = plan(&view([node, host("edge", &["eth0"]).object()])).forwarding.to_string();
    expected.assert_eq(text.lines().find(|it| it.starts_with("nodes")).unwrap_or_default());
}

#[test]
fn without_a_ready_node_the_host_is_told_once_and_nothing_is_forwarded() {
    let services = (1..4).map(|it| {
        let service = service(&format!("web/s{it}")).port(80, 30080);
        service.host_ports(&format!("{it}:30080")).object()
    });
    let world =
        vec![node("n1", &["10.0.0.1"]).ready("False").object(), host("edge", &["eth0"]).object()];
    check(
        world,
        services,
        &expect![[r#"
            ! NoReadyNodes Host edge: status.nodes: "0": no node of the cluster is ready, has an InternalIP and is not excluded; no Service is forwarded; look at `kubectl get nodes -o wide`
        "#]],
    );
}

#[test]
fn with_local_policy_only_nodes_with_ready_endpoints_take_traffic() {
    let web = service("web/blog").port(80, 30080).local().host_ports("80").object();
    let mut slice = slice("web/blog", &["n1", "n2", "n3"]);
    let endpoints = slice.endpoints.as_mut().expect("endpoints");
    endpoints[0].conditions =
        Some(EndpointConditions { ready: Some(false), ..EndpointConditions::default() });
    // An absent condition means ready.
    endpoints[1].conditions = None;
    let plan = plan(&view(plain().into_iter().chain([web, slice.object()])));
    expect![[r#"
        through eth0 wg0 to any address of the host
        nodes: 10.0.0.1 10.0.0.2 2001:db8:1::2
        nodes of web/blog: 10.0.0.2 2001:db8:1::2
        80/tcp -> nodes of web/blog:30080 [2 addresses] # Service web/blog
    "#]]
    .assert_eq(&plan.forwarding.to_string());
}

#[test]
fn with_local_policy_and_no_ready_endpoint_nothing_is_forwarded() {
    let web = service("web/blog").port(80, 30080).port(81, 30081).local().host_ports("80, 81");
    let slices = [slice("web/other", &["n1"]).object(), slice("other/blog", &["n1"]).object()];
    check(
        plain(),
        slices.into_iter().chain([web.object()]),
        &expect![[r#"
        ! NoReadyEndpoints Service web/blog: portcullis.dev/host-ports: "80-81/tcp": no node that takes traffic has a ready endpoint of this Service, and its externalTrafficPolicy is Local; not forwarded on host edge; look at its Pods and at `kubectl get endpointslices`
    "#]],
    );
}

#[test]
fn a_node_that_is_not_ready_takes_no_traffic_for_local_policy_either() {
    let web = service("web/blog").port(80, 30080).local().host_ports("80").object();
    let world = vec![
        node("n1", &["10.0.0.1"]).ready("False").object(),
        node("n2", &["10.0.0.2"]).object(),
        host("edge", &["eth0"]).object(),
    ];
    check(
        world,
        [web, slice("web/blog", &["n1", "n2"]).object()],
        &expect![[r#"
        80/tcp -> nodes of web/blog:30080 [1 address] # Service web/blog
    "#]],
    );
}

#[test]
fn ep_09_while_no_node_is_ready_those_out_of_sight_keep_taking_traffic() {
    let blog = || service("web/blog").port(80, 30080).host_ports("80").object();
    let edge = || host("edge", &["eth0"]).object();
    let out_of_sight = |name: &str, address| node(name, &[address]).ready("Unknown");
    let world = || {
        vec![
            edge(),
            out_of_sight("n1", "10.0.0.1").object(),
            out_of_sight("n2", "10.0.0.2").object(),
            out_of_sight("n3", "10.0.0.3").label("epok_exclude", "").object(),
            node("n4", &["10.0.0.4"]).ready("False").object(),
            // A node that may not take traffic says nothing about those that may: so it is on
            // the control plane's side of a cut.
            node("n5", &["10.0.0.5"]).label("epok_exclude", "").object(),
        ]
    };
    check(
        world(),
        [blog()],
        &expect![[r#"
            80/tcp -> nodes:30080 [2 addresses] # Service web/blog
            ? NodesOutOfSight Host edge: status.nodes: "2": no node that may take traffic is ready, and of these the control plane hears nothing (condition Ready is Unknown); they keep taking traffic, because they may well work; look at `kubectl get nodes`, and at the nodes' way to the API server
        "#]],
    );
    // Nobody asks for nodes, so nobody needs to know.
    check(world(), [], &expect![""]);
    // One that is ready is enough for all others to be left out.
    let mut seen = world();
    seen.push(node("n6", &["10.0.0.6"]).object());
    let desired = plan(&view(seen.into_iter().chain([blog()])));
    expect![[r#"
        through eth0 to any address of the host
        nodes: 10.0.0.6
        80/tcp -> nodes:30080 [1 address] # Service web/blog
    "#]]
    .assert_eq(&desired.forwarding.to_string());
    assert_eq!(desired.findings, []);
}

#[test]
fn losing_sight_of_nodes_one_by_one_ends_where_it_began() {
    let blog = service("web/blog").port(80, 30080).host_ports("80").object();
    let mut view = view(plain().into_iter().chain([blog]));
    let before = plan(&view).forwarding;
    let n1 = || node("n1", &["10.0.0.1"]);
    let n2 = || node("n2", &["10.0.0.2", "2001:db8:1::2"]);
    assert!(view.change(Change::Applied(n1().ready("Unknown").object())));
    assert_ne!(plan(&view).forwarding, before, "n2 alone is ready");
    assert!(view.change(Change::Applied(n2().ready("Unknown").object())));
    assert_eq!(plan(&view).forwarding, before, "both are out of sight");
    assert!(view.change(Change::Applied(n1().ready("False").object())));
    assert_ne!(plan(&view).forwarding, before, "n1 is known not to work");
    view.change(Change::Applied(n1().object()));
    view.change(Change::Applied(n2().object()));
    assert_eq!(plan(&view).forwarding, before);
}

#[test]
fn ep_09_with_local_policy_endpoints_out_of_sight_count_while_no_node_is_ready() {
    // What a node's Pods are marked as when the control plane loses sight of the node.
    let lost = |ready, terminating| EndpointConditions {
        ready: Some(ready),
        serving: Some(ready),
        terminating: Some(terminating),
    };
    let nodes = |status: &str, conditions: [EndpointConditions; 3]| {
        let web = service("web/blog").port(80, 30080).local().host_ports("80").object();
        let mut slice = slice("web/blog", &["n1", "n2", "n3"]);
        for (endpoint, conditions) in slice.endpoints.iter_mut().flatten().zip(conditions) {
            endpoint.conditions = Some(conditions);
        }
        let nodes = ["n1", "n2", "n3"].into_iter().zip(["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        let nodes = nodes.map(|(name, address)| node(name, &[address]).ready(status).object());
        let world = nodes.chain([host("edge", &["eth0"]).object(), web, slice.object()]);
        let text = plan(&view(world)).forwarding.to_string();
        let line = text.lines().find_map(|it| it.strip_prefix("nodes of web/blog: "));
        line.unwrap_or_default().to_owned()
    };
    let marked = || [lost(false, false), lost(false, true), lost(false, false)];
    assert_eq!(nodes("Unknown", marked()), "10.0.0.1 10.0.0.3", "all but the terminating one");
    let half = || [lost(true, false), lost(false, false), lost(false, false)];
    assert_eq!(nodes("Unknown", half()), "10.0.0.1", "one is not marked yet");
    assert_eq!(nodes("True", half()), "10.0.0.1");
    assert_eq!(nodes("True", marked()), "", "the nodes speak for themselves");
    assert_eq!(nodes("False", half()), "");
}
