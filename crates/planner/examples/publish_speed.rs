//! Prints how long it takes to plan what gateways publish, and to tell everybody.
//!
//! Run it with `cargo run --release -p planner --example publish_speed [SERVICES]`.

use std::collections::BTreeMap;
use std::hint::black_box;

use api::object::ObjectKind;
use planner::object::{Change, Object};
use planner::publish::{GatewayObserved, PublishView, Support, plan, statuses};
use serde_json::{Value, json};
use tunnel_proto::message::{PortReport, PortState, Report};

#[expect(clippy::print_stdout, reason = "printing is what this example is for")]
#[expect(clippy::disallowed_types, reason = "measuring needs a clock; the crate itself has none")]
fn main() {
    use std::time::Instant;

    let services = std::env::args().nth(1).map_or(1_000, |it| it.parse().expect("a number"));
    let mut view = PublishView::new(Support::default());
    let started = Instant::now();
    for kind in ObjectKind::ALL {
        view.change(Change::Reset(kind, Vec::new()));
    }
    for object in world(services) {
        view.change(Change::Applied(object));
    }
    println!("{:<44} {:>10.2?}", format!("read {services} Services"), started.elapsed());

    let publication = plan(&view);
    let ports: usize = publication.gateways.values().map(Vec::len).sum();
    println!("{:<44} {ports:>10}", "ports in the plan");
    println!("{:<44} {:>10}", "backends in the plan", publication.backends.len());
    println!("{:<44} {:>10}", "findings in the plan", publication.findings.len());
    let observed: BTreeMap<_, _> = publication
        .gateways
        .iter()
        .map(|(name, ports)| {
            let ports = ports.iter().map(|it| PortReport {
                address: it.address,
                port: it.port,
                protocol: it.protocol,
                state: PortState::Listening,
                open: 0,
                total: 0,
                received: 0,
                sent: 0,
                failed: 0,
                probed: None,
            });
            let report = Some(Report { ports: ports.collect(), ..Report::default() });
            let connected = true;
            (name.clone(), GatewayObserved { connected, report, ..GatewayObserved::default() })
        })
        .collect();
    let (mut taken_in, mut planned, mut told) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..101 {
        // The odd ones have ports of their own.
        let changed = service((2 * round + 1) % services, 20_000 + round);
        let started = Instant::now();
        assert!(view.change(Change::Applied(changed)), "the port differs each time");
        taken_in.push(started.elapsed());
        let started = Instant::now();
        let publication = black_box(plan(&view));
        planned.push(started.elapsed());
        let started = Instant::now();
        black_box(statuses(&publication, &observed));
        told.push(started.elapsed());
    }
    for (name, mut times) in
        [("one Service changes: view", taken_in), ("full plan", planned), ("statuses", told)]
    {
        times.sort_unstable();
        let (median, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
        println!("{name:<44} {median:>10.2?} median {p99:>10.2?} p99 {:>10.2?} least", times[0]);
    }
}

/// Two gateways; of the Services every other one shares port 443 by name and the rest have two
/// ports of their own; each has three endpoints. Fifty Gateways with a route each.
fn world(services: usize) -> impl Iterator<Item = Object> {
    let edges = ["fra1", "ams1"].map(|name| {
        let spec = json!({
            "endpoints": [{ "host": format!("{name}.example.com") }],
            "addresses": [{ "address": "203.0.113.7" }, { "address": "2001:db8::7" }],
        });
        Object::EdgeGateway(typed(json!({ "metadata": { "name": name }, "spec": spec })))
    });
    let class = Object::GatewayClass(typed(json!({
        "metadata": { "name": "portcullis" },
        "spec": { "controllerName": "portcullis.dev/gateway-controller" },
    })));
    let gateways = (0..50).flat_map(|it| {
        let gateway = json!({
            "metadata": { "namespace": "infra", "name": format!("gateway-{it}") },
            "spec": { "gatewayClassName": "portcullis", "listeners": [
                { "name": "tcp", "port": 40_000 + it, "protocol": "TCP" },
                { "name": "tls", "port": 8443, "protocol": "TLS", "tls": { "mode": "Passthrough" },
                  "hostname": format!("*.gateway-{it}.example.com") },
            ] },
        });
        let route = json!({
            "metadata": { "namespace": "infra", "name": format!("route-{it}") },
            "spec": { "parentRefs": [{ "name": format!("gateway-{it}") }],
                      "rules": [{ "backendRefs": [{ "name": "nobody", "port": 80 }] }] },
        });
        [Object::Gateway(typed(gateway)), Object::TcpRoute(typed(route))]
    });
    let services = (0..services).flat_map(|it| [service(it, 10_000 + it), slice(it)]);
    edges.into_iter().chain([class]).chain(gateways).chain(services)
}

fn service(number: usize, port: usize) -> Object {
    let mut metadata = json!({
        "namespace": format!("shop-{}", number % 20), "name": format!("service-{number}"),
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "annotations": { "portcullis.dev/gateway": "*" },
    });
    let annotations = &mut metadata["annotations"];
    if number.is_multiple_of(2) {
        annotations["portcullis.dev/hostnames"] = format!("service-{number}.example.com").into();
        annotations["portcullis.dev/gateway-ports"] = "443:80".into();
    } else {
        let port = port % 30_000 + 1_000;
        annotations["portcullis.dev/gateway-ports"] = format!("{port}:80, {port}:53:udp").into();
    }
    Object::Service(typed(json!({
        "metadata": metadata,
        "spec": { "ports": [{ "name": "http", "port": 80 }, { "name": "dns", "port": 53, "protocol": "UDP" }] },
    })))
}

fn slice(number: usize) -> Object {
    let name = format!("service-{number}");
    let endpoints = (1..=3).map(|it| {
        let address = format!("10.{it}.{}.{}", number / 250, number % 250 + 1);
        json!({ "addresses": [address], "nodeName": format!("node-{it}") })
    });
    Object::EndpointSlice(typed(json!({
        "metadata": {
            "namespace": format!("shop-{}", number % 20), "name": format!("{name}-1"),
            "labels": { "kubernetes.io/service-name": name },
        },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": 8080 }, { "name": "dns", "port": 53, "protocol": "UDP" }],
        "endpoints": endpoints.collect::<Vec<_>>(),
    })))
}

fn typed<T: serde::de::DeserializeOwned>(value: Value) -> Box<T> {
    Box::new(serde_json::from_value(value).expect("a sound object"))
}
