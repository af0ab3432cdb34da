//! A cluster for tests, and the text that what follows from it is compared with.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use api::object::ObjectKind;
use expect_test::Expect;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use planner::finding::{Finding, Severity};
use planner::object::{Change, Object};
use planner::publish::{
    Alternative, Backend, GatewayObserved, Publication, PublishView, StatusPatch, Support, Target,
    plan, statuses,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tunnel_proto::message::{self, PortReport, PortState, PublishedPort, Report, Route};

/// An EdgeGateway `fra1` with one address, our GatewayClass, and two Services with an endpoint.
pub(crate) const BASE: &str = "
kind: EdgeGateway
metadata: { name: fra1 }
spec: { endpoints: [{ host: fra1.example.com }], addresses: [{ address: 203.0.113.7 }] }
---
kind: GatewayClass
metadata: { name: portcullis, generation: 1 }
spec: { controllerName: portcullis.dev/gateway-controller }
---
kind: Service
metadata: { namespace: web, name: blog }
spec: { ports: [{ name: https, port: 443, targetPort: 8443 }, { name: dns, port: 53, protocol: UDP }] }
---
kind: EndpointSlice
metadata: { namespace: web, name: blog-1, labels: { kubernetes.io/service-name: blog } }
addressType: IPv4
ports: [{ name: https, port: 8443, protocol: TCP }, { name: dns, port: 53, protocol: UDP }]
endpoints: [{ addresses: [10.1.0.1], nodeName: n1 }]
---
kind: Service
metadata: { namespace: web, name: shop }
spec: { ports: [{ name: https, port: 443, targetPort: 8443 }] }
---
kind: EndpointSlice
metadata: { namespace: web, name: shop-1, labels: { kubernetes.io/service-name: shop } }
addressType: IPv4
ports: [{ name: https, port: 8443, protocol: TCP }]
endpoints: [{ addresses: [10.1.0.2], nodeName: n2 }]
";

/// The objects of manifests.
pub(crate) fn objects(manifests: &str) -> Vec<Object> {
    let documents = manifests.split("\n---").map(str::trim).filter(|it| !it.is_empty());
    documents.map(object).collect()
}

fn object(manifest: &str) -> Object {
    let value: Value = serde_saphyr::from_str(manifest).expect("sound YAML");
    match value["kind"].as_str().unwrap_or_default() {
        "Service" => Object::Service(typed(&value)),
        "Pod" => Object::Pod(typed(&value)),
        "Node" => Object::Node(typed(&value)),
        "EndpointSlice" => Object::EndpointSlice(typed(&value)),
        "Host" => Object::Host(typed(&value)),
        "Namespace" => Object::Namespace(typed(&value)),
        "Secret" => Object::Secret(typed(&value)),
        "GatewayClass" => Object::GatewayClass(typed(&value)),
        "Gateway" => Object::Gateway(typed(&value)),
        "ListenerSet" => Object::ListenerSet(typed(&value)),
        "TCPRoute" => Object::TcpRoute(typed(&value)),
        "UDPRoute" => Object::UdpRoute(typed(&value)),
        "TLSRoute" => Object::TlsRoute(typed(&value)),
        "HTTPRoute" => Object::HttpRoute(typed(&value)),
        "ReferenceGrant" => Object::ReferenceGrant(typed(&value)),
        "EdgeGateway" => Object::EdgeGateway(typed(&value)),
        other => panic!("no such kind: {other}"),
    }
}

fn typed<T: DeserializeOwned>(value: &Value) -> Box<T> {
    let mut value = value.clone();
    if let Some(fields) = value.as_object_mut() {
        // Kubernetes' own types insist on both, and manifests here leave them out.
        fields.remove("kind");
        fields.remove("apiVersion");
    }
    Box::new(serde_json::from_value(value).expect("a sound object"))
}

/// A view that saw complete lists of these objects.
pub(crate) fn view(objects: impl IntoIterator<Item = Object>) -> PublishView {
    view_for(Support::default(), objects)
}

/// A view for a data plane that can do this, which saw complete lists of these objects.
pub(crate) fn view_for(support: Support, objects: impl IntoIterator<Item = Object>) -> PublishView {
    let mut view = PublishView::new(support);
    let objects: Vec<_> = objects.into_iter().collect();
    for kind in ObjectKind::ALL {
        let of_kind = objects.iter().filter(|it| it.kind() == kind).cloned();
        view.change(Change::Reset(kind, of_kind.collect()));
    }
    assert!(view.is_complete());
    view
}

/// What is published for these manifests beside [`BASE`].
pub(crate) fn published(manifests: &str) -> Publication {
    plan(&view(objects(BASE).into_iter().chain(objects(manifests))))
}

/// Compares ports and findings for manifests beside [`BASE`].
#[track_caller]
pub(crate) fn check(manifests: &str, expected: &Expect) {
    let publication = published(manifests);
    expected.assert_eq(&(ports(&publication) + &findings(&publication.findings)));
}

/// Compares the statuses for manifests beside [`BASE`], while every gateway does what it is asked.
#[track_caller]
pub(crate) fn check_statuses(manifests: &str, expected: &Expect) {
    let publication = published(manifests);
    let patches = statuses(&publication, &all_well(&publication));
    let told = patches.iter().filter(|it| {
        !matches!(it, StatusPatch::EdgeGateway { .. } | StatusPatch::GatewayClass { .. })
    });
    expected.assert_eq(&told.map(show_patch).collect::<String>());
}

/// Every gateway is connected, and listens on every port that it is asked for.
pub(crate) fn all_well(publication: &Publication) -> BTreeMap<String, GatewayObserved> {
    let observed = publication.gateways.iter().map(|(name, ports)| {
        let ports = ports.iter().map(|it| report(it, PortState::Listening)).collect();
        let report = Some(Report { ports, ..Report::default() });
        (name.clone(), GatewayObserved { connected: true, report, ..GatewayObserved::default() })
    });
    observed.collect()
}

/// A port in a state, as a gateway reports it.
pub(crate) fn report(port: &PublishedPort, state: PortState) -> PortReport {
    let (address, protocol) = (port.address, port.protocol);
    PortReport {
        address,
        port: port.port,
        protocol,
        state,
        open: 0,
        total: 0,
        received: 0,
        sent: 0,
        failed: 0,
        probed: None,
    }
}

/// The ports of every gateway, one a line.
pub(crate) fn ports(publication: &Publication) -> String {
    let mut text = String::new();
    for (name, ports) in &publication.gateways {
        for port in ports {
            writeln!(text, "{name} {}", show_port(port)).expect("writing to a String");
        }
    }
    text
}

fn show_port(port: &PublishedPort) -> String {
    let address = port.address.map_or("*".to_owned(), |it| it.to_string());
    let protocol = match port.protocol {
        message::Protocol::Tcp => "tcp",
        message::Protocol::Udp => "udp",
    };
    let route = match &port.route {
        Route::Backend(key) => key.clone(),
        Route::ServerName(names) => {
            let shown = |name: &str| if name.is_empty() { "*".to_owned() } else { name.to_owned() };
            let names: Vec<_> =
                names.iter().map(|it| format!("{} {}", shown(&it.name), it.backend)).collect();
            format!("{{ {} }}", names.join(", "))
        }
        Route::Nowhere => "nowhere".to_owned(),
    };
    let mut text = format!("{address} {}/{protocol} -> {route} for {}", port.port, port.owner);
    let ranges: Vec<_> =
        port.allow_from.iter().map(|it| format!("{}/{}", it.address, it.prefix)).collect();
    if !ranges.is_empty() {
        text.push_str(&format!(" from {}", ranges.join(", ")));
    }
    let limits = port.limits;
    if limits != message::Limits::default() {
        text.push_str(&format!(" at most {}/s, {} open", limits.new_per_second, limits.open));
    }
    text
}

/// The backends, one a line.
pub(crate) fn backends(publication: &Publication) -> String {
    let mut text = String::new();
    for (key, Backend { alternatives, .. }) in &publication.backends {
        let alternatives: Vec<_> = alternatives.iter().map(show_alternative).collect();
        writeln!(text, "{key}: {}", alternatives.join(" | ")).expect("writing to a String");
    }
    text
}

fn show_alternative(alternative: &Alternative) -> String {
    let Alternative { weight, target, client_address, prefer_local, affinity } = alternative;
    let target = match target {
        Target::Endpoints(endpoints) if endpoints.is_empty() => "no endpoint".to_owned(),
        Target::Endpoints(endpoints) => {
            let endpoints = endpoints.iter().map(|it| {
                let leaving = if it.ready { "" } else { " (leaving)" };
                let node = it.node.as_deref().map(|it| format!("@{it}")).unwrap_or_default();
                format!("{}{node}{leaving}", it.address)
            });
            endpoints.collect::<Vec<_>>().join(" ")
        }
        Target::OwnHost(address) => format!("own host {address}"),
        Target::Invalid(why) => format!("invalid ({why})"),
    };
    let marks = [
        client_address.name(),
        if *prefer_local { "local" } else { "" },
        if *affinity { "affine" } else { "" },
    ];
    let marks: String =
        marks.iter().filter(|it| !it.is_empty()).map(|it| format!(" {it}")).collect();
    format!("{weight}x {target}{marks}")
}

/// Findings, one a line: `!` has no effect, `?` is a warning.
pub(crate) fn findings(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let mark = match finding.severity {
            Severity::Error => '!',
            Severity::Warning => '?',
            Severity::Note => '.',
        };
        writeln!(text, "{mark} {} {finding}", finding.reason).expect("writing to a String");
    }
    text
}

/// A status as text.
pub(crate) fn show_patch(patch: &StatusPatch) -> String {
    let mut text = format!("{}:", patch.object());
    match patch {
        StatusPatch::GatewayClass { status, .. } => {
            let features: Vec<_> =
                status.supported_features.iter().map(|it| it.name.as_str()).collect();
            writeln!(text, " {} [{}]", conditions(&status.conditions), features.join(" "))
        }
        StatusPatch::Gateway { status, .. } => {
            let addresses: Vec<_> = status.addresses.iter().map(|it| it.value.as_str()).collect();
            let sets = status.attached_listener_sets.unwrap_or_default();
            writeln!(
                text,
                " {} [{}] {sets} sets{}",
                conditions(&status.conditions),
                addresses.join(" "),
                listeners(&status.listeners)
            )
        }
        StatusPatch::ListenerSet { status, .. } => {
            writeln!(text, " {}{}", conditions(&status.conditions), listeners(&status.listeners))
        }
        StatusPatch::Route { parents, .. } => {
            for it in parents {
                let parent = &it.parent_ref;
                let section = parent.section_name.as_deref().unwrap_or("*");
                write!(text, "\n  {} {section}: {}", parent.name, conditions(&it.conditions))
                    .expect("writing to a String");
            }
            writeln!(text)
        }
        StatusPatch::Service { ingress, condition, .. } => {
            let ingress = ingress.as_ref().map(|it| {
                let entry = |it: &k8s_openapi::api::core::v1::LoadBalancerIngress| {
                    let mode = it.ip_mode.as_deref().map(|it| format!(" ({it})"));
                    let value = it.ip.clone().or_else(|| it.hostname.clone()).unwrap_or_default();
                    format!("{value}{}", mode.unwrap_or_default())
                };
                it.iter().map(entry).collect::<Vec<_>>().join(" ")
            });
            let ingress = ingress.unwrap_or_else(|| "as it is".to_owned());
            let condition = condition.as_ref().map(|it| conditions(std::slice::from_ref(it)));
            writeln!(text, " {} [{ingress}]", condition.unwrap_or_else(|| "nothing".to_owned()))
        }
        StatusPatch::EdgeGateway { status, .. } => {
            let agents: Vec<_> = status
                .agents
                .iter()
                .map(|it| format!("{} by {} with {} flows", it.name, it.carrier, it.flows))
                .collect();
            writeln!(text, " {} [{}]", conditions(&status.conditions), agents.join(", "))
        }
    }
    .expect("writing to a String");
    text
}

fn listeners(listeners: &[api::gateway_api::ListenerStatus]) -> String {
    let mut text = String::new();
    for it in listeners {
        let kinds: Vec<_> = it.supported_kinds.iter().map(|it| it.kind.as_str()).collect();
        let (kinds, conditions) = (kinds.join(" "), conditions(&it.conditions));
        let (name, attached) = (&it.name, it.attached_routes);
        write!(text, "\n  {name} ({kinds}) {attached} routes: {conditions}")
            .expect("writing to a String");
    }
    text
}

/// Conditions on one line: `Accepted`, `not Programmed (Pending: why)`.
pub(crate) fn conditions(conditions: &[Condition]) -> String {
    let show = |it: &Condition| {
        let not = match it.status.as_str() {
            "True" => "",
            "False" => "not ",
            _ => "perhaps ",
        };
        let why = match (it.reason == it.type_, it.message.is_empty()) {
            (true, true) => String::new(),
            (false, true) => format!(" ({})", it.reason),
            (_, false) => format!(" ({}: {})", it.reason, it.message),
        };
        format!("{not}{}{why}", it.type_)
    };
    // That there is no conflict goes without saying.
    let shown = conditions.iter().filter(|it| it.reason != "NoConflicts").map(show);
    shown.collect::<Vec<_>>().join(", ")
}
