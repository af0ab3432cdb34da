//! A cluster and a host for tests, and the text that a plan is compared with.

use std::fmt::Write as _;

use api::object::{ObjectKind, ObjectRef};
use expect_test::Expect;
use planner::check;
use planner::cluster_view::{Change, ClusterView, Object};
use planner::finding::Severity;
use planner::forward::{HostDesired, forward_plan};
use planner::host_view::HostView;

use crate::objects::{HostParts, IntoObject, host, node};

/// Every kind that a view wants to see listed.
pub(crate) const KINDS: [ObjectKind; 5] = [
    ObjectKind::Service,
    ObjectKind::Pod,
    ObjectKind::Node,
    ObjectKind::EndpointSlice,
    ObjectKind::Host,
];

/// `eth0` faces strangers, `wg0` is a VPN; sshd listens.
pub(crate) fn facts() -> HostView {
    let addresses = r#"[
        {"ifname":"lo","addr_info":[{"local":"127.0.0.1","prefixlen":8,"scope":"host"}]},
        {"ifname":"eth0","addr_info":[
            {"local":"203.0.113.7","prefixlen":24,"scope":"global"},
            {"local":"2001:db8::7","prefixlen":64,"scope":"global"},
            {"local":"fe80::7","prefixlen":64,"scope":"link"}]},
        {"ifname":"wg0","addr_info":[{"local":"10.8.0.1","prefixlen":24,"scope":"global"}]}]"#;
    HostView::read(addresses, "tcp LISTEN 0 128 0.0.0.0:22 0.0.0.0:*").expect("a plain listing")
}

/// The host `edge` with `eth0` and `wg0`, of which `eth0` is external, and two ready nodes.
pub(crate) fn edge() -> Vec<Object> {
    let mut objects = nodes();
    objects.push(host("edge", &["eth0", "wg0"]).external("eth0").object());
    objects
}

/// The host `edge` with `eth0` and `wg0`, none of them external, and two ready nodes.
pub(crate) fn plain() -> Vec<Object> {
    let mut objects = nodes();
    objects.push(host("edge", &["eth0", "wg0"]).object());
    objects
}

fn nodes() -> Vec<Object> {
    vec![node("n1", &["10.0.0.1"]).object(), node("n2", &["10.0.0.2", "2001:db8:1::2"]).object()]
}

/// A view that saw complete lists of these objects.
pub(crate) fn view(objects: impl IntoIterator<Item = Object>) -> ClusterView {
    let mut view = ClusterView::default();
    let objects: Vec<_> = objects.into_iter().collect();
    for kind in KINDS {
        let of_kind = objects.iter().filter(|it| it.reference().kind == kind).cloned();
        view.change(Change::Reset(kind, of_kind.collect()));
    }
    view
}

/// The plan for the host `edge` with the facts of [`facts`].
pub(crate) fn plan(view: &ClusterView) -> HostDesired {
    let desired = forward_plan(view, "edge", &facts()).expect("the view is complete");
    assert_eq!(check::violations(&desired.forwarding), []);
    desired
}

/// The forwards of a plan, one a line; then what is wrong: `!` has no effect, `?` is a warning.
pub(crate) fn forwards(desired: &HostDesired) -> String {
    let whole = desired.forwarding.to_string();
    let forwards = whole.lines().filter(|it| it.contains(" -> "));
    let mut text: String = forwards.flat_map(|it| [it, "\n"]).collect();
    for finding in &desired.findings {
        let mark = match finding.severity {
            Severity::Error => '!',
            Severity::Warning => '?',
            Severity::Note => '.',
        };
        writeln!(text, "{mark} {} {finding}", finding.reason).expect("writing to a String");
    }
    for object in &desired.unreadable {
        writeln!(text, "kept as it is: {object}").expect("writing to a String");
    }
    text
}

/// Compares forwards and findings for `edge` among these objects.
#[track_caller]
pub(crate) fn check(
    world: Vec<Object>,
    objects: impl IntoIterator<Item = Object>,
    expected: &Expect,
) {
    let view = view(world.into_iter().chain(objects));
    expected.assert_eq(&forwards(&plan(&view)));
}

/// Names a Service.
pub(crate) fn service_ref(namespace: &str, name: &str) -> ObjectRef {
    ObjectRef::namespaced(ObjectKind::Service, namespace, name)
}
