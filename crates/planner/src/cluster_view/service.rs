//! Reading Services: annotations and `spec` together.

use std::sync::Arc;

use api::annotation::host_ports::HostPort;
use api::annotation::{ServiceWish, key, read_service};
use api::object::{ObjectKind, ObjectRef};
use api::port::{Port, Protocol};
use api::problem::Problem;
use api::source_range::SourceRanges;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};

use super::owner::{Asked, Owner, created, uid};
use super::wish::{Backends, Wish, WishedPort};
use crate::desired::{Exposure, IpFamily, NodeSetName};
use crate::finding::{Finding, Severity};
use crate::object::reference;
use crate::port_list::PortList;

/// What a Service asks for, kept as its last good state.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct AskedService {
    annotations: ServiceWish,
    /// `spec.loadBalancerSourceRanges`; `None` for everyone.
    ranges: Option<SourceRanges>,
}

/// Reads a Service; `None` when it asks nothing of hosts and nothing is wrong with it.
pub(super) fn read(service: &Service, before: Option<&Owner>) -> Option<Owner> {
    let owner = reference(ObjectKind::Service, &service.metadata);
    let none = ServiceSpec::default();
    let spec = service.spec.as_ref().unwrap_or(&none);
    let reading = read_service(&service.metadata);
    let mut problems = reading.problems;
    let ranges = match read_ranges(spec) {
        Ok(ranges) => Some(ranges),
        Err(problem) => {
            problems.push(problem);
            None
        }
    };
    let fresh = match (reading.wish, ranges) {
        (Some(annotations), Some(ranges)) => Some(AskedService { annotations, ranges }),
        _ => None,
    };
    let load_balancer = is_type(spec, "LoadBalancer")
        && spec.load_balancer_class.as_deref() == Some(key::LOAD_BALANCER_CLASS);
    let asks = |it: &AskedService| load_balancer || it.annotations.host_ports.is_some();
    let mut read = Owner::new(uid(&service.metadata), load_balancer, fresh.is_none());
    let asked = fresh.map(Arc::new).or_else(|| before?.asked.as_ref()?.as_service());
    read.report(&owner, problems, asked.is_some());
    if let Some(asked) = asked.filter(|it| asks(it)) {
        read.wish = Some(Arc::new(resolve(owner, service, spec, &asked, &mut read.findings)));
        read.asked = Some(Asked::Service(asked));
    }
    read.matters().then_some(read)
}

/// Settles what only the `spec` knows: node ports, policy, affinity.
fn resolve(
    owner: ObjectRef,
    service: &Service,
    spec: &ServiceSpec,
    asked: &AskedService,
    findings: &mut Vec<Finding>,
) -> Wish {
    let annotations = &asked.annotations;
    let annotated = service.metadata.annotations.as_ref();
    let keys = [key::HOST_PORTS, key::EPOK_EXTERNAL_PORTS, key::EPOK_EXTERNAL_PORT];
    let written = |it: &&str| annotated.is_some_and(|found| found.contains_key(*it));
    let field = match annotations.host_ports {
        Some(_) => keys.into_iter().find(written).unwrap_or(key::HOST_PORTS),
        None => "spec.ports",
    };
    let mut ports = node_ports(&owner, field, spec, annotations, findings);
    let sources = match (&annotations.sources, &asked.ranges) {
        (Some(a), Some(b)) => {
            let both = a.intersection(b);
            if both.is_none() {
                findings.push(nobody_is_allowed(&owner, a, b));
                ports.clear();
            }
            both
        }
        (Some(it), None) | (None, Some(it)) => Some(it.clone()),
        (None, None) => None,
    };
    let local = spec.external_traffic_policy.as_deref() == Some("Local");
    let family = only_family(spec);
    let set = match family {
        _ if local => {
            let namespace = owner.namespace.clone().unwrap_or_default();
            NodeSetName::WithEndpoints { namespace, service: owner.name.clone() }
        }
        Some(family) => NodeSetName::OfFamily(family),
        None => NodeSetName::All,
    };
    ports.sort_unstable();
    Wish {
        owner,
        created: created(&service.metadata),
        hosts: annotations.hosts.clone(),
        exposure: if annotations.internal { Exposure::Internal } else { Exposure::Everywhere },
        sources,
        affinity: spec.session_affinity.as_deref() == Some("ClientIP"),
        field,
        family,
        backends: Backends::Nodes(set),
        ports: ports.into_boxed_slice(),
    }
}

/// One port of the Service as its `spec` lists it.
struct Listed {
    protocol: Protocol,
    port: Option<Port>,
    node_port: Option<Port>,
}

/// Finds the node port of every host port.
fn node_ports(
    owner: &ObjectRef,
    field: &'static str,
    spec: &ServiceSpec,
    annotations: &ServiceWish,
    findings: &mut Vec<Finding>,
) -> Vec<WishedPort> {
    let listed: Vec<Listed> = spec
        .ports
        .iter()
        .flatten()
        .filter_map(|it| {
            let protocol = it.protocol.as_deref().unwrap_or("TCP").parse().ok()?;
            Some(Listed {
                protocol,
                port: read_port(it.port),
                node_port: it.node_port.and_then(read_port),
            })
        })
        .collect();
    let (mut missing, mut unlisted) = (PortList::default(), PortList::default());
    let mut ports = Vec::new();
    let mut add = |wanted: HostPort| {
        let HostPort { port: host, protocol, target } = wanted;
        let mut same = listed.iter().filter(|it| it.protocol == protocol);
        let target = match target {
            Some(explicit) => {
                if !same.any(|it| it.node_port == Some(explicit)) {
                    unlisted.push(protocol, explicit);
                }
                Some(explicit)
            }
            None => {
                let of_that_number = same.clone().find(|it| it.port == Some(host));
                let only_one = || same.next().filter(|_| same.next().is_none());
                of_that_number.or_else(only_one).and_then(|it| it.node_port)
            }
        };
        match target {
            Some(target) => ports.push(WishedPort { protocol, host, target }),
            None => missing.push(protocol, host),
        }
    };
    match &annotations.host_ports {
        Some(host_ports) => host_ports.iter().for_each(add),
        None => {
            for it in &listed {
                if let Some(port) = it.port {
                    let protocol = it.protocol;
                    add(HostPort { port, protocol, target: it.node_port });
                }
            }
        }
    }
    if !missing.is_empty() {
        findings.push(Finding {
            severity: Severity::Error,
            reason: "MissingNodePort",
            object: owner.clone(),
            field: field.to_owned(),
            value: missing.to_string(),
            problem: missing_because(spec).to_owned(),
            remedy: missing_remedy(spec).to_owned(),
        });
    }
    if !unlisted.is_empty() {
        findings.push(Finding {
            severity: Severity::Warning,
            reason: "NodePortNotListed",
            object: owner.clone(),
            field: field.to_owned(),
            value: unlisted.to_string(),
            problem: "is not a node port of this Service; it is used as written".to_owned(),
            remedy: "leave the node port out to have it looked up, or set it in spec.ports"
                .to_owned(),
        });
    }
    ports
}

fn missing_because(spec: &ServiceSpec) -> &'static str {
    if is_type(spec, "NodePort") || is_type(spec, "LoadBalancer") {
        "no port of this Service says which node port is meant; not forwarded"
    } else {
        "the Service is of a type without node ports; not forwarded"
    }
}

fn missing_remedy(spec: &ServiceSpec) -> &'static str {
    if is_type(spec, "LoadBalancer") && spec.allocate_load_balancer_node_ports == Some(false) {
        "set spec.allocateLoadBalancerNodePorts to true, or spec.ports[].nodePort"
    } else if is_type(spec, "NodePort") || is_type(spec, "LoadBalancer") {
        "write HOST:NODE, or give the Service a port of that number and protocol"
    } else {
        "set spec.type to NodePort"
    }
}

fn nobody_is_allowed(owner: &ObjectRef, annotation: &SourceRanges, spec: &SourceRanges) -> Finding {
    Finding {
        severity: Severity::Error,
        reason: "NobodyAllowed",
        object: owner.clone(),
        field: "spec.loadBalancerSourceRanges".to_owned(),
        value: spec.to_string(),
        problem: format!(
            "shares no address with the annotation's list ({annotation}); nobody is allowed, so \
             nothing is forwarded"
        ),
        remedy: "keep one of the two lists, or make them overlap".to_owned(),
    }
}

fn read_ranges(spec: &ServiceSpec) -> Result<Option<SourceRanges>, Problem> {
    let ranges = spec.load_balancer_source_ranges.as_deref().unwrap_or_default();
    // Kubernetes reads the field only on load balancers, and an empty list as no list.
    if ranges.is_empty() || !is_type(spec, "LoadBalancer") {
        return Ok(None);
    }
    let written = ranges.join(", ");
    written.parse().map(Some).map_err(|it: api::source_range::ParseSourceRangesError| {
        let field = "spec.loadBalancerSourceRanges";
        Problem::invalid(field, &written, &it, it.remedy())
    })
}

/// The only family of a Service. Without the field (in a manifest) it may well have both.
fn only_family(spec: &ServiceSpec) -> Option<IpFamily> {
    let families = spec.ip_families.as_deref().unwrap_or_default();
    let has = |family: &IpFamily| families.iter().any(|it| *it == family.to_string());
    match IpFamily::ALL.map(|it| has(&it)) {
        [true, false] => Some(IpFamily::Ipv4),
        [false, true] => Some(IpFamily::Ipv6),
        [true, true] | [false, false] => None,
    }
}

fn is_type(spec: &ServiceSpec, type_: &str) -> bool {
    spec.type_.as_deref() == Some(type_)
}

fn read_port(number: i32) -> Option<Port> {
    u16::try_from(number).ok().and_then(Port::new)
}
