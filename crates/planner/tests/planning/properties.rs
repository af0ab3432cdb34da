//! What holds for any cluster, whatever its users wrote.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use api::host::Host;
use api::object::ObjectRef;
use k8s_openapi::api::discovery::v1::EndpointConditions;
use planner::check;
use planner::cluster_view::{Change, Object};
use planner::forward::{StandingPlan, forward_plan};
use planner::host_view::HostView;
use planner::status::{outcomes, service_addresses};
use proptest::prelude::*;
use proptest::sample::select;

use crate::objects::{
    HostParts, IntoObject, Named, Readiness, ServiceParts, host, node, pod, service, slice,
};
use crate::world::{KINDS, facts, plan, service_ref, view};

proptest! {
    #[test]
    fn a_plan_keeps_its_promises_and_a_standing_plan_is_the_plan(
        start in world(), changes in prop::collection::vec((change(), own_facts()), 0..12),
    ) {
        let mut view = view(start);
        let mut standing = StandingPlan::new("edge");
        for (change, facts) in changes {
            let before = forward_plan(&view, "edge", &facts);
            let changed = view.change(change);
            let now = forward_plan(&view, "edge", &facts);
            if let Ok(desired) = &now {
                prop_assert_eq!(check::violations(&desired.forwarding), []);
            }
            prop_assert!(changed || now == before, "the view said that nothing changed");
            match standing.update(&view, &facts) {
                Ok(_) => prop_assert_eq!(Some(standing.desired()), now.as_ref().ok()),
                Err(error) => prop_assert_eq!(Some(&error), now.as_ref().err()),
            }
        }
    }

    #[test]
    fn the_order_in_which_objects_come_does_not_matter(
        (sorted, shuffled) in world().prop_flat_map(|it| (Just(it.clone()), Just(it).prop_shuffle())),
    ) {
        let listed = forward_plan(&view(sorted), "edge", &facts());
        let mut one_by_one = view([]);
        for object in shuffled {
            one_by_one.change(Change::Applied(object));
        }
        prop_assert_eq!(forward_plan(&one_by_one, "edge", &facts()), listed);
    }

    #[test]
    fn what_came_and_went_leaves_no_trace(start in objects(), passing in objects()) {
        let expected = forward_plan(&view(start.clone()), "edge", &facts());
        let mut view = view(start.clone());
        let known: Vec<_> = start.iter().map(Object::reference).collect();
        let passing: Vec<_> =
            passing.into_iter().filter(|it| !known.contains(&it.reference())).collect();
        for object in &passing {
            view.change(Change::Applied(object.clone()));
        }
        for object in &passing {
            view.change(Change::Deleted(object.reference()));
        }
        prop_assert_eq!(forward_plan(&view, "edge", &facts()), expected);
    }

    #[test]
    fn ep_11_a_broken_object_changes_nothing_for_others(start in objects(), text in "\\PC{0,12}") {
        let mut view = view(with_edge(start));
        let before = plan(&view);
        let broken = service("broken/broken").port(80, 30080).host_ports("80,81,90-95:x");
        let broken = broken.annotate("portcullis.dev/allow-from", &text);
        view.change(Change::Applied(broken.object()));
        let after = plan(&view);
        prop_assert_eq!(&after.forwarding, &before.forwarding);
        let others = after.findings.iter().filter(|it| it.object != service_ref("broken", "broken"));
        prop_assert!(others.eq(&before.findings));
    }

    #[test]
    fn ep_11_no_annotation_reaches_a_plan_unread(key in annotation_key(), text in "\\PC{0,40}") {
        let marked = format!("{text}\u{2603}");
        let web = service("web/a").port(80, 30080).host_ports("80").annotate(key, &marked);
        let pod = pod("web/a", &["10.2.0.1"]).host_ports("81").annotate(key, &marked);
        let view = view(with_edge(vec![web.object(), pod.object()]));
        let forwarding = plan(&view).forwarding;
        let leaked = format!("{forwarding:?}").contains('\u{2603}');
        prop_assert!(!leaked, "{}", forwarding);
    }

    #[test]
    fn ep_15_the_oldest_object_never_loses(start in objects()) {
        let mut view = view(with_edge(start));
        let oldest = service("zz/oldest").port(80, 30080).host_ports("1-200").created(1);
        view.change(Change::Applied(oldest.object()));
        view.change(Change::Applied(node("n1", &["10.0.0.1"]).object()));
        let forwards = plan(&view).forwarding.forwards;
        let won = forwards.values().filter(|it| it.owner == service_ref("zz", "oldest"));
        prop_assert_eq!(won.count(), 200);
    }

    #[test]
    fn what_a_status_tells_changes_no_plan(
        start in world(), name in select(vec!["edge", "other"]), applied in select(vec!["True", "False"]),
    ) {
        let before = view(start.clone());
        let told = |it: Object| {
            if let Object::Host(host) = &it && host.metadata.name.as_deref() == Some(name) {
                return Host::clone(host).tells(&["192.0.2.9"], applied).object();
            }
            it
        };
        let after = view(start.into_iter().map(told));
        let plans = [&before, &after].map(|it| forward_plan(it, "edge", &facts()));
        prop_assert_eq!(&plans[0], &plans[1]);
    }

    #[test]
    fn a_load_balancer_is_announced_exactly_when_it_is_forwarded(start in objects()) {
        let view = view(with_edge(start));
        let desired = plan(&view);
        let hosts = BTreeMap::from([("edge".to_owned(), facts())]);
        for (owner, addresses) in service_addresses(&view, &hosts) {
            let forwarded = desired.forwarding.forwards.values().any(|it| it.owner == owner);
            let mut own = addresses.iter().filter(|it| **it != OF_ANOTHER_HOST);
            prop_assert_eq!(own.next().is_some(), forwarded, "{}", owner);
        }
        let plans = BTreeMap::from([("edge".to_owned(), desired)]);
        for (owner, outcomes) in outcomes(&view, &plans) {
            for outcome in outcomes {
                let told = outcome.is_complete() || !outcome.why_not.is_empty();
                prop_assert!(told, "{} was not told why: {}", owner, outcome);
            }
        }
    }
}

/// The address that the status of a Host tells; no host has it.
const OF_ANOTHER_HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// Adds the host `edge` where it is missing or is not sound.
fn with_edge(objects: Vec<Object>) -> Vec<Object> {
    with(host("edge", &["eth0", "wg0"]).external("eth0").object(), objects)
}

/// Adds an object, in place of the one of its name.
fn with(object: Object, objects: Vec<Object>) -> Vec<Object> {
    let others = objects.into_iter().filter(|it| it.reference() != object.reference());
    others.chain([object.clone()]).collect()
}

/// Mostly a cluster with a sound host and a node, so that there is something to plan.
fn world() -> impl Strategy<Value = Vec<Object>> {
    let status = select(vec!["True", "True", "Unknown"]);
    let edge = select(vec![
        host("edge", &["eth0", "wg0"]).external("eth0"),
        host("edge", &["eth0", "wg0"]).over_ssh("203.0.113.7", 22),
    ]);
    let sound = (objects(), status, edge).prop_map(|(objects, status, edge)| {
        let n1 = node("n1", &["10.0.0.1"]).ready(status).object();
        with(edge.object(), with(n1, objects))
    });
    prop_oneof![3 => sound, 1 => objects()]
}

/// Objects of a small cluster, none twice. Names and ports are few, so that they meet.
fn objects() -> impl Strategy<Value = Vec<Object>> {
    prop::collection::vec(object(), 0..14).prop_map(|objects| {
        let unique: BTreeMap<ObjectRef, Object> =
            objects.into_iter().map(|it| (it.reference(), it)).collect();
        unique.into_values().collect()
    })
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => object().prop_map(Change::Applied),
        2 => object().prop_map(|it| Change::Deleted(it.reference())),
        1 => (select(&KINDS[..]), objects()).prop_map(|(kind, objects)| {
            let of_kind = objects.into_iter().filter(|it| it.reference().kind == kind);
            Change::Reset(kind, of_kind.collect())
        }),
    ]
}

/// What the host says about itself, which changes now and then.
fn own_facts() -> impl Strategy<Value = HostView> {
    (0u8..8).prop_map(|which| {
        let mut facts = facts();
        match which {
            0 => facts.addresses.clear(),
            1 => facts.listeners.clear(),
            2 => facts.addresses.values_mut().for_each(Vec::clear),
            _ => {}
        }
        facts
    })
}

fn object() -> impl Strategy<Value = Object> {
    prop_oneof![
        6 => a_service(),
        4 => a_pod(),
        2 => a_node(),
        2 => a_slice(),
        2 => a_host(),
    ]
}

fn a_service() -> impl Strategy<Value = Object> {
    let parts = (name(), age(), host_ports(), annotations(), any::<bool>(), any::<bool>());
    let families = select(vec![&[][..], &["IPv4"], &["IPv6"], &["IPv4", "IPv6"], &["odd"]]);
    let spec = (0u8..4, select(vec![0, 30080, 30081]), any::<bool>(), families);
    (parts, spec).prop_map(
        |((name, age, ports, annotations, local, sticky), (kind, node_port, ranges, families))| {
            let service = service(name).port(80, node_port).port_of("UDP", 53, 30053);
            let service = match kind {
                0 => service.spec(|it| it.type_ = None),
                1 => service.load_balancer(),
                _ => service,
            };
            let service = if local { service.local() } else { service };
            let service = service.spec(|it| {
                it.ip_families = Some(families.iter().map(|it| (*it).to_owned()).collect());
                it.session_affinity = sticky.then(|| "ClientIP".to_owned());
                it.load_balancer_source_ranges = ranges.then(|| vec!["10.0.0.0/9".to_owned()]);
            });
            dress(service, age, ports, annotations).object()
        },
    )
}

fn a_pod() -> impl Strategy<Value = Object> {
    let addresses = select(vec![&["10.2.0.1"][..], &["10.2.0.2", "2001:db8:2::2"], &[]]);
    let parts = (name(), age(), host_ports(), annotations(), addresses, any::<bool>());
    parts.prop_map(|(name, age, ports, annotations, addresses, ready)| {
        let pod = pod(name, addresses).ready(if ready { "True" } else { "False" });
        dress(pod, age, ports, annotations).object()
    })
}

fn a_node() -> impl Strategy<Value = Object> {
    let addresses =
        select(vec![&["10.0.0.1"][..], &["10.0.0.2", "2001:db8:1::2"], &["203.0.113.7"], &[]]);
    let status = select(vec!["True", "True", "False", "Unknown", "Unknown"]);
    (select(vec!["n1", "n2", "n3"]), addresses, status, any::<bool>()).prop_map(
        |(name, addresses, status, odd)| {
            let node = node(name, addresses).ready(status);
            if odd {
                node.annotate("portcullis.dev/exclude", "odd").object()
            } else {
                node.object()
            }
        },
    )
}

fn a_slice() -> impl Strategy<Value = Object> {
    let condition = || prop::option::of(any::<bool>());
    let conditions = prop::collection::vec((condition(), condition()), 3);
    (name(), nodes(), conditions).prop_map(|(name, nodes, conditions)| {
        let mut slice = slice(name, &nodes);
        let endpoints = slice.endpoints.iter_mut().flatten();
        for (endpoint, (ready, terminating)) in endpoints.zip(conditions) {
            endpoint.conditions = Some(EndpointConditions { ready, serving: ready, terminating });
        }
        slice.object()
    })
}

fn a_host() -> impl Strategy<Value = Object> {
    let interfaces = select(vec![&["eth0", "wg0"][..], &["eth0"], &["eth9"], &[]]);
    let external = select(vec![None, Some("eth0"), Some("eth9")]);
    let told = select(vec![None, Some((&["192.0.2.1"][..], "True")), Some((&[], "False"))]);
    (select(vec!["edge", "other"]), interfaces, external, told, any::<bool>()).prop_map(
        |(name, interfaces, external, told, ssh)| {
            let host = host(name, interfaces);
            let host = match told {
                Some((addresses, applied)) => host.tells(addresses, applied),
                None => host,
            };
            let host = if ssh { host.over_ssh("203.0.113.7", 22) } else { host };
            HostParts::spec(host, |it| it.external_interface = external.map(str::to_owned)).object()
        },
    )
}

/// Gives a Service or a Pod its age and its annotations.
fn dress<T: Named>(
    object: T,
    age: Option<i64>,
    ports: String,
    annotations: Vec<(&str, &str)>,
) -> T {
    let object = object.host_ports(&ports);
    let object = annotations.into_iter().fold(object, |it, (key, value)| it.annotate(key, value));
    match age {
        Some(age) => object.created(age),
        None => object,
    }
}

fn name() -> impl Strategy<Value = &'static str> {
    select(vec!["web/a", "web/b", "db/a", "db/b"])
}

fn nodes() -> impl Strategy<Value = Vec<&'static str>> {
    prop::collection::vec(select(vec!["n1", "n2", "n9"]), 0..3)
}

fn age() -> impl Strategy<Value = Option<i64>> {
    prop::option::of(1_000i64..1_003)
}

fn host_ports() -> impl Strategy<Value = String> {
    let entry = select(vec![
        "80",
        "81",
        "22",
        "80:30080",
        "81:31000",
        "53:udp",
        "53:30053:udp",
        "90-92",
        "30443:30080",
        "91-93:30091-30093",
        "99:30099:sctp",
    ]);
    let sound = prop::collection::vec(entry, 0..4).prop_map(|it| it.join(", "));
    prop_oneof![9 => sound, 1 => "\\PC{0,10}"]
}

fn annotation_key() -> impl Strategy<Value = &'static str> {
    use api::annotation::key;
    select(vec![
        key::HOST_PORTS,
        key::HOST,
        key::INTERNAL,
        key::EXTERNAL,
        key::ALLOW_FROM,
        key::EPOK_EXTERNAL_PORTS,
        key::EPOK_EXTERNAL_PORT,
        key::EPOK_INTERNAL,
        key::EPOK_EXTERNAL,
        key::EPOK_ALLOW_RANGE,
    ])
}

fn annotations() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    let annotation = select(vec![
        ("portcullis.dev/internal", "true"),
        ("portcullis.dev/internal", "false"),
        ("portcullis.dev/internal", "odd"),
        ("portcullis.dev/external", "true"),
        ("epok.getbetter.ro/internal", ""),
        ("epok.getbetter.ro/external", ""),
        ("portcullis.dev/host", "edge"),
        ("portcullis.dev/host", "other"),
        ("portcullis.dev/host", "edge, nowhere"),
        ("portcullis.dev/host", "nowhere"),
        ("portcullis.dev/allow-from", "10.0.0.0/8"),
        ("portcullis.dev/allow-from", "192.0.2.0/24, 2001:db8::/32"),
        ("portcullis.dev/allow-from", "odd"),
        ("epok.getbetter.ro/allow-range", "10.0.0.0/8"),
    ]);
    prop::collection::vec(annotation, 0..3)
}
