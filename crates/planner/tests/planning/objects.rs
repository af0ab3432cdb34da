//! Objects for tests, written briefly: `service("web/blog").port(80, 30080).annotate(..)`.

use std::collections::BTreeMap;

use api::annotation::key;
use api::host::{Host, HostSpec};
use k8s_openapi::api::core::v1::{
    Node, NodeAddress, NodeCondition, NodeStatus, Pod, PodCondition, PodIP, PodStatus, Service,
    ServicePort, ServiceSpec,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use planner::cluster_view::Object;

/// A NodePort Service without ports, named `namespace/name`.
pub(crate) fn service(name: &str) -> Service {
    let spec = ServiceSpec { type_: Some("NodePort".to_owned()), ..ServiceSpec::default() };
    Service { metadata: metadata(name), spec: Some(spec), status: None }
}

/// A ready Pod with these addresses, named `namespace/name`.
pub(crate) fn pod(name: &str, addresses: &[&str]) -> Pod {
    let ready = PodCondition {
        type_: "Ready".to_owned(),
        status: "True".to_owned(),
        ..PodCondition::default()
    };
    let status = PodStatus {
        conditions: Some(vec![ready]),
        pod_ip: addresses.first().map(|it| (*it).to_owned()),
        pod_ips: Some(addresses.iter().map(|it| PodIP { ip: (*it).to_owned() }).collect()),
        ..PodStatus::default()
    };
    Pod { metadata: metadata(name), spec: None, status: Some(status) }
}

/// A ready Node with these addresses of type `InternalIP`.
pub(crate) fn node(name: &str, addresses: &[&str]) -> Node {
    let address =
        |it: &&str| NodeAddress { address: (*it).to_owned(), type_: "InternalIP".to_owned() };
    let status = NodeStatus {
        addresses: Some(addresses.iter().map(address).collect()),
        ..NodeStatus::default()
    };
    Node { metadata: metadata(name), spec: None, status: Some(status) }.ready("True")
}

/// An EndpointSlice of a Service `namespace/name`, with one ready endpoint on each node.
pub(crate) fn slice(service: &str, nodes: &[&str]) -> EndpointSlice {
    let endpoint = |node: &&str| Endpoint {
        node_name: Some((*node).to_owned()),
        conditions: Some(EndpointConditions { ready: Some(true), ..EndpointConditions::default() }),
        ..Endpoint::default()
    };
    let (_, name) = service.split_once('/').expect("namespace/name");
    let slice = EndpointSlice {
        metadata: metadata(&format!("{service}-x1")),
        address_type: "IPv4".to_owned(),
        endpoints: Some(nodes.iter().map(endpoint).collect()),
        ports: None,
    };
    slice.label("kubernetes.io/service-name", name)
}

/// A Host with these interfaces, driven locally.
pub(crate) fn host(name: &str, interfaces: &[&str]) -> Host {
    let interfaces = interfaces.iter().map(|it| (*it).to_owned()).collect();
    let spec = HostSpec { interfaces, ..HostSpec::default() };
    Host { metadata: metadata(name), spec, status: None }
}

fn metadata(name: &str) -> ObjectMeta {
    let (namespace, name) = match name.split_once('/') {
        Some((namespace, name)) => (Some(namespace.to_owned()), name),
        None => (None, name),
    };
    ObjectMeta { name: Some(name.to_owned()), namespace, ..ObjectMeta::default() }
}

/// What every object can be given.
pub(crate) trait Named: Sized {
    /// Its metadata.
    fn metadata_mut(&mut self) -> &mut ObjectMeta;

    /// Adds an annotation.
    fn annotate(mut self, key: &str, value: &str) -> Self {
        let annotations = self.metadata_mut().annotations.get_or_insert_default();
        annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Asks for host ports, in our vocabulary.
    fn host_ports(self, value: &str) -> Self {
        self.annotate(key::HOST_PORTS, value)
    }

    /// Adds a label.
    fn label(mut self, key: &str, value: &str) -> Self {
        let labels: &mut BTreeMap<_, _> = self.metadata_mut().labels.get_or_insert_default();
        labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Sets its creation time, in seconds since 1970.
    fn created(mut self, second: i64) -> Self {
        let time = Timestamp::from_second(second).expect("a time in range");
        self.metadata_mut().creation_timestamp = Some(Time(time));
        self
    }
}

impl Named for Service {
    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Named for Pod {
    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Named for Node {
    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Named for EndpointSlice {
    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Named for Host {
    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// What a Service can be given.
pub(crate) trait ServiceParts: Sized {
    /// Changes its spec.
    fn spec(self, change: impl FnOnce(&mut ServiceSpec)) -> Self;

    /// Adds a port and its node port; 0 for none.
    fn port_of(self, protocol: &str, port: i32, node_port: i32) -> Self {
        let port = ServicePort {
            name: Some(format!("{}-{port}", protocol.to_lowercase())),
            protocol: Some(protocol.to_owned()),
            port,
            node_port: (node_port != 0).then_some(node_port),
            ..ServicePort::default()
        };
        self.spec(|it| it.ports.get_or_insert_default().push(port))
    }

    /// Adds a TCP port and its node port; 0 for none.
    fn port(self, port: i32, node_port: i32) -> Self {
        self.port_of("TCP", port, node_port)
    }

    /// Makes it a load balancer of our class.
    fn load_balancer(self) -> Self {
        self.spec(|it| {
            it.type_ = Some("LoadBalancer".to_owned());
            it.load_balancer_class = Some(key::LOAD_BALANCER_CLASS.to_owned());
        })
    }

    /// Sets `externalTrafficPolicy: Local`.
    fn local(self) -> Self {
        self.spec(|it| it.external_traffic_policy = Some("Local".to_owned()))
    }
}

impl ServiceParts for Service {
    fn spec(mut self, change: impl FnOnce(&mut ServiceSpec)) -> Self {
        change(self.spec.get_or_insert_default());
        self
    }
}

/// What a Node or a Pod can be given.
pub(crate) trait Readiness {
    /// Sets the condition `Ready`.
    fn ready(self, status: &str) -> Self;
}

impl Readiness for Node {
    fn ready(mut self, status: &str) -> Self {
        let ready = NodeCondition {
            type_: "Ready".to_owned(),
            status: status.to_owned(),
            ..NodeCondition::default()
        };
        self.status.get_or_insert_default().conditions = Some(vec![ready]);
        self
    }
}

impl Readiness for Pod {
    fn ready(mut self, status: &str) -> Self {
        let ready = PodCondition {
            type_: "Ready".to_owned(),
            status: status.to_owned(),
            ..PodCondition::default()
        };
        self.status.get_or_insert_default().conditions = Some(vec![ready]);
        self
    }
}

const HOST_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";

/// What a Host can be given.
pub(crate) trait HostParts {
    /// Changes its spec.
    fn spec(self, change: impl FnOnce(&mut HostSpec)) -> Self;
    /// Names its external interface.
    fn external(self, interface: &str) -> Self;
    /// Has it driven over SSH, at this address and port.
    fn over_ssh(self, address: &str, port: u16) -> Self;
    /// Lets its status tell these addresses, and whether the host is up to date.
    fn tells(self, addresses: &[&str], applied: &str) -> Self;
}

impl HostParts for Host {
    fn spec(mut self, change: impl FnOnce(&mut HostSpec)) -> Self {
        change(&mut self.spec);
        self
    }

    fn external(self, interface: &str) -> Self {
        HostParts::spec(self, |it| it.external_interface = Some(interface.to_owned()))
    }

    fn over_ssh(self, address: &str, port: u16) -> Self {
        let ssh = serde_json::json!({
            "address": address, "port": port, "user": "portcullis", "keyFile": "/etc/key",
            "hostKey": HOST_KEY,
        });
        HostParts::spec(self, |it| {
            it.executor.local = None;
            it.executor.ssh = Some(serde_json::from_value(ssh).expect("a sound executor"));
        })
    }

    fn tells(mut self, addresses: &[&str], applied: &str) -> Self {
        let condition = Condition {
            type_: "Applied".to_owned(),
            status: applied.to_owned(),
            reason: "Test".to_owned(),
            message: String::new(),
            observed_generation: None,
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        };
        let status = self.status.get_or_insert_default();
        status.addresses = addresses.iter().map(|it| (*it).to_owned()).collect();
        status.conditions = vec![condition];
        self
    }
}

/// Turns any of them into an object of the view.
pub(crate) trait IntoObject {
    /// The object.
    fn object(self) -> Object;
}

impl IntoObject for Service {
    fn object(self) -> Object {
        Object::Service(Box::new(self))
    }
}

impl IntoObject for Pod {
    fn object(self) -> Object {
        Object::Pod(Box::new(self))
    }
}

impl IntoObject for Node {
    fn object(self) -> Object {
        Object::Node(Box::new(self))
    }
}

impl IntoObject for EndpointSlice {
    fn object(self) -> Object {
        Object::EndpointSlice(Box::new(self))
    }
}

impl IntoObject for Host {
    fn object(self) -> Object {
        Object::Host(Box::new(self))
    }
}
