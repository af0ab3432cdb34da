//! How the view takes in changes.

use api::object::{ObjectKind, ObjectRef};
use expect_test::expect;
use k8s_openapi::api::core::v1::NodeCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use planner::cluster_view::{Change, ClusterView, Object};
use planner::forward::{NoPlan, forward_plan};

use crate::objects::{
    HostParts, IntoObject, Named, Readiness, ServiceParts, host, node, pod, service, slice,
};
use crate::world::{KINDS, edge, facts, forwards, plain, plan, service_ref, view};

fn web(ports: &str) -> Object {
    service("web/blog").port(80, 30080).host_ports(ports).object()
}

#[test]
fn ep_09_there_is_no_plan_before_every_kind_was_listed() {
    let mut view = ClusterView::default();
    for kind in KINDS {
        let error = forward_plan(&view, "edge", &facts()).expect_err("incomplete");
        assert!(matches!(error, NoPlan::Incomplete { .. }), "{error}");
        assert!(!view.is_complete());
        // Single objects make no list.
        view.change(Change::Applied(host("edge", &["eth0"]).object()));
        assert!(view.change(Change::Reset(kind, Vec::new())), "the first list of {kind} matters");
    }
    assert!(view.is_complete());
    let mut lacking = ClusterView::default();
    lacking.change(Change::Reset(ObjectKind::Node, Vec::new()));
    let error = forward_plan(&lacking, "edge", &facts()).expect_err("incomplete");
    expect![
        "the cluster is not completely known yet: no list of Services, Pods, EndpointSlices, Hosts"
    ]
    .assert_eq(&error.to_string());
}

#[test]
fn ep_10_what_a_new_list_does_not_hold_is_gone() {
    let mut view = view(plain().into_iter().chain([web("80")]));
    let mail = service("web/mail").port(25, 30025).host_ports("25").object();
    assert!(view.change(Change::Reset(ObjectKind::Service, vec![mail])));
    expect![[r#"
        25/tcp -> nodes:30025 [3 addresses] # Service web/mail
    "#]]
    .assert_eq(&forwards(&plan(&view)));
    for kind in [ObjectKind::Node, ObjectKind::Pod, ObjectKind::EndpointSlice] {
        view.change(Change::Reset(kind, Vec::new()));
    }
    assert_eq!(view.active_nodes().count(), 0);
    assert!(view.change(Change::Reset(ObjectKind::Host, Vec::new())));
    assert!(matches!(forward_plan(&view, "edge", &facts()), Err(NoPlan::UnknownHost { .. })));
}

#[test]
fn a_change_counts_only_when_planning_reads_it() {
    let n1 = || node("n1", &["10.0.0.1"]);
    let mut heartbeat = n1();
    let time = Time(Timestamp::from_second(1_000_000).expect("a time"));
    let status = heartbeat.status.as_mut().expect("a status");
    let conditions = status.conditions.as_mut().expect("conditions");
    conditions[0].last_heartbeat_time = Some(time);
    conditions.push(NodeCondition {
        type_: "MemoryPressure".to_owned(),
        status: "False".to_owned(),
        ..NodeCondition::default()
    });
    let mut status_only = service("web/blog").port(80, 30080).host_ports("80");
    status_only.metadata.resource_version = Some("7".to_owned());
    status_only.status = Some(k8s_openapi::api::core::v1::ServiceStatus::default());
    let local = || service("web/local").port(81, 30081).local().host_ports("81");
    let base = plain().into_iter().chain([
        web("80"),
        local().object(),
        slice("web/local", &["n1"]).object(),
    ]);
    let mut view = view(base);
    let mut check = |object: Object, counts: bool, what: &str| {
        let version = view.version();
        assert_eq!(view.change(Change::Applied(object)), counts, "{what}");
        assert_eq!(view.version() > version, counts, "{what}");
    };
    check(n1().object(), false, "the same node");
    check(heartbeat.object(), false, "a heartbeat");
    check(n1().annotate("example.com/x", "y").object(), false, "a foreign annotation");
    check(n1().ready("False").object(), true, "a node that is no longer ready");
    check(web("80"), false, "the same Service");
    check(status_only.object(), false, "the status of a Service");
    check(web("81"), true, "another port");
    check(service("web/quiet").port(1, 30001).object(), false, "a Service that asks nothing");
    check(pod("a/b", &["10.2.0.9"]).object(), false, "a Pod that asks nothing");
    check(slice("web/blog", &["n1"]).object(), false, "endpoints of a Service for all nodes");
    check(slice("web/local", &["n1"]).object(), false, "the same endpoints");
    check(slice("web/local", &["n1", "n1"]).object(), false, "another endpoint on the same node");
    check(slice("web/local", &["n2"]).object(), true, "endpoints that moved");
    let edge = || host("edge", &["eth0", "wg0"]);
    check(edge().object(), false, "the same Host");
    let mut with_status = edge();
    with_status.metadata.resource_version = Some("9".to_owned());
    with_status.status = Some(api::host::HostStatus::default());
    check(with_status.object(), false, "the status of a Host, which we write ourselves");
    check(edge().tells(&[], "True").object(), false, "a Host that is up to date");
    let tells = |applied| edge().tells(&["203.0.113.7"], applied).object();
    check(tells("True"), true, "the addresses of a Host");
    check(tells("True"), false, "the same addresses");
    check(tells("False"), true, "the addresses of a Host that is behind do not count");
    check(HostParts::spec(edge(), |it| it.hairpin = true).object(), true, "an option of a Host");
}

#[test]
fn deleting_what_was_never_there_changes_nothing() {
    let mut view = view(plain());
    for kind in KINDS {
        let gone = ObjectRef { kind, namespace: Some("web".to_owned()), name: "gone".to_owned() };
        assert!(!view.change(Change::Deleted(gone)), "{kind}");
    }
}

#[test]
fn ep_11_an_object_that_turns_malformed_keeps_its_last_good_state_until_it_is_deleted() {
    let mut view = view(plain().into_iter().chain([web("80")]));
    assert!(view.change(Change::Applied(web("80, x"))));
    expect![[r#"
        80/tcp -> nodes:30080 [3 addresses] # Service web/blog
        ! InvalidValue Service web/blog: portcullis.dev/host-ports: "80, x": `x` in `x` is not a port between 1 and 65535; what it asked for before stays in force; write entries such as 443, 443:30443, 53:udp, 53:30053:udp or 9000-9010:30000-30010, separated by commas
    "#]]
    .assert_eq(&forwards(&plan(&view)));

    // The rest of the object still counts: its node port moves with it.
    let moved = service("web/blog").port(80, 31080).host_ports("80, x").object();
    assert!(view.change(Change::Applied(moved.clone())));
    assert!(forwards(&plan(&view)).starts_with("80/tcp -> nodes:31080 "));

    // A relist is no reason to forget.
    assert!(!view.change(Change::Reset(ObjectKind::Service, vec![moved.clone()])));

    // A deletion is, even when the object comes back as broken as it was.
    assert!(view.change(Change::Deleted(service_ref("web", "blog"))));
    expect![""].assert_eq(&forwards(&plan(&view)));
    assert!(view.change(Change::Applied(moved)));
    assert_eq!(plan(&view).forwarding.forwards.len(), 0);
    assert!(plan(&view).unreadable.contains(&service_ref("web", "blog")));
}

#[test]
fn ep_11_a_pod_that_turns_malformed_still_leaves_when_it_is_no_longer_ready() {
    let good = pod("db/pg-0", &["10.2.0.1"]).host_ports("5432");
    let bad = || pod("db/pg-0", &["10.2.0.1"]).host_ports("5432:nowhere");
    let mut view = view(plain().into_iter().chain([good.object()]));
    view.change(Change::Applied(bad().object()));
    assert_eq!(plan(&view).forwarding.forwards.len(), 1);
    view.change(Change::Applied(bad().ready("False").object()));
    assert_eq!(plan(&view).forwarding.forwards.len(), 0);
    view.change(Change::Applied(bad().object()));
    assert_eq!(plan(&view).forwarding.forwards.len(), 1);
}

#[test]
fn a_host_that_turns_malformed_keeps_its_last_good_settings() {
    let mut view = view(edge().into_iter().chain([web("80")]));
    let before = plan(&view).forwarding;
    let bad = host("edge", &["eth0", "wg0"]).external("eth7");
    assert!(view.change(Change::Applied(bad.object())));
    let after = plan(&view);
    assert_eq!(after.forwarding, before);
    assert_eq!(after.findings.len(), 1);
    assert!(after.findings[0].problem.ends_with("its last good settings stay in force"));
}

#[test]
fn the_view_names_objects_for_events() {
    let mut blog = service("web/blog").port(80, 30080).host_ports("x");
    blog.metadata.uid = Some("u-1".to_owned());
    let mut edge = host("edge", &["eth0"]);
    edge.metadata.uid = Some("u-2".to_owned());
    edge.metadata.generation = Some(3);
    let view = view([blog.object(), edge.object(), node("n1", &["10.0.0.1"]).object()]);
    assert_eq!(view.uid(&service_ref("web", "blog")), Some("u-1"));
    assert_eq!(view.uid(&ObjectRef::cluster(ObjectKind::Host, "edge")), Some("u-2"));
    assert_eq!(view.uid(&ObjectRef::cluster(ObjectKind::Node, "n1")), None);
    assert_eq!(view.host_generation("edge"), Some(3));
}
