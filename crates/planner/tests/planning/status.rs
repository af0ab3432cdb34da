//! What is written into the status of Services.

use std::collections::BTreeMap;

use api::object::ObjectRef;
use expect_test::{Expect, expect};
use planner::cluster_view::Object;
use planner::status::{outcomes, service_addresses};

use crate::objects::{HostParts, IntoObject, Named, Readiness, ServiceParts, host, node, service};
use crate::world::{edge, facts, plain, plan, service_ref, view};

#[test]
fn a_load_balancer_gets_the_addresses_of_the_hosts_that_forward_it() {
    let web = || service("web/blog").load_balancer().port(80, 30080);
    // The external interface's addresses, of the families that nodes have.
    check(edge(), web().object(), &expect!["203.0.113.7 2001:db8::7"]);
    check(plain(), web().object(), &expect!["10.8.0.1 203.0.113.7 2001:db8::7"]);
    let only_ipv4 =
        vec![node("n1", &["10.0.0.1"]).object(), host("edge", &["wg0", "eth0"]).object()];
    check(only_ipv4, web().object(), &expect!["10.8.0.1 203.0.113.7"]);
    let of = |family: &str| {
        let families = Some(vec![family.to_owned()]);
        web().spec(|it| it.ip_families = families).object()
    };
    check(edge(), of("IPv4"), &expect!["203.0.113.7"]);
    check(edge(), of("IPv6"), &expect!["2001:db8::7"]);
    let extra = host("edge", &["eth0", "wg0"]).external("eth0");
    let extra = HostParts::spec(extra, |it| it.extra_internal_addresses = vec!["10.8.0.1".into()]);
    let world = vec![extra.object(), node("n1", &["10.0.0.1"]).object()];
    check(world, web().object(), &expect!["10.8.0.1 203.0.113.7"]);
}

#[test]
fn a_load_balancer_that_nobody_forwards_gets_no_address() {
    let web = || service("web/blog").load_balancer().port(80, 30080);
    check(plain(), web().local().object(), &expect![""]);
    check(plain(), web().annotate("portcullis.dev/host", "other").object(), &expect![""]);
    check(vec![host("edge", &["eth0"]).object()], web().object(), &expect![""]);
    let asleep =
        vec![node("n1", &["10.0.0.1"]).ready("False").object(), host("edge", &["eth0"]).object()];
    check(asleep, web().object(), &expect![""]);
    let mut taken = plain();
    taken.push(service("web/a").port(80, 30081).host_ports("80").created(1).object());
    check(taken, web().created(2).object(), &expect![""]);
}

#[test]
fn the_status_of_others_is_left_alone() {
    let other = service("web/blog").load_balancer().port(80, 30080).host_ports("80");
    let other = other.spec(|it| it.load_balancer_class = None);
    check(plain(), other.object(), &expect!["left alone"]);
    check(
        plain(),
        service("web/blog").port(80, 30080).host_ports("80").object(),
        &expect!["left alone"],
    );
    let broken = service("web/blog").load_balancer().port(80, 30080).host_ports("x");
    check(plain(), broken.object(), &expect!["left alone"]);
}

#[test]
fn a_passing_address_is_not_announced() {
    let web = service("web/blog").load_balancer().port(80, 30080).object();
    let view = view(edge().into_iter().chain([web]));
    let mut facts = facts();
    facts.passing.insert("2001:db8::7".parse().expect("an address"));
    let hosts = BTreeMap::from([("edge".to_owned(), facts)]);
    let addresses = service_addresses(&view, &hosts).remove(&service_ref("web", "blog"));
    assert_eq!(addresses, Some(vec!["203.0.113.7".parse().expect("an address")]));
}

#[test]
fn a_host_that_another_controller_drives_counts_by_its_status() {
    let own = &["203.0.113.7", "2001:db8::7"][..];
    let told = |other| {
        let blog = service("web/blog").load_balancer().port(80, 30080).created(2);
        // On `north`, an older Service has the port.
        let older = service("web/a").port(80, 30081).host_ports("80").created(1);
        let older = older.annotate("portcullis.dev/host", "north").object();
        let mut world = edge();
        world.push(other);
        let view = view(world.into_iter().chain([blog.object(), older]));
        let hosts = BTreeMap::from([("edge".to_owned(), facts())]);
        let addresses = service_addresses(&view, &hosts).remove(&service_ref("web", "blog"));
        let addresses = addresses.expect("it is ours").into_iter();
        let others = addresses.map(|it| it.to_string()).filter(|it| !own.contains(&it.as_str()));
        others.collect::<Vec<_>>().join(" ")
    };
    let other = |name| host(name, &["eth0", "wg0"]).external("eth0");
    let addresses = &["198.51.100.1", "2001:db8::1", "odd", "127.0.0.1"];
    let tells = |name| other(name).tells(addresses, "True");
    assert_eq!(told(tells("south").object()), "198.51.100.1 2001:db8::1");
    assert_eq!(told(other("south").tells(addresses, "False").object()), "", "it is behind");
    assert_eq!(told(other("south").tells(&[], "True").object()), "", "it has no address");
    assert_eq!(told(other("south").object()), "", "nobody ever drove it");
    assert_eq!(told(tells("north").object()), "", "another Service has the port there");
    // What a host says itself counts more than what was once written about it.
    assert_eq!(told(tells("edge").object()), "");
}

#[track_caller]
fn check(world: Vec<Object>, service: Object, expected: &Expect) {
    let view = view(world.into_iter().chain([service]));
    let hosts = BTreeMap::from([("edge".to_owned(), facts())]);
    let addresses = service_addresses(&view, &hosts).remove(&service_ref("web", "blog"));
    let shown = addresses.map_or("left alone".to_owned(), |it| {
        it.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    });
    expected.assert_eq(&shown);
}

#[test]
fn every_service_is_told_what_became_of_it_on_every_host() {
    let services = [
        service("web/a").port(80, 30080).port(81, 30081).host_ports("80, 81").created(1),
        service("web/b").port(80, 30080).host_ports("80, 82").created(2),
        service("web/c").port(80, 30080).host_ports("90").annotate("portcullis.dev/host", "other"),
        service("web/d").port(80, 30080).host_ports("x"),
    ];
    let view = view(plain().into_iter().chain(services.map(IntoObject::object)));
    let plans = BTreeMap::from([("edge".to_owned(), plan(&view))]);
    expect![[r#"
        Service web/a: complete: edge: forwards 80-81/tcp
        Service web/b: in part: edge: forwards 82/tcp; portcullis.dev/host-ports: 80/tcp: taken on host edge by Service web/a, which comes first (the older object, then by kind, namespace and name); not forwarded for this object
        Service web/c: no host
        Service web/d: in part: edge: forwards nothing; portcullis.dev/host-ports: x: `x` in `x` is not a port between 1 and 65535; nothing new is forwarded for it
    "#]]
    .assert_eq(&show(outcomes(&view, &plans)));
}

#[test]
fn without_nodes_every_service_is_told() {
    let web = service("web/a").port(80, 30080).host_ports("80").object();
    let view = view([host("edge", &["eth0"]).object(), web]);
    let plans = BTreeMap::from([("edge".to_owned(), plan(&view))]);
    expect![[r#"
        Service web/a: in part: edge: forwards nothing; status.nodes: 0: no node of the cluster is ready, has an InternalIP and is not excluded; no Service is forwarded
    "#]]
    .assert_eq(&show(outcomes(&view, &plans)));
}

fn show(outcomes: BTreeMap<ObjectRef, Vec<planner::status::Outcome>>) -> String {
    let line = |(object, outcomes): (ObjectRef, Vec<planner::status::Outcome>)| {
        let state = match outcomes.iter().all(planner::status::Outcome::is_complete) {
            _ if outcomes.is_empty() => "no host".to_owned(),
            true => "complete: ".to_owned(),
            false => "in part: ".to_owned(),
        };
        let hosts: Vec<_> = outcomes.iter().map(ToString::to_string).collect();
        format!("{object}: {state}{}\n", hosts.join(" | "))
    };
    outcomes.into_iter().map(line).collect()
}
