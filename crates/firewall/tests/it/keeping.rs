//! What a host still forwards for a broken object stays, and only that.

use std::collections::BTreeSet;

use api::object::{ObjectKind, ObjectRef};
use expect_test::{Expect, expect};
use firewall::Observed;

use crate::cases;
use crate::laws::BACKENDS;

const HEAD: &str = "internal eth0\n nodes all 10.0.0.1 10.0.0.2\n";

#[test]
fn a_broken_owner_keeps_its_forwards_and_others_lose_theirs() {
    check(
        &format!(
            "{HEAD} 443/tcp nodes all:30443 for Service web/blog from 10.0.0.0/8
             80/tcp nodes all:30080 for Service web/gone
             53/udp pods 10.244.0.1:53 for Service web/blog"
        ),
        HEAD,
        expect![[r#"
            - 80/tcp -> nodes-all-2:30080 (Service web/gone)
            - IPv4 80/tcp -> 10.0.0.1:30080, 10.0.0.2:30080 (Service web/gone)
        "#]],
    );
}

#[test]
fn what_is_desired_wins_over_what_is_kept() {
    check(
        &format!("{HEAD} 443/tcp nodes all:30443 for Service web/blog"),
        &format!("{HEAD} 443/tcp nodes all:30444 for Service web/other"),
        expect![[r#"
            ~ 443/tcp -> nodes-all-1:30444 (Service web/other), was nodes-all-1:30443 (Service web/blog)
            ~ IPv4 443/tcp -> 10.0.0.1:30444, 10.0.0.2:30444 (Service web/other), was -> 10.0.0.1:30443, 10.0.0.2:30443 (Service web/blog)
        "#]],
    );
}

#[test]
fn a_kept_port_is_not_kept_beside_one_that_meets_the_same_packets() {
    let head = "external eth0\n internal wg0\n destinations 203.0.113.1\n nodes all 10.0.0.1\n";
    check(
        &format!("{head} 443/tcp internal nodes all:30443 for Service web/blog"),
        &format!("{head} 443/tcp nodes all:30444 for Service web/other"),
        expect![[r#"
            + 443/tcp -> nodes-all-1:30444 (Service web/other)
            - 443/tcp internal -> nodes-all-1-internal:30443 (Service web/blog)
            + IPv4 443/tcp -> 10.0.0.1:30444 (Service web/other)
            - IPv4 443/tcp internal -> 10.0.0.1:30443 (Service web/blog)
        "#]],
    );
}

#[test]
fn kept_forwards_follow_the_nodes_where_their_chain_is_the_nodes_own() {
    let backend = firewall::Backend::Nftables;
    let before = format!("{HEAD} 443/tcp nodes all:30443 for Service web/blog");
    let before = backend.render(&cases::read(&before).expect("it reads")).as_observed();
    let after = "internal eth0\n nodes all 10.0.0.3";
    let after = backend.render(&cases::read(after).expect("it reads"));
    let plan = backend.plan(&after, &before, &keep());
    assert_eq!(plan.to_string(), "~ nodes-all: 10.0.0.3\n");
}

#[test]
fn kept_forwards_are_still_masqueraded_and_accepted() {
    let head = format!("{HEAD} options masquerade accept-forwarded\n");
    check(&format!("{head} 443/tcp nodes all:30443 for Service web/blog"), &head, expect![""]);
}

#[track_caller]
fn check(before: &str, after: &str, expected: Expect) {
    let mut told = String::new();
    for backend in BACKENDS {
        let before = backend.render(&cases::read(before).expect("it reads")).as_observed();
        let after = backend.render(&cases::read(after).expect("it reads"));
        let plan = backend.plan(&after, &before, &keep());
        told += &plan.to_string();
        let mut observed: Observed = before.clone();
        plan.apply_to(&mut observed);
        assert!(backend.plan(&after, &observed, &keep()).is_empty());
        let without = backend.plan(&after, &observed, &BTreeSet::new());
        without.apply_to(&mut observed);
        assert_eq!(observed, after.as_observed(), "a mended owner is as desired");
    }
    expected.assert_eq(&told);
}

fn keep() -> BTreeSet<ObjectRef> {
    [ObjectRef::namespaced(ObjectKind::Service, "web", "blog")].into()
}
