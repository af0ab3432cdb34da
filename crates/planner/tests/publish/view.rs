//! How the view takes in changes.

use api::object::{ObjectKind, ObjectRef};
use expect_test::expect;
use planner::object::{Change, Object};
use planner::publish::{PublishView, Support, plan};

use crate::world::{BASE, backends, objects, ports, view};

#[test]
fn a_view_is_complete_when_every_wanted_kind_was_listed() {
    for support in [
        Support::default(),
        Support { terminate: true, ..Support::default() },
        Support { http: true, terminate: true },
    ] {
        let mut view = PublishView::new(support);
        for kind in PublishView::wanted(support) {
            assert!(!view.is_complete());
            assert!(view.change(Change::Reset(kind, Vec::new())), "the first list of {kind}");
            assert!(!view.change(Change::Reset(kind, Vec::new())), "the same again");
        }
        assert!(view.is_complete());
        assert_eq!(view.missing().next(), None);
        assert!(!view.change(Change::Reset(ObjectKind::Pod, Vec::new())), "nobody asked for it");
    }
}

#[test]
fn an_object_that_says_the_same_changes_nothing() {
    let mut view = view(objects(BASE));
    let version = view.version();
    for object in objects(BASE) {
        assert!(!view.change(Change::Applied(object)));
    }
    for kind in ObjectKind::ALL {
        let of_kind = objects(BASE).into_iter().filter(|it| it.kind() == kind).collect();
        assert!(!view.change(Change::Reset(kind, of_kind)));
    }
    assert!(!view.change(Change::Deleted(ObjectRef::namespaced(ObjectKind::Gateway, "a", "b"))));
    assert_eq!(view.version(), version);
}

#[test]
fn a_list_ends_what_it_does_not_hold() {
    let gateway = "
kind: Gateway
metadata: { namespace: web, name: public, uid: u-7 }
spec: { gatewayClassName: portcullis, listeners: [{ name: tcp, port: 80, protocol: TCP }] }
---
kind: TCPRoute
metadata: { namespace: web, name: r }
spec: { parentRefs: [{ name: public }], rules: [{ backendRefs: [{ name: blog, port: 443 }] }] }
";
    let mut view = view(objects(BASE).into_iter().chain(objects(gateway)));
    let public = ObjectRef::namespaced(ObjectKind::Gateway, "web", "public");
    assert_eq!(view.uid(&public), Some("u-7"));
    for kind in ObjectKind::ALL.into_iter().rev() {
        let before = plan(&view);
        let has_any = objects(BASE).iter().chain(&objects(gateway)).any(|it| it.kind() == kind);
        assert_eq!(view.change(Change::Reset(kind, Vec::new())), has_any, "{kind}");
        assert!(has_any || plan(&view) == before, "{kind}");
    }
    assert_eq!(view.uid(&public), None);
    assert_eq!(ports(&plan(&view)), "");
}

#[test]
fn endpoints_come_and_go_and_leave_in_order() {
    let service = "
kind: Service
metadata: { namespace: web, name: shop, annotations: { portcullis.dev/gateway: fra1 } }
spec: { ipFamilies: [IPv6, IPv4], ports: [{ name: https, port: 443, targetPort: named }] }
";
    let slice = |name: &str, family: &str, endpoints: &str| {
        objects(&format!(
            "
kind: EndpointSlice
metadata: {{ namespace: web, name: {name}, labels: {{ kubernetes.io/service-name: shop }} }}
addressType: {family}
ports: [{{ name: https, port: 8443, protocol: TCP }}, {{ name: https, port: 9, protocol: UDP }}, {{ name: other, port: 10 }}]
endpoints: {endpoints}
"
        ))
    };
    let mut view = view(objects(BASE).into_iter().chain(objects(service)));
    let shown = |view: &PublishView| backends(&plan(view));
    expect![[r#"
        tcp:web/shop:443: 1x 10.1.0.2:8443@n2
    "#]]
    .assert_eq(&shown(&view));
    let apply = |view: &mut PublishView, slices: Vec<Object>| {
        for it in slices {
            view.change(Change::Applied(it));
        }
    };
    // The family that the Service prefers counts as soon as it has anything ready.
    let leaving = "[{ addresses: ['2001:db8::1'], conditions: { ready: false, serving: true, terminating: true } }]";
    apply(&mut view, slice("v6", "IPv6", leaving));
    expect![[r#"
        tcp:web/shop:443: 1x 10.1.0.2:8443@n2
    "#]]
    .assert_eq(&shown(&view));
    let mixed = "[{ addresses: ['2001:db8::1'], conditions: { ready: false, serving: true, terminating: true } },
        { addresses: ['2001:db8::2'], nodeName: n3 },
        { addresses: ['2001:db8::3'], conditions: { ready: false } }, { addresses: ['127.0.0.1'] }]";
    apply(&mut view, slice("v6", "IPv6", mixed));
    expect![[r#"
        tcp:web/shop:443: 1x [2001:db8::1]:8443 (leaving) [2001:db8::2]:8443@n3
    "#]]
    .assert_eq(&shown(&view));
    // A slice that turns to another Service takes its endpoints along.
    let mut turned = slice("v6", "IPv6", mixed);
    turned.iter_mut().for_each(|it| it.metadata_mut().labels = None);
    apply(&mut view, turned);
    expect![[r#"
        tcp:web/shop:443: 1x 10.1.0.2:8443@n2
    "#]]
    .assert_eq(&shown(&view));
}
