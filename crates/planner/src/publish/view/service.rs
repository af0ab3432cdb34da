//! Reading Services.

use api::annotation::key;
use api::object::ObjectKind;
use api::port::{Port, Protocol};
use api::problem::Problem;
use api::source_range::SourceRanges;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::object::{Annotated, Meta};
use crate::object::reference;
use crate::publish::PUBLISHED;

/// What is kept of a Service.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ServiceForm {
    pub(crate) meta: Meta,
    pub(crate) ports: Vec<ServicePort>,
    /// Whether it is a name for something outside the cluster.
    pub(crate) external: bool,
    /// Whether `spec.loadBalancerClass` is ours.
    pub(crate) of_our_class: bool,
    /// Whether an annotation names gateways, understood or not.
    pub(crate) mentions: bool,
    pub(crate) load_balancer_ip: Option<String>,
    /// `spec.loadBalancerSourceRanges` when they could last be read; `None` for everyone.
    pub(crate) ranges: Option<SourceRanges>,
    /// Whether its first family is IPv6.
    pub(crate) prefers_ipv6: bool,
    pub(crate) prefer_local: bool,
    pub(crate) affinity: bool,
    pub(crate) annotated: Annotated,
    /// The addresses and names that its status tells.
    pub(crate) current: Vec<String>,
    /// Whether its status holds a condition of ours.
    pub(crate) told: bool,
}

/// One port of a Service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ServicePort {
    pub(crate) name: String,
    pub(crate) port: Port,
    pub(crate) protocol: Protocol,
    /// The port of its Pods, where it is a number.
    pub(crate) target: Option<Port>,
}

impl ServiceForm {
    /// Whether it asks gateways for anything.
    pub(crate) fn asks(&self) -> bool {
        let annotated = self.annotated.wish.as_ref().is_some_and(|it| it.gateways.is_some());
        self.of_our_class || annotated
    }

    /// The port of this number and protocol.
    pub(crate) fn port(&self, protocol: Protocol, port: Port) -> Option<&ServicePort> {
        self.ports.iter().find(|it| it.protocol == protocol && it.port == port)
    }
}

pub(super) fn read(service: &Service, before: Option<&ServiceForm>) -> ServiceForm {
    let object = reference(ObjectKind::Service, &service.metadata);
    let none = ServiceSpec::default();
    let spec = service.spec.as_ref().unwrap_or(&none);
    let balancer = spec.type_.as_deref() == Some("LoadBalancer");
    let (ranges, problems) = match read_ranges(spec, balancer) {
        Ok(ranges) => (ranges, Vec::new()),
        Err(problem) => (before.and_then(|it| it.ranges.clone()), vec![problem]),
    };
    let families = spec.ip_families.as_deref().unwrap_or_default();
    let status = service.status.as_ref();
    let balanced = status.and_then(|it| it.load_balancer.as_ref());
    let ingress = balanced.and_then(|it| it.ingress.as_ref()).into_iter().flatten();
    let annotations = service.metadata.annotations.as_ref();
    let conditions = status.and_then(|it| it.conditions.as_ref());
    ServiceForm {
        meta: Meta::read(&service.metadata),
        ports: spec.ports.iter().flatten().filter_map(read_port).collect(),
        external: spec.type_.as_deref() == Some("ExternalName"),
        of_our_class: balancer && spec.load_balancer_class.as_deref() == Some(key::GATEWAY_CLASS),
        mentions: annotations.is_some_and(|it| it.contains_key(key::GATEWAY)),
        load_balancer_ip: spec.load_balancer_ip.clone().filter(|it| !it.is_empty()),
        ranges,
        prefers_ipv6: families.first().is_some_and(|it| it == "IPv6"),
        prefer_local: spec.external_traffic_policy.as_deref() == Some("Local")
            || spec.traffic_distribution.as_deref() == Some("PreferSameNode"),
        affinity: spec.session_affinity.as_deref() == Some("ClientIP"),
        annotated: Annotated::read(
            &object,
            &service.metadata,
            problems,
            before.map(|it| &it.annotated),
        ),
        current: ingress.filter_map(|it| it.ip.clone().or_else(|| it.hostname.clone())).collect(),
        told: conditions.into_iter().flatten().any(|it| it.type_ == PUBLISHED),
    }
}

fn read_port(port: &k8s_openapi::api::core::v1::ServicePort) -> Option<ServicePort> {
    let number = |it: i32| u16::try_from(it).ok().and_then(Port::new);
    let own = number(port.port)?;
    Some(ServicePort {
        name: port.name.clone().unwrap_or_default(),
        port: own,
        protocol: port.protocol.as_deref().unwrap_or("TCP").parse().ok()?,
        target: match &port.target_port {
            None => Some(own),
            Some(IntOrString::Int(it)) => number(*it),
            Some(IntOrString::String(_)) => None,
        },
    })
}

fn read_ranges(spec: &ServiceSpec, balancer: bool) -> Result<Option<SourceRanges>, Problem> {
    let ranges = spec.load_balancer_source_ranges.as_deref().unwrap_or_default();
    // Kubernetes reads the field only on load balancers, and an empty list as no list.
    if ranges.is_empty() || !balancer {
        return Ok(None);
    }
    let written = ranges.join(", ");
    written.parse().map(Some).map_err(|it: api::source_range::ParseSourceRangesError| {
        Problem::invalid("spec.loadBalancerSourceRanges", &written, &it, it.remedy())
    })
}
