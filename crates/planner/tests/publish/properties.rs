//! What holds for any cluster, whatever its users wrote.

use std::collections::{BTreeMap, BTreeSet};

use planner::object::{Change, Object};
use planner::publish::{Publication, PublishView, Support, plan, statuses};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use tunnel_proto::message::{PublishedPort, Route};

use crate::world::{all_well, objects, view, view_for};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn a_publication_keeps_its_promises(world in world()) {
        let publication = plan(&view(world));
        promises(&publication)?;
        let told = statuses(&publication, &all_well(&publication));
        let objects: BTreeSet<_> = told.iter().map(|it| it.object()).collect();
        prop_assert_eq!(objects.len(), told.len(), "one status for each object");
    }

    #[test]
    fn the_order_of_objects_does_not_matter((world, shuffled) in shuffled()) {
        let one = plan(&view(world.clone()));
        let mut single = PublishView::new(Support::default());
        for object in shuffled {
            single.change(Change::Applied(object));
        }
        prop_assert_eq!(&one, &plan(&single));
        // What comes and goes leaves nothing behind.
        for object in world {
            single.change(Change::Deleted(object.reference()));
        }
        prop_assert_eq!(plan(&single), Publication::default());
    }

    #[test]
    fn a_younger_service_takes_nothing_from_anybody(world in world(), newcomer in newcomer()) {
        let before = plan(&view(world.clone()));
        let after = plan(&view(world.into_iter().chain([newcomer])));
        for (name, ports) in &before.gateways {
            for port in ports {
                let now = after.gateways[name].iter().find(|it| place(it) == place(port));
                let Some(now) = now else {
                    return Err(TestCaseError::fail(format!("{name} lost {port:?}")));
                };
                prop_assert_eq!((&now.allow_from, now.limits), (&port.allow_from, port.limits));
                match (&port.route, &now.route) {
                    (Route::ServerName(old), Route::ServerName(new)) => {
                        for led in old.iter().filter(|it| it.backend != Publication::NOBODY) {
                            prop_assert!(new.contains(led), "{led:?} is gone from {new:?}");
                        }
                    }
                    // Nobody led anywhere by name yet.
                    (Route::Nowhere, Route::ServerName(_)) => {}
                    (old, new) => prop_assert_eq!(old, new),
                }
            }
        }
    }

    #[test]
    fn what_statuses_tell_is_a_fixed_point(world in world()) {
        // Addresses written into statuses and read back change nothing.
        let first = plan(&view(world.clone()));
        let told = statuses(&first, &all_well(&first));
        let world = world.into_iter().map(|it| tell(it, &told));
        let second = plan(&view(world));
        prop_assert_eq!(first.gateways, second.gateways);
    }

    #[test]
    fn whatever_is_supported_planning_never_fails(world in world(), http: bool, terminate: bool) {
        let publication = plan(&view_for(Support { http, terminate }, world));
        promises(&publication)?;
        prop_assert!(!statuses(&publication, &BTreeMap::new()).is_empty());
    }
}

fn place(port: &PublishedPort) -> impl Ord + use<> {
    (port.address, port.protocol, port.port)
}

fn promises(publication: &Publication) -> Result<(), TestCaseError> {
    let mut led = BTreeSet::new();
    for ports in publication.gateways.values() {
        let places: Vec<_> = ports.iter().map(place).collect();
        prop_assert!(places.is_sorted_by(|a, b| a < b), "ports are in order, none twice");
        for port in ports {
            prop_assert!(port.port > 0 && !port.owner.is_empty());
            match &port.route {
                Route::Backend(key) => drop(led.insert(key.as_str())),
                Route::ServerName(names) => {
                    let unique: BTreeSet<_> = names.iter().map(|it| &it.name).collect();
                    prop_assert_eq!(unique.len(), names.len(), "no name twice");
                    led.extend(names.iter().map(|it| it.backend.as_str()));
                }
                Route::Nowhere => {}
            }
        }
    }
    led.remove(Publication::NOBODY);
    let known: BTreeSet<_> = publication.backends.keys().map(String::as_str).collect();
    prop_assert_eq!(led, known, "exactly the backends that ports lead to");
    let mut sorted = publication.findings.clone();
    sorted.sort();
    sorted.dedup();
    prop_assert_eq!(&sorted, &publication.findings);
    Ok(())
}

/// Writes the addresses of a status into its object.
fn tell(object: Object, told: &[planner::publish::StatusPatch]) -> Object {
    use planner::publish::StatusPatch;
    let reference = object.reference();
    let patch = told.iter().find(|it| it.object() == reference);
    match (object, patch) {
        (Object::Gateway(mut it), Some(StatusPatch::Gateway { status, .. })) => {
            it.status = Some(status.clone());
            Object::Gateway(it)
        }
        (Object::Service(mut it), Some(StatusPatch::Service { ingress: Some(ingress), .. })) => {
            let balancer = it.status.get_or_insert_default().load_balancer.get_or_insert_default();
            balancer.ingress = Some(ingress.clone());
            Object::Service(it)
        }
        (object, _) => object,
    }
}

fn world() -> impl Strategy<Value = Vec<Object>> {
    let edges = subsequence(EDGES.to_vec(), 1..=EDGES.len());
    let rest = prop::collection::vec(object(), 0..10);
    (edges, rest).prop_map(|(edges, rest)| {
        let fixed = [FIXED.to_owned()].into_iter().chain(edges.into_iter().map(str::to_owned));
        let all = fixed.chain(rest).flat_map(|it| objects(&it));
        // A later object of one name replaces an earlier one, as in a cluster.
        let by_name: BTreeMap<_, _> = all.map(|it| (it.reference(), it)).collect();
        by_name.into_values().collect()
    })
}

fn shuffled() -> impl Strategy<Value = (Vec<Object>, Vec<Object>)> {
    world().prop_flat_map(|it| (Just(it.clone()), Just(it).prop_shuffle()))
}

const FIXED: &str = "
kind: GatewayClass
metadata: { name: portcullis }
spec: { controllerName: portcullis.dev/gateway-controller }
---
kind: Namespace
metadata: { name: b, labels: { edge: 'yes' } }
---
kind: Service
metadata: { namespace: a, name: back }
spec: { ports: [{ name: x, port: 443 }, { name: u, port: 53, protocol: UDP }] }
---
kind: EndpointSlice
metadata: { namespace: a, name: back-1, labels: { kubernetes.io/service-name: back } }
addressType: IPv4
ports: [{ name: x, port: 8443 }]
endpoints: [{ addresses: [10.1.0.1] }]
---
kind: ReferenceGrant
metadata: { namespace: a, name: g }
spec: { from: [{ group: gateway.networking.k8s.io, kind: TLSRoute, namespace: b }], to: [{ group: '', kind: Service }] }
";

const EDGES: [&str; 4] = [
    "kind: EdgeGateway\nmetadata: { name: e1 }\nspec: { endpoints: [{ host: e1.example.com }] }",
    "kind: EdgeGateway\nmetadata: { name: e2 }\nspec: { endpoints: [{ host: e2.example.com }], addresses: [{ address: 203.0.113.1 }, { address: 203.0.113.2, advertise: two.example.com }, { address: '2001:db8::1' }] }",
    "kind: EdgeGateway\nmetadata: { name: e3 }\nspec: { endpoints: [{ host: e3.example.com, port: 443 }], grants: [{ namespaces: [a], ports: ['80', '443', 53/udp], maxPorts: 2 }, { namespaces: ['*'], hostnames: ['*.example.com'] }] }",
    "kind: EdgeGateway\nmetadata: { name: e4 }\nspec: { endpoints: [{ host: '' }] }",
];

fn namespace() -> impl Strategy<Value = &'static str> {
    select(vec!["a", "b"])
}

fn created() -> impl Strategy<Value = String> {
    (0u8..4).prop_map(|it| format!(", creationTimestamp: '2026-01-01T00:00:0{it}Z'"))
}

fn names() -> impl Strategy<Value = &'static str> {
    select(vec![
        "a.example.com",
        "*.example.com",
        "b.a.example.com",
        "*.a.example.com",
        "*.com",
        "a.example.net",
        "odd_name",
    ])
}

fn annotations() -> impl Strategy<Value = String> {
    let every = [
        ["portcullis.dev/gateway: '*'", "portcullis.dev/gateway: 'e2, e9'"],
        ["portcullis.dev/gateway-ports: '443, 80:443, 53:udp'", "portcullis.dev/gateway-ports: x"],
        [
            "portcullis.dev/hostnames: 'a.example.com, *.a.example.com'",
            "portcullis.dev/hostnames: '*.example.com'",
        ],
        ["portcullis.dev/allow-from: 10.0.0.0/8", "portcullis.dev/allow-from: 192.0.2.1"],
        ["portcullis.dev/proxy-protocol: v2", "portcullis.dev/client-address: transparent"],
        ["portcullis.dev/max-open: '7'", "portcullis.dev/target: host"],
    ];
    let chosen = subsequence(every.to_vec(), 0..4);
    (chosen, any::<bool>()).prop_map(|(chosen, second)| {
        chosen.iter().map(|it| it[usize::from(second)]).collect::<Vec<_>>().join(", ")
    })
}

fn object() -> impl Strategy<Value = String> {
    prop_oneof![3 => a_service(), 3 => a_gateway(), 2 => a_set(), 4 => a_route()]
}

fn a_service() -> impl Strategy<Value = String> {
    let address = select(vec!["", ", loadBalancerIP: 203.0.113.1", ", loadBalancerIP: 192.0.2.9"]);
    let parts = (namespace(), select(vec!["s", "t"]), created(), annotations(), any::<bool>());
    (parts, address).prop_map(|((namespace, name, created, annotations, class), address)| {
        let class = if class { "loadBalancerClass: portcullis.dev/gateway, " } else { "" };
        format!(
            "kind: Service\nmetadata: {{ namespace: {namespace}, name: {name}{created}, annotations: {{ {annotations} }} }}\nspec: {{ type: LoadBalancer, {class}ports: [{{ name: x, port: 443 }}, {{ name: u, port: 53, protocol: UDP }}]{address} }}"
        )
    })
}

/// A Service younger than every other object, which asks for no address and has none.
fn newcomer() -> impl Strategy<Value = Object> {
    annotations().prop_map(|annotations| {
        let service = format!(
            "kind: Service\nmetadata: {{ namespace: zz, name: zz, annotations: {{ {annotations} }} }}\nspec: {{ type: LoadBalancer, loadBalancerClass: portcullis.dev/gateway, ports: [{{ name: x, port: 443 }}, {{ name: u, port: 53, protocol: UDP }}] }}"
        );
        objects(&service).remove(0)
    })
}

fn listener() -> impl Strategy<Value = String> {
    let protocol = select(vec!["TCP", "UDP", "TLS", "TLS", "HTTP", "ODD"]);
    let mode = select(vec!["Passthrough", "Passthrough", "Passthrough", "Terminate"]);
    let port = select(vec![443, 443, 80, 53, 7443, 0]);
    (protocol, mode, port, prop::option::of(names()), any::<bool>()).prop_map(
        |(protocol, mode, port, name, open)| {
            let name = name.map(|it| format!(", hostname: '{it}'")).unwrap_or_default();
            let tls = if protocol == "TLS" {
                format!(", tls: {{ mode: {mode} }}")
            } else {
                String::new()
            };
            let from = if open { ", allowedRoutes: { namespaces: { from: All } }" } else { "" };
            format!("port: {port}, protocol: {protocol}{name}{tls}{from} }}")
        },
    )
}

fn listeners() -> impl Strategy<Value = String> {
    prop::collection::vec(listener(), 1..4).prop_map(|it| {
        let named = it.iter().enumerate().map(|(index, it)| format!("{{ name: l{index}, {it}"));
        named.collect::<Vec<_>>().join(", ")
    })
}

fn a_gateway() -> impl Strategy<Value = String> {
    let class = select(vec!["portcullis", "portcullis", "portcullis", "other"]);
    let address = select(vec![
        "",
        "",
        ", addresses: [{ value: 203.0.113.2 }]",
        ", addresses: [{ type: odd }]",
    ]);
    let from =
        select(vec!["Same", "All", "None", "Selector, selector: { matchLabels: { edge: 'yes' } }"]);
    let parts = (namespace(), select(vec!["g", "h"]), created(), annotations());
    (parts, class, address, from, listeners()).prop_map(
        |((namespace, name, created, annotations), class, address, from, listeners)| {
            format!(
                "kind: Gateway\nmetadata: {{ namespace: {namespace}, name: {name}{created}, annotations: {{ {annotations} }} }}\nspec: {{ gatewayClassName: {class}{address}, allowedListeners: {{ namespaces: {{ from: {from} }} }}, listeners: [{listeners}] }}"
            )
        },
    )
}

fn a_set() -> impl Strategy<Value = String> {
    let parts = (namespace(), namespace(), select(vec!["g", "h"]), created(), listeners());
    parts.prop_map(|(namespace, of, gateway, created, listeners)| {
        format!(
            "kind: ListenerSet\nmetadata: {{ namespace: {namespace}, name: l{created} }}\nspec: {{ parentRef: {{ name: {gateway}, namespace: {of} }}, listeners: [{listeners}] }}"
        )
    })
}

fn a_route() -> impl Strategy<Value = String> {
    let kind = select(vec!["TCPRoute", "UDPRoute", "TLSRoute", "TLSRoute"]);
    let parent = select(vec![
        "name: g",
        "name: h",
        "name: l, kind: ListenerSet",
        "name: g, sectionName: l1",
        "name: h, port: 443",
    ]);
    let backend = select(vec![
        "name: back, port: 443",
        "name: back, port: 53",
        "name: back, namespace: a, port: 443, weight: 0",
        "name: none",
    ]);
    let hosts = prop::collection::vec(names(), 1..3);
    let parts = (namespace(), namespace(), select(vec!["r", "q"]), created());
    (parts, kind, parent, backend, hosts).prop_map(
        |((namespace, of, name, created), kind, parent, backend, hosts)| {
            let hosts: Vec<_> = hosts.iter().map(|it| format!("'{it}'")).collect();
            let hosts = if kind == "TLSRoute" { format!("hostnames: [{}], ", hosts.join(", ")) } else { String::new() };
            format!(
                "kind: {kind}\nmetadata: {{ namespace: {namespace}, name: {name}{created} }}\nspec: {{ {hosts}parentRefs: [{{ {parent}, namespace: {of} }}], rules: [{{ backendRefs: [{{ {backend} }}] }}] }}"
            )
        },
    )
}
