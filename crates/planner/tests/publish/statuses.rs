//! What statuses say while gateways come, go and refuse.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use api::object::ObjectKind;
use expect_test::{Expect, expect};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use planner::publish::{
    GatewayObserved, Publication, Reachability, StatusPatch, keep_times, plan, quota_finding,
    statuses,
};
use tunnel_proto::message::{
    PortState, Probed, QuotaAction, QuotaReport, Reached, Report, SessionReport,
};

use crate::world::{all_well, findings, objects, published, report, show_patch, view};

const SERVICE: &str = "
kind: Service
metadata: { namespace: web, name: blog, generation: 2 }
spec:
  type: LoadBalancer
  loadBalancerClass: portcullis.dev/gateway
  ports: [{ name: https, port: 443 }, { name: dns, port: 53, protocol: UDP }]
---
kind: EdgeGateway
metadata: { name: ams1, generation: 5 }
spec: { endpoints: [{ host: ams1.example.com }, { host: 198.51.100.9, port: 443 }] }
---
kind: Gateway
metadata: { namespace: infra, name: public, generation: 9 }
spec: { gatewayClassName: portcullis, listeners: [{ name: tcp, port: 80, protocol: TCP }] }
";

#[test]
fn every_gateway_that_serves_is_listed_with_its_mode() {
    let publication = published(SERVICE);
    check(
        &publication,
        &all_well(&publication),
        &expect![[r#"
        Service web/blog: portcullis.dev/Published (PublishedInPart: 443/tcp: is the port by which agents dial gateway ams1; not published there) [ams1.example.com 198.51.100.9 (Proxy) 203.0.113.7 (Proxy)]
        Gateway infra/public: Accepted, Programmed [ams1.example.com 198.51.100.9 203.0.113.7] 0 sets
          tcp (TCPRoute) 0 routes: Accepted, Programmed, ResolvedRefs
        EdgeGateway ams1: Accepted, Adopted, Connected, Available, Ready, perhaps Reachable (Unknown: nobody tried its public ports) []
        EdgeGateway fra1: Accepted, Adopted, Connected, Available, Ready, perhaps Reachable (Unknown: nobody tried its public ports) []
    "#]],
    );
}

#[test]
fn a_gateway_without_an_agent_leaves_the_statuses() {
    let publication = published(SERVICE);
    let mut observed = all_well(&publication);
    let ams = observed.get_mut("ams1").expect("it is there");
    *ams = GatewayObserved { connected: false, ..ams.clone() };
    ams.last_error = Some("connection refused".to_owned());
    ams.adopted = Some(true);
    check(
        &publication,
        &observed,
        &expect![[r#"
        Service web/blog: portcullis.dev/Published (PublishedInPart: 443/tcp: is the port by which agents dial gateway ams1; not published there; no agent is connected to gateway ams1) [203.0.113.7 (Proxy)]
        Gateway infra/public: Accepted, Programmed [203.0.113.7] 0 sets
          tcp (TCPRoute) 0 routes: Accepted, Programmed (Programmed: no agent is connected to gateway ams1), ResolvedRefs
        EdgeGateway ams1: Accepted, Adopted, not Connected (NotConnected: no agent is connected: connection refused), not Available (NotConnected: no agent is connected: connection refused), not Ready (NotConnected: no agent is connected: connection refused), perhaps Reachable (Unknown: nobody tried its public ports) []
        EdgeGateway fra1: Accepted, Adopted, Connected, Available, Ready, perhaps Reachable (Unknown: nobody tried its public ports) []
    "#]],
    );
    check(
        &publication,
        &BTreeMap::new(),
        &expect![[r#"
        Service web/blog: not portcullis.dev/Published (PortIsTunnel: 443/tcp: is the port by which agents dial gateway ams1; not published there; no agent is connected to gateway ams1; no agent is connected to gateway fra1) []
        Gateway infra/public: Accepted, not Programmed (Pending: listener tcp: no agent is connected to gateway ams1; no agent is connected to gateway fra1) [] 0 sets
          tcp (TCPRoute) 0 routes: Accepted, not Programmed (Pending: no agent is connected to gateway ams1; no agent is connected to gateway fra1), ResolvedRefs
        EdgeGateway ams1: Accepted, perhaps Adopted (Unknown: it was never reached), not Connected (NotConnected: no agent is connected), not Available (NotConnected: no agent is connected), not Ready (NotConnected: no agent is connected), perhaps Reachable (Unknown: nobody tried its public ports) []
        EdgeGateway fra1: Accepted, perhaps Adopted (Unknown: it was never reached), not Connected (NotConnected: no agent is connected), not Available (NotConnected: no agent is connected), not Ready (NotConnected: no agent is connected), perhaps Reachable (Unknown: nobody tried its public ports) []
    "#]],
    );
}

#[test]
fn wb_05_a_gateway_whose_public_ports_do_not_answer_is_not_announced() {
    let publication = published(SERVICE);
    let mut observed = all_well(&publication);
    let fra1 = observed.get_mut("fra1").expect("it is there");
    fra1.reachable = Some(Reachability {
        reachable: false,
        reason: "PortFiltered".to_owned(),
        message: "443/tcp of 203.0.113.7 does not answer".to_owned(),
    });
    probe(fra1, &Reached::Filtered("no connection within 3 s".to_owned()));
    check(
        &publication,
        &observed,
        &expect![[r#"
        Service web/blog: portcullis.dev/Published (PublishedInPart: 443/tcp: is the port by which agents dial gateway ams1; not published there) [ams1.example.com 198.51.100.9 (Proxy)]
        Gateway infra/public: Accepted, Programmed [ams1.example.com 198.51.100.9] 0 sets
          tcp (TCPRoute) 0 routes: Accepted, Programmed, ResolvedRefs
        EdgeGateway ams1: Accepted, Adopted, Connected, Available, Ready, perhaps Reachable (Unknown: nobody tried its public ports) []
        EdgeGateway fra1: Accepted, Adopted, Connected, Available, Ready, not Reachable (PortFiltered: 443/tcp of 203.0.113.7 does not answer) []
    "#]],
    );
}

#[test]
fn a_backend_that_does_not_answer_takes_no_address_away() {
    let publication = published(SERVICE);
    let mut observed = all_well(&publication);
    for gateway in observed.values_mut() {
        probe(gateway, &Reached::Endpoint("nothing to lead to yet".to_owned()));
    }
    let announced = |observed: &BTreeMap<String, GatewayObserved>| {
        let patches = statuses(&publication, observed);
        patches.into_iter().find_map(|it| match it {
            StatusPatch::Gateway { status, .. } => Some(status.addresses),
            StatusPatch::GatewayClass { .. }
            | StatusPatch::EdgeGateway { .. }
            | StatusPatch::ListenerSet { .. }
            | StatusPatch::Route { .. }
            | StatusPatch::Service { .. } => None,
        })
    };
    assert_eq!(announced(&observed), announced(&all_well(&publication)));
    assert_eq!(announced(&observed).map(|it| it.len()), Some(3));
}

#[test]
fn what_a_gateway_refuses_is_told_with_its_reason() {
    let publication = published(SERVICE);
    let states = [
        PortState::InUse("nginx (pid 812)".to_owned()),
        PortState::NotGranted("the configuration grants 443".to_owned()),
        PortState::Failed("permission denied".to_owned()),
    ];
    let observed = publication.gateways.iter().map(|(name, ports)| {
        let ports = ports.iter().zip(&states).map(|(port, state)| report(port, state.clone()));
        let report = Some(Report { ports: ports.collect(), ..Report::default() });
        (name.clone(), GatewayObserved { connected: true, report, ..GatewayObserved::default() })
    });
    check(
        &publication,
        &observed.collect(),
        &expect![[r#"
        Service web/blog: not portcullis.dev/Published (NotGranted: gateway ams1 does not grant 53/udp to this cluster: the configuration grants 443; gateway fra1 does not grant 443/tcp to this cluster: the configuration grants 443; gateway fra1 cannot listen on 53/udp: permission denied; 443/tcp: is the port by which agents dial gateway ams1; not published there) []
        Gateway infra/public: Accepted, not Programmed (PortUnavailable: listener tcp: 80/tcp is in use on gateway ams1: nginx (pid 812); 80/tcp is in use on gateway fra1: nginx (pid 812)) [] 0 sets
          tcp (TCPRoute) 0 routes: Accepted, not Programmed (PortUnavailable: 80/tcp is in use on gateway ams1: nginx (pid 812); 80/tcp is in use on gateway fra1: nginx (pid 812)), ResolvedRefs
        EdgeGateway ams1: Accepted, Adopted, Connected, not Available (NothingPublished: port 80 of Gateway infra/public listener tcp: in use: nginx (pid 812); port 53 of Service web/blog: not granted: the configuration grants 443), not Ready (PortsMissing: port 80 of Gateway infra/public listener tcp: in use: nginx (pid 812); port 53 of Service web/blog: not granted: the configuration grants 443), perhaps Reachable (Unknown: nobody tried its public ports) []
        EdgeGateway fra1: Accepted, Adopted, Connected, not Available (NothingPublished: port 80 of Gateway infra/public listener tcp: in use: nginx (pid 812); port 443 of Service web/blog: not granted: the configuration grants 443; port 53 of Service web/blog: permission denied), not Ready (PortsMissing: port 80 of Gateway infra/public listener tcp: in use: nginx (pid 812); port 443 of Service web/blog: not granted: the configuration grants 443; port 53 of Service web/blog: permission denied), perhaps Reachable (Unknown: nobody tried its public ports) []
    "#]],
    );
}

#[test]
fn an_edge_gateway_tells_about_its_agents_and_its_traffic() {
    let publication = published("");
    let session = |agent: &str, age_seconds: u64| SessionReport {
        agent: agent.to_owned(),
        node: Some("n1".to_owned()),
        carrier: "quic".to_owned(),
        address: ([192, 0, 2, 1], 4433).into(),
        round_trip_us: 12_000,
        flows: 3,
        age_seconds,
    };
    let sessions = vec![session("b", 70), session("a", 10), session("b", 5)];
    let quota = Some(traffic(10, Some(QuotaAction::Stop)));
    let report = Some(Report { sessions, quota, ..Report::default() });
    let reported_at = Some(Timestamp::from_second(1_767_225_600).expect("in range"));
    let version = Some("0.1.0".to_owned());
    let connected = true;
    let gateway =
        GatewayObserved { connected, report, reported_at, version, ..GatewayObserved::default() };
    let observed = BTreeMap::from([("fra1".to_owned(), gateway)]);
    let patches = statuses(&publication, &observed);
    let status = patches.into_iter().find_map(|it| match it {
        StatusPatch::EdgeGateway { status, .. } => Some(status),
        StatusPatch::GatewayClass { .. }
        | StatusPatch::Gateway { .. }
        | StatusPatch::ListenerSet { .. }
        | StatusPatch::Route { .. }
        | StatusPatch::Service { .. } => None,
    });
    let mut value = serde_json::to_value(status.expect("its status")).expect("a value");
    value["conditions"] = "left out".into();
    expect![[r#"
        {
          "agents": [
            {
              "carrier": "quic",
              "flows": 3,
              "name": "a",
              "node": "n1",
              "roundTripMicroseconds": 12000,
              "since": "2025-12-31T23:59:00Z"
            },
            {
              "carrier": "quic",
              "flows": 3,
              "name": "b",
              "node": "n1",
              "roundTripMicroseconds": 12000,
              "since": "2025-12-31T23:59:00Z"
            }
          ],
          "bytes": {
            "received": 0,
            "sent": 0
          },
          "conditions": "left out",
          "connectedAgents": 2,
          "publishedPorts": 0,
          "quota": {
            "limitBytes": 20,
            "resetsAt": "2026-01-01T00:00:00Z",
            "usedBytes": 10
          },
          "version": "0.1.0"
        }"#]]
    .assert_eq(&format!("{value:#}"));
}

#[test]
fn how_much_of_a_month_is_left_is_a_condition_and_an_event() {
    let yaml = "
kind: EdgeGateway
metadata: { name: fra1 }
spec: { endpoints: [{ host: gw.example.com }], quota: { bytesPerMonth: 20, action: stop } }
";
    let publication = plan(&view(objects(yaml)));
    let mut told = String::new();
    for (used, action) in [
        (15, Some(QuotaAction::Stop)),
        (16, Some(QuotaAction::Stop)),
        (19, Some(QuotaAction::Shape)),
        (20, Some(QuotaAction::Stop)),
        (21, Some(QuotaAction::Shape)),
        (22, Some(QuotaAction::Warn)),
        (23, None),
    ] {
        let quota = traffic(used, action);
        let report = Some(Report { quota: Some(quota), ..Report::default() });
        let gateway = GatewayObserved { connected: true, report, ..GatewayObserved::default() };
        let patches = statuses(&publication, &BTreeMap::from([("fra1".to_owned(), gateway)]));
        let shown: String = patches.iter().map(show_patch).collect();
        let (_, condition) =
            shown.trim_end().split_once("public ports), ").expect("the last condition");
        writeln!(told, "{condition}").expect("a String");
        told += &findings(&[quota_finding(&publication, "fra1", &quota)]);
    }
    expect![[r#"
        WithinQuota []
        . WithinQuota EdgeGateway fra1: spec.quota.bytesPerMonth: "20": 15 of 20 bytes (75 %) are used of the month that ends 2026-01-01T00:00:00Z: visitors are served as before; nothing is left to do
        WithinQuota (QuotaNearlyUsed: 80 % of the 20 bytes of the month that ends 2026-01-01T00:00:00Z are used; beyond them open connections end and new ones are refused until then) []
        ? QuotaNearlyUsed EdgeGateway fra1: spec.quota.bytesPerMonth: "20": 16 of 20 bytes (80 %) are used of the month that ends 2026-01-01T00:00:00Z; beyond them open connections end and new ones are refused until then; allow more or another action in spec.quota, or publish less
        WithinQuota (QuotaNearlyUsed: 95 % of the 20 bytes of the month that ends 2026-01-01T00:00:00Z are used; beyond them all connections together get 10000000 bit/s) []
        ? QuotaNearlyUsed EdgeGateway fra1: spec.quota.bytesPerMonth: "20": 19 of 20 bytes (95 %) are used of the month that ends 2026-01-01T00:00:00Z; beyond them all connections together get 10000000 bit/s; allow more or another action in spec.quota, or publish less
        not WithinQuota (QuotaExceeded: all 20 bytes of the month that ends 2026-01-01T00:00:00Z are used: open connections have ended and new ones are refused) []
        ? QuotaExceeded EdgeGateway fra1: spec.quota.bytesPerMonth: "20": 20 of 20 bytes (100 %) are used of the month that ends 2026-01-01T00:00:00Z: open connections have ended and new ones are refused; allow more or another action in spec.quota, or wait for the next month
        not WithinQuota (QuotaExceeded: all 20 bytes of the month that ends 2026-01-01T00:00:00Z are used: all connections together get 10000000 bit/s) []
        ? QuotaExceeded EdgeGateway fra1: spec.quota.bytesPerMonth: "20": 21 of 20 bytes (105 %) are used of the month that ends 2026-01-01T00:00:00Z: all connections together get 10000000 bit/s; allow more or another action in spec.quota, or wait for the next month
        not WithinQuota (QuotaExceeded: all 20 bytes of the month that ends 2026-01-01T00:00:00Z are used: visitors are served as before) []
        ? QuotaExceeded EdgeGateway fra1: spec.quota.bytesPerMonth: "20": 22 of 20 bytes (110 %) are used of the month that ends 2026-01-01T00:00:00Z: visitors are served as before; allow more or another action in spec.quota, or wait for the next month
        not WithinQuota (QuotaExceeded: all 20 bytes of the month that ends 2026-01-01T00:00:00Z are used: the gateway does what its quota says) []
        ? QuotaExceeded EdgeGateway fra1: spec.quota.bytesPerMonth: "20": 23 of 20 bytes (115 %) are used of the month that ends 2026-01-01T00:00:00Z: the gateway does what its quota says; allow more or another action in spec.quota, or wait for the next month
    "#]].assert_eq(&told);
    let own = QuotaReport { limit: 10, ..traffic(9, Some(QuotaAction::Warn)) };
    expect![[r#"
        ? QuotaNearlyUsed EdgeGateway fra1: clusters.quota.bytesPerMonth in the gateway's own file: "10": 9 of 10 bytes (90 %) are used of the month that ends 2026-01-01T00:00:00Z; beyond them it is only said; allow more or another action in clusters.quota there, or publish less
    "#]].assert_eq(&findings(&[quota_finding(&publication, "fra1", &own)]));
}

fn traffic(used: u64, action: Option<QuotaAction>) -> QuotaReport {
    let shape_bits_per_second = (action == Some(QuotaAction::Shape)).then_some(10_000_000);
    let resets_at = 1_767_225_600;
    QuotaReport { used, limit: 20, resets_at, action, shape_bits_per_second }
}

#[test]
fn what_was_said_is_taken_back_when_nothing_is_asked_any_more() {
    let publication = published(
        "
kind: Service
metadata: { namespace: web, name: was }
spec: { ports: [{ port: 80 }] }
status: { conditions: [{ type: portcullis.dev/Published, status: 'True', reason: Published, message: '', lastTransitionTime: '2026-01-01T00:00:00Z' }] }
---
kind: TCPRoute
metadata: { namespace: web, name: was }
spec: { parentRefs: [{ name: gone }], rules: [] }
status: { parents: [{ parentRef: { name: gone }, controllerName: portcullis.dev/gateway-controller, conditions: [] }] }
---
kind: TCPRoute
metadata: { namespace: web, name: others }
spec: { parentRefs: [{ name: gone }], rules: [] }
status: { parents: [{ parentRef: { name: gone }, controllerName: example.com/other, conditions: [] }] }
",
    );
    let patches = statuses(&publication, &BTreeMap::new());
    let told: String = patches
        .iter()
        .filter(|it| matches!(it.object().kind, ObjectKind::Service | ObjectKind::TcpRoute))
        .map(show_patch)
        .collect();
    expect![[r#"
        Service web/was: nothing [as it is]
        TCPRoute web/was:
    "#]]
    .assert_eq(&told);
}

#[test]
fn a_service_that_was_never_understood_keeps_its_addresses() {
    let publication = published(
        "
kind: Service
metadata: { namespace: web, name: odd, annotations: { portcullis.dev/gateway-ports: x } }
spec: { type: LoadBalancer, loadBalancerClass: portcullis.dev/gateway, ports: [{ port: 80 }] }
---
kind: Service
metadata: { namespace: web, name: part, annotations: { portcullis.dev/gateway-ports: '81:80, 82:9' } }
spec: { type: LoadBalancer, loadBalancerClass: portcullis.dev/gateway, ports: [{ port: 80 }, { name: b, port: 90 }] }
",
    );
    let patches = statuses(&publication, &all_well(&publication));
    let told = patches.iter().filter(|it| it.object().kind == ObjectKind::Service).map(show_patch);
    expect![[r#"
        Service web/odd: not portcullis.dev/Published (InvalidValue: portcullis.dev/gateway-ports: x: `x` in `x` is not a port between 1 and 65535; nothing is published for it) [as it is]
        Service web/part: portcullis.dev/Published (PublishedInPart: portcullis.dev/gateway-ports: 82/tcp: no port of this Service says where it leads; not published) [203.0.113.7 (Proxy)]
    "#]].assert_eq(&told.collect::<String>());
}

#[test]
fn without_any_gateway_everybody_is_told() {
    let class_alone = "
kind: GatewayClass
metadata: { name: portcullis, generation: 3 }
spec: { controllerName: portcullis.dev/gateway-controller }
---
kind: Service
metadata: { namespace: web, name: blog }
spec: { type: LoadBalancer, loadBalancerClass: portcullis.dev/gateway, ports: [{ port: 443 }] }
---
kind: Gateway
metadata: { namespace: infra, name: public }
spec: { gatewayClassName: portcullis, listeners: [{ name: tcp, port: 80, protocol: TCP }] }
";
    let mut view = view(objects(class_alone));
    let told = |publication: &Publication| {
        statuses(publication, &BTreeMap::new()).iter().map(show_patch).collect::<String>()
    };
    expect![[r#"
        Service web/blog: not portcullis.dev/Published (NoGateway: there is no EdgeGateway for it; create one with portcullis gateway create) []
        GatewayClass portcullis: Accepted [Gateway ReferenceGrant TCPRoute TLSRoute UDPRoute]
        Gateway infra/public: Accepted, not Programmed (NoResources: there is no EdgeGateway for it; create one with portcullis gateway create) [] 0 sets
          tcp (TCPRoute) 0 routes: Accepted, not Programmed (NoGateway: there is no EdgeGateway for it; create one with portcullis gateway create), ResolvedRefs
    "#]].assert_eq(&told(&plan(&view)));
    // The release of the definitions is told once it is known.
    let class = |publication: &Publication| {
        told(publication).lines().find(|it| it.starts_with("GatewayClass")).map(str::to_owned)
    };
    assert!(view.set_bundle_version(Some("v1.6.3".to_owned())));
    expect!["GatewayClass portcullis: Accepted, SupportedVersion [Gateway ReferenceGrant TCPRoute TLSRoute UDPRoute]"].assert_eq(&class(&plan(&view)).unwrap_or_default());
    assert!(view.set_bundle_version(Some("v1.2.0".to_owned())));
    expect!["GatewayClass portcullis: Accepted, not SupportedVersion (UnsupportedVersion: the Gateway API's definitions are of v1.2.0; v1.6.x is supported) [Gateway ReferenceGrant TCPRoute TLSRoute UDPRoute]"].assert_eq(&class(&plan(&view)).unwrap_or_default());
}

#[test]
fn a_condition_keeps_its_time_until_its_status_changes() {
    let publication = published(SERVICE);
    let time = |second| Timestamp::from_second(second).expect("in range");
    let conditions = |observed: &BTreeMap<String, GatewayObserved>| {
        let patches = statuses(&publication, observed);
        let status = patches.into_iter().find_map(|it| match it {
            StatusPatch::Gateway { status, .. } => Some(status),
            StatusPatch::GatewayClass { .. }
            | StatusPatch::EdgeGateway { .. }
            | StatusPatch::ListenerSet { .. }
            | StatusPatch::Route { .. }
            | StatusPatch::Service { .. } => None,
        });
        status.expect("its status").conditions
    };
    let mut first = conditions(&BTreeMap::new());
    keep_times(&mut first, &[], time(10));
    let mut second = conditions(&all_well(&publication));
    keep_times(&mut second, &first, time(20));
    let times = second.iter().map(|it| (it.type_.as_str(), it.last_transition_time.clone()));
    let expected = [("Accepted", Time(time(10))), ("Programmed", Time(time(20)))];
    assert_eq!(times.collect::<Vec<_>>(), expected);
}

#[track_caller]
fn check(
    publication: &Publication,
    observed: &BTreeMap<String, GatewayObserved>,
    expected: &Expect,
) {
    let patches = statuses(publication, observed);
    let told = patches.iter().filter(|it| it.object().kind != ObjectKind::GatewayClass);
    expected.assert_eq(&told.map(show_patch).collect::<String>());
}

/// A gateway has probed all its ports, and this is what it found.
fn probe(gateway: &mut GatewayObserved, reached: &Reached) {
    for port in gateway.report.iter_mut().flat_map(|it| &mut it.ports) {
        port.probed = Some(Probed { at: 0, reached: reached.clone() });
    }
}
