//! What Pods ask for: forwards straight to them, by the predecessor's keys or ours.

use expect_test::expect;

use crate::objects::{IntoObject, Named, Readiness, pod};
use crate::world::{check, edge, plain};

#[test]
fn ready_pods_with_one_host_port_share_it_each_at_its_own_port() {
    let pods = [
        pod("db/pg-0", &["10.2.0.1", "2001:db8:2::1"]).host_ports("5432"),
        pod("db/pg-1", &["10.2.0.2"]).annotate("epok.getbetter.ro/externalports", "5432:6432"),
        pod("db/pg-2", &["10.2.0.3"]).host_ports("5432").ready("False"),
        pod("db/pg-3", &[]).host_ports("5432"),
    ];
    check(
        plain(),
        pods.map(IntoObject::object),
        &expect![[r#"
        5432/tcp -> pods 10.2.0.1:5432 10.2.0.2:6432 [2001:db8:2::1]:5432 # Pod db/pg-0
    "#]],
    );
}

#[test]
fn pods_of_one_name_in_two_namespaces_are_two_pods() {
    let pods = [
        pod("a/pg-0", &["10.2.0.1"]).host_ports("5432"),
        pod("b/pg-0", &["10.2.0.2"]).host_ports("5433:5432"),
    ];
    check(
        plain(),
        pods.map(IntoObject::object),
        &expect![[r#"
        5432/tcp -> pods 10.2.0.1:5432 # Pod a/pg-0
        5433/tcp -> pods 10.2.0.2:5432 # Pod b/pg-0
    "#]],
    );
}

#[test]
fn ep_04_each_way_in_spreads_over_exactly_the_pods_that_are_for_it() {
    let pods = [
        pod("db/a", &["10.2.0.1"]).host_ports("5432").annotate("epok.getbetter.ro/internal", ""),
        pod("db/b", &["10.2.0.2"]).host_ports("5432"),
        pod("db/c", &["10.2.0.3"]).host_ports("5432").annotate("epok.getbetter.ro/external", ""),
    ];
    check(
        edge(),
        pods.map(IntoObject::object),
        &expect![[r#"
        5432/tcp internal -> pods 10.2.0.1:5432 10.2.0.2:5432 # Pod db/a
        5432/tcp external -> pods 10.2.0.2:5432 10.2.0.3:5432 # Pod db/b
    "#]],
    );
}

#[test]
fn a_pod_for_the_external_interface_alone_needs_one() {
    let pod = pod("db/a", &["10.2.0.1"]).host_ports("5432");
    let pod = pod.annotate("portcullis.dev/external", "true").object();
    check(
        edge(),
        [pod.clone()],
        &expect![[r#"
        5432/tcp external -> pods 10.2.0.1:5432 # Pod db/a
    "#]],
    );
    check(
        plain(),
        [pod],
        &expect![[r#"
        ! NoExternalInterface Pod db/a: portcullis.dev/host-ports: "5432/tcp": is for the external interface alone, and host edge has none; not forwarded; set spec.externalInterface of the Host, or remove the annotation `external`
    "#]],
    );
}

#[test]
fn pods_with_different_allow_lists_do_not_share_a_port() {
    let pods = [
        pod("db/a", &["10.2.0.1"]).host_ports("5432").created(1),
        pod("db/b", &["10.2.0.2"])
            .host_ports("5432")
            .created(2)
            .annotate("portcullis.dev/allow-from", "10.0.0.0/8"),
    ];
    check(
        plain(),
        pods.map(IntoObject::object),
        &expect![[r#"
        5432/tcp -> pods 10.2.0.1:5432 # Pod db/a
        ! HostPortConflict Pod db/b: portcullis.dev/host-ports: "5432/tcp": taken on host edge by Pod db/a, which comes first (the older object, then by kind, namespace and name); not forwarded for this object; choose another host port, or another host with portcullis.dev/host
    "#]],
    );
}

#[test]
fn pods_of_two_namespaces_share_a_port_with_a_warning() {
    let pods = [
        pod("db/a", &["10.2.0.1"]).host_ports("5432").created(1),
        pod("lab/b", &["10.2.0.2"]).host_ports("5432").created(2),
    ];
    check(
        plain(),
        pods.map(IntoObject::object),
        &expect![[r#"
        5432/tcp -> pods 10.2.0.1:5432 10.2.0.2:5432 # Pod db/a
        ? HostPortShared Pod lab/b: portcullis.dev/host-ports: "5432/tcp": is shared on host edge with Pod db/a, which is in another namespace; choose another host port if the two do not belong together
    "#]],
    );
}

#[test]
fn ep_14_a_pod_on_its_way_out_takes_no_new_traffic() {
    let mut leaving = pod("db/a", &["10.2.0.1"]).host_ports("5432").created(1);
    leaving.metadata.deletion_timestamp = leaving.metadata.creation_timestamp.clone();
    check(plain(), [leaving.object()], &expect![""]);
}
