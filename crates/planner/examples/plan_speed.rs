//! Prints how long planning takes, and how much memory a large view needs.
//!
//! Run it with `cargo run --release -p planner --example plan_speed [PORTS]`.

#[path = "../tests/planning/objects.rs"]
#[expect(dead_code, reason = "only some of the builders are needed here")]
mod objects;

use std::hint::black_box;

use api::object::ObjectKind;
use objects::{
    HostParts, IntoObject, Named, Readiness, ServiceParts, host, node, pod, service, slice,
};
use planner::cluster_view::{Change, ClusterView, Object};
use planner::forward::{StandingPlan, forward_plan};
use planner::host_view::HostView;
use planner::status::{outcomes, service_addresses};

const ADDRESSES: &str = r#"[{"ifname":"eth0","addr_info":[
    {"local":"203.0.113.7","prefixlen":24,"scope":"global"}]},
    {"ifname":"wg0","addr_info":[{"local":"10.8.0.1","prefixlen":24,"scope":"global"}]}]"#;

#[expect(clippy::print_stdout, reason = "printing is what this example is for")]
#[expect(clippy::disallowed_types, reason = "measuring needs a clock; the crate itself has none")]
fn main() {
    use std::time::Instant;

    let ports = std::env::args().nth(1).map_or(10_000, |it| it.parse().expect("a number"));
    let facts = HostView::read(ADDRESSES, "tcp LISTEN 0 128 *:22 *:*").expect("a plain listing");
    let before = resident_kilobytes();
    let mut view = ClusterView::default();
    let started = Instant::now();
    for change in world(ports) {
        view.change(change);
    }
    println!(
        "{:<44} {:>10.2?}",
        format!("read {ports} ports, 100 nodes, 10000 pods"),
        started.elapsed()
    );
    println!("{:<44} {:>7} kB", "resident memory grown by", resident_kilobytes() - before);

    let mut full = Vec::new();
    for _ in 0..101 {
        let started = Instant::now();
        black_box(forward_plan(&view, "edge", &facts)).expect("a plan");
        full.push(started.elapsed());
    }
    let mut plan = StandingPlan::new("edge");
    plan.update(&view, &facts).expect("a plan");
    println!("{:<44} {:>10}", "forwards in the plan", plan.desired().forwarding.forwards.len());
    let mut copied = Vec::new();
    for _ in 0..101 {
        let started = Instant::now();
        let copy = black_box(plan.desired().forwarding.clone());
        copied.push(started.elapsed());
        drop(copy);
    }
    let (mut taken_in, mut updated) = (Vec::new(), Vec::new());
    for round in 0..1001 {
        let changed = one_service(round % (ports / 10), ports, 20_000 + round);
        let started = Instant::now();
        assert!(view.change(Change::Applied(changed)), "the node port differs each time");
        taken_in.push(started.elapsed());
        let started = Instant::now();
        plan.update(&view, &facts).expect("a plan");
        updated.push(started.elapsed());
    }
    let mut flapped = Vec::new();
    for round in 0..101 {
        let ready = if round % 2 == 0 { "False" } else { "True" };
        let flapping = node("node-7", &["10.1.0.7"]).ready(ready).object();
        assert!(view.change(Change::Applied(flapping)), "its readiness differs each time");
        let started = Instant::now();
        plan.update(&view, &facts).expect("a plan");
        flapped.push(started.elapsed());
    }
    let host = "edge".to_owned();
    let mut told = Vec::new();
    for _ in 0..101 {
        let started = Instant::now();
        black_box(outcomes(&view, [(&host, plan.desired())]));
        black_box(service_addresses(&view, [(&host, &facts)]));
        told.push(started.elapsed());
    }
    for (name, mut times) in [
        ("full plan", full),
        ("copy of the plan", copied),
        ("one Service changes: view", taken_in),
        ("one Service changes: standing plan", updated),
        ("one node changes: standing plan", flapped),
        ("what became of all Services", told),
    ] {
        times.sort_unstable();
        let (median, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
        println!("{name:<44} {median:>10.2?} median {p99:>10.2?} p99 {:>10.2?} least", times[0]);
    }
}

/// The changes, one object at a time, as a source sends them that keeps nothing itself.
fn world(ports: usize) -> impl Iterator<Item = Change> {
    const KINDS: [ObjectKind; 5] = [
        ObjectKind::Service,
        ObjectKind::Pod,
        ObjectKind::Node,
        ObjectKind::EndpointSlice,
        ObjectKind::Host,
    ];
    let names: Vec<_> = (0..100).map(|it| format!("node-{it}")).collect();
    let nodes = (0..100).map(|it| node(&format!("node-{it}"), &[&format!("10.1.0.{it}")]).object());
    let services = (0..ports / 10).map(move |it| one_service(it, ports, 30_000));
    let slices = (0..ports / 10).map(move |it| {
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        slice(&format!("shop-{}/service-{it}", it % 20), &names).object()
    });
    let pods = (0..10_000).map(|it| {
        let pod = pod(&format!("shop/pod-{it}"), &["10.2.3.4"]);
        pod.annotate("prometheus.io/scrape", "true").object()
    });
    let host = host("edge", &["eth0", "wg0"]).external("eth0").object();
    let objects = std::iter::once(host).chain(nodes).chain(services).chain(slices).chain(pods);
    let empty = KINDS.into_iter().map(|it| Change::Reset(it, Vec::new()));
    empty.chain(objects.map(Change::Applied))
}

/// A Service with ten host ports; every tenth has an allow list.
fn one_service(number: usize, ports: usize, node_port: usize) -> Object {
    let wanted: Vec<_> = (0..10)
        .map(|it| {
            let port = 1 + number * 10 + it;
            // More ports than TCP has go on as UDP.
            let (port, protocol) =
                if port > 65_535 { (port - 65_535, "udp") } else { (port, "tcp") };
            format!("{port}:{}:{protocol}", node_port + it)
        })
        .collect();
    let service =
        (0..10i32).fold(service(&format!("shop-{}/service-{number}", number % 20)), |it, port| {
            let node_port = i32::try_from(node_port).expect("small") + port;
            it.port_of(if number * 10 >= 65_535 { "UDP" } else { "TCP" }, 80 + port, node_port)
        });
    let service = service
        .created(i64::try_from(ports - number).expect("small"))
        .host_ports(&wanted.join(","));
    let service = match number % 10 {
        0 => service.annotate("portcullis.dev/allow-from", "10.0.0.0/8, 2001:db8::/32"),
        _ => service,
    };
    service.object()
}

/// Resident memory of this process, from `/proc`; 0 where there is none.
#[expect(
    clippy::disallowed_methods,
    reason = "measuring reads /proc; the crate itself reads nothing"
)]
fn resident_kilobytes() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}
