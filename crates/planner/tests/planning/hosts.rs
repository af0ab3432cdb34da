//! What Hosts ask for, and what hosts are like.

use expect_test::expect;
use planner::forward::forward_plan;
use planner::host_view::HostView;

use crate::objects::{HostParts, IntoObject, Named, ServiceParts, host, node, service};
use crate::world::{check, edge, facts, forwards, plain, plan, view};

#[test]
fn ep_16_destinations_follow_the_external_interface_and_hold_the_extra_addresses() {
    let edge = host("edge", &["eth0", "wg0"]).external("eth0");
    let edge = HostParts::spec(edge, |it| {
        it.extra_internal_addresses = vec!["10.8.0.1".to_owned()];
        it.masquerade = true;
    });
    let view = view([edge.object()]);
    expect![[r#"
        through wg0 eth0 (external) to 10.8.0.1 203.0.113.7 2001:db8::7
        with masquerade
    "#]]
    .assert_eq(&plan(&view).forwarding.to_string());

    let moved = r#"[{"ifname":"eth0","addr_info":[
        {"local":"198.51.100.1","prefixlen":24,"scope":"global"},
        {"local":"198.51.100.2","prefixlen":24,"scope":"global"}]}, {"ifname":"wg0"}]"#;
    let moved = HostView::read(moved, "").expect("a plain listing");
    let desired = forward_plan(&view, "edge", &moved).expect("a plan");
    expect![[r#"
        through wg0 eth0 (external) to 10.8.0.1 198.51.100.1 198.51.100.2
        with masquerade
    "#]]
    .assert_eq(&desired.forwarding.to_string());
}

#[test]
fn ep_16_an_external_interface_without_an_address_opens_nothing() {
    let bare = HostView::read(r#"[{"ifname":"eth0"},{"ifname":"wg0"}]"#, "").expect("a listing");
    let web = || service("web/blog").port(80, 30080).host_ports("80").object();
    let desired = forward_plan(&view(edge().into_iter().chain([web()])), "edge", &bare);
    expect![[r#"
        ! NoExternalAddress Host edge: spec.externalInterface: "eth0": it has no address, so nothing is forwarded until it has one; give the interface a global address
    "#]]
    .assert_eq(&forwards(&desired.expect("a plan")));

    let extra = host("edge", &["eth0", "wg0"]).external("eth0");
    let extra = HostParts::spec(extra, |it| it.extra_internal_addresses = vec!["10.8.0.1".into()]);
    let view = view([extra.object(), node("n1", &["10.0.0.1"]).object(), web()]);
    expect![[r#"
        80/tcp external+internal -> nodes:30080 [1 address] # Service web/blog
        ! NoExternalAddress Host edge: spec.externalInterface: "eth0": it has no address, so only spec.extraInternalAddresses are forwarded; give the interface a global address
    "#]]
    .assert_eq(&forwards(&forward_plan(&view, "edge", &bare).expect("a plan")));
}

#[test]
fn an_interface_that_the_host_does_not_have_is_told() {
    let world = vec![host("edge", &["eth0", "eth9"]).object()];
    check(
        world,
        [],
        &expect![[r#"
        ? InterfaceMissing Host edge: spec.interfaces: "eth9": the host has no interface of this name now; nothing comes in through it; correct the name as `ip link` shows it on the host
    "#]],
    );
}

#[test]
fn an_object_may_choose_its_hosts() {
    let world = || {
        let mut world = plain();
        world.push(host("other", &["eth0"]).object());
        world
    };
    let on = |name: &str, port: &str, hosts: &str| {
        let service = service(name).port(80, 30080).host_ports(port);
        service.annotate("portcullis.dev/host", hosts).object()
    };
    let objects = || {
        [on("web/a", "80", "edge"), on("web/b", "81", "other"), on("web/c", "82", "other, edge")]
    };
    check(
        world(),
        objects(),
        &expect![[r#"
        80/tcp -> nodes:30080 [3 addresses] # Service web/a
        82/tcp -> nodes:30080 [3 addresses] # Service web/c
    "#]],
    );
    // One port on two hosts is no conflict.
    check(
        world(),
        [on("web/a", "80", "edge"), on("web/b", "80", "other")],
        &expect![[r#"
        80/tcp -> nodes:30080 [3 addresses] # Service web/a
    "#]],
    );
}

#[test]
fn an_unknown_host_is_told_where_somebody_reads_it() {
    let on = |name: &str, port: &str, hosts: &str| {
        let service = service(name).port(80, 30080).host_ports(port);
        service.annotate("portcullis.dev/host", hosts).object()
    };
    let mut world = plain();
    world.push(host("other", &["eth0"]).object());
    let objects = [
        on("web/a", "80", "egde"),
        on("web/b", "81", "edge, egde"),
        on("web/c", "82", "other, egde"),
    ];
    check(
        world,
        objects,
        &expect![[r#"
        81/tcp -> nodes:30080 [3 addresses] # Service web/b
        ! UnknownHost Service web/a: portcullis.dev/host: "egde": there is no Host of this name; name one of: edge, other; or leave the annotation out for all
        ! UnknownHost Service web/b: portcullis.dev/host: "egde": there is no Host of this name; name one of: edge, other; or leave the annotation out for all
    "#]],
    );
}

#[test]
fn ep_15_a_port_that_the_host_itself_listens_on_is_told() {
    let ssh = service("git/ssh").port(22, 30022).host_ports("22, 23:30022");
    check(
        edge(),
        [ssh.object()],
        &expect![[r#"
        22/tcp external+internal -> nodes:30022 [3 addresses] # Service git/ssh
        23/tcp external+internal -> nodes:30022 [3 addresses] # Service git/ssh
        ? HostPortInUse Service git/ssh: portcullis.dev/host-ports: "22/tcp": host edge itself listens on it; connections from outside now lead to the cluster; choose another host port, or stop the host's own program
    "#]],
    );
}

#[test]
fn the_port_by_which_the_controller_comes_in_is_never_forwarded() {
    let forwarded = |address: &str, port: u16, external: Option<&str>| {
        let edge = host("edge", &["eth0", "wg0"]).over_ssh(address, port);
        let edge = HostParts::spec(edge, |it| it.external_interface = external.map(str::to_owned));
        let git = service("git/ssh").port(22, 30022).host_ports("22, 22:30022:udp, 2222");
        let world = [edge.object(), node("n1", &["10.0.0.1"]).object(), git.object()];
        let desired = plan(&view(world));
        desired.forwarding.forwards.keys().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(forwarded("203.0.113.7", 22, None), "2222/tcp, 22/udp");
    assert_eq!(forwarded("edge.example.com", 22, None), "2222/tcp, 22/udp");
    assert_eq!(forwarded("203.0.113.7", 22, Some("eth0")), "2222/tcp, 22/udp");
    // The VPN address is not forwarded, so that port 22 there still leads to the host.
    assert_eq!(forwarded("10.8.0.1", 22, Some("eth0")), "22/tcp, 2222/tcp, 22/udp");
    // Nothing listens on 2222: something before the host translates.
    assert_eq!(forwarded("203.0.113.7", 2222, None), "22/tcp, 2222/tcp, 22/udp");
}

#[test]
fn ep_15_a_listener_on_an_address_that_is_not_forwarded_is_no_collision() {
    let dns = service("dns/dns").port_of("UDP", 53, 30053).host_ports("53:udp").object();
    let listing = "udp UNCONN 0 0 127.0.0.53%lo:53 0.0.0.0:*\nudp UNCONN 0 0 10.8.0.1:53 0.0.0.0:*";
    let mut facts = facts();
    facts.listeners = HostView::read("[]", listing).expect("a listing").listeners;
    let findings = |world: Vec<_>| {
        let view = view(world.into_iter().chain([dns.clone()]));
        forward_plan(&view, "edge", &facts).expect("a plan").findings.len()
    };
    assert_eq!(findings(edge()), 0, "only the addresses of eth0 are forwarded");
    assert_eq!(findings(plain()), 1, "every address of the host is forwarded, 10.8.0.1 as well");
}

#[test]
fn ep_15_a_listener_of_the_other_family_is_no_collision() {
    let dns = |families: &[&str]| {
        let service = service("dns/dns").port_of("UDP", 53, 30053).host_ports("53:udp");
        service.spec(|it| it.ip_families = Some(families.iter().map(|it| (*it).into()).collect()))
    };
    let findings = |families: &[&str], listener: &str| {
        let mut facts = facts();
        let listing = format!("udp UNCONN 0 0 {listener}:53 *:*");
        facts.listeners = HostView::read("[]", &listing).expect("a listing").listeners;
        let view = view(edge().into_iter().chain([dns(families).object()]));
        forward_plan(&view, "edge", &facts).expect("a plan").findings.len()
    };
    for listener in ["0.0.0.0", "203.0.113.7"] {
        assert_eq!(findings(&["IPv4"], listener), 1, "{listener}");
        assert_eq!(findings(&["IPv6"], listener), 0, "{listener}");
        assert_eq!(findings(&["IPv4", "IPv6"], listener), 1, "{listener}");
    }
    for listener in ["[::]", "[2001:db8::7]"] {
        assert_eq!(findings(&["IPv4"], listener), 0, "{listener}");
        assert_eq!(findings(&["IPv6"], listener), 1, "{listener}");
    }
    assert_eq!(findings(&["IPv4"], "*"), 1, "a socket of both families");
    assert_eq!(findings(&["IPv6"], "*"), 1, "a socket of both families");
}

#[test]
fn ep_15_a_host_that_is_itself_a_node_keeps_node_ports_free() {
    let web = service("web/blog").port(80, 30080).host_ports("30443:30080, 443:30080").object();
    let mut world = plain();
    check(
        world.clone(),
        [web.clone()],
        &expect![[r#"
        443/tcp -> nodes:30080 [3 addresses] # Service web/blog
        30443/tcp -> nodes:30080 [3 addresses] # Service web/blog
    "#]],
    );
    world.push(node("n3", &["203.0.113.7"]).object());
    check(
        world,
        [web],
        &expect![[r#"
        443/tcp -> nodes:30080 [4 addresses] # Service web/blog
        30443/tcp -> nodes:30080 [4 addresses] # Service web/blog
        ? HostPortInNodePortRange Service web/blog: portcullis.dev/host-ports: "30443/tcp": is in the range of node ports, and host edge is itself a node; a Service that gets it as its node port cannot be reached through this node; choose a host port outside 30000-32767
    "#]],
    );
}

#[test]
fn a_host_that_nobody_declared_has_no_plan() {
    let error = forward_plan(&view(plain()), "egde", &facts()).expect_err("no such Host");
    expect!["there is no Host named `egde`; the Hosts are: edge"].assert_eq(&error.to_string());
}

#[test]
fn a_host_that_cannot_be_understood_has_no_plan() {
    let edge = host("edge", &["eth 0"]).object();
    let error = forward_plan(&view([edge]), "edge", &facts()).expect_err("a bad interface");
    expect![[r#"Host edge cannot be understood: Host edge: spec.interfaces[0]: "eth 0": not the name of an interface; nothing is changed on the host; use 1 to 15 letters, digits or -_.:@, as `ip link` shows it"#]].assert_eq(&error.to_string());
}
