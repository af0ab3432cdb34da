//! Kubernetes objects, as JSON: what benches write to the API or into a directory.

use serde_json::{Value, json};

/// The namespace of all Services.
pub(crate) const NAMESPACE: &str = "default";

/// The port on which every node of a bench listens.
pub(crate) const NODE_PORT: u16 = 30443;

/// The only annotation that benches change.
pub(crate) const ANNOTATION: &str = "portcullis.dev/host-ports";

/// The Host that is the machine `edge`, reached through `eth0`.
pub(crate) fn host() -> Value {
    json!({
        "apiVersion": "portcullis.dev/v1alpha1", "kind": "Host",
        "metadata": { "name": "edge" },
        "spec": { "interfaces": ["eth0"] },
    })
}

/// The address of node `number`, from 1 to 200.
pub(crate) fn node_address(number: usize) -> String {
    format!("10.77.0.{}", 10 + number)
}

/// The name of node `number`.
pub(crate) fn node_name(number: usize) -> String {
    format!("n{number}")
}

/// A node without its status, as the API takes it.
pub(crate) fn node(number: usize) -> Value {
    json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": node_name(number) } })
}

/// What a kubelet writes: addresses, images, and the conditions with the time of this heartbeat.
pub(crate) fn node_status(number: usize, heartbeat: &str) -> Value {
    let condition = |kind: &str, status: &str| {
        json!({
            "type": kind, "status": status, "reason": "Kubelet", "message": "as the kubelet says",
            "lastHeartbeatTime": heartbeat, "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    };
    // A kubelet lists up to 50 images; they are most of what a Node weighs.
    let images = (0..30).map(|it| {
        let name = format!("registry.example.com/team-{it}/some-service@sha256:{it:064x}");
        json!({ "names": [name], "sizeBytes": 12_345_678 + it })
    });
    json!({
        "addresses": [
            { "type": "InternalIP", "address": node_address(number) },
            { "type": "Hostname", "address": node_name(number) },
        ],
        "conditions": [
            condition("MemoryPressure", "False"), condition("DiskPressure", "False"),
            condition("PIDPressure", "False"), condition("Ready", "True"),
        ],
        "images": images.collect::<Vec<_>>(),
    })
}

/// The name of the Service that changes; its node ports are [`NODE_PORT`] and the one after it.
pub(crate) const MOVING: &str = "moving";

/// The Service that changes, with host ports as the annotation has them; none when it is empty.
pub(crate) fn moving(host_ports: &str) -> Value {
    service(MOVING, &[NODE_PORT, NODE_PORT + 1], host_ports)
}

/// Service `number`, from 0 to 999, with `count` host ports from `first` on.
pub(crate) fn standing(number: usize, first: usize, count: usize) -> Value {
    let node_port = u16::try_from(31_000 + number).unwrap_or(u16::MAX);
    let host_ports = (first..first + count).map(|it| format!("{it}:{node_port}"));
    let host_ports = host_ports.collect::<Vec<_>>().join(", ");
    service(&standing_name(number), &[node_port], &host_ports)
}

/// The name of Service `number`.
pub(crate) fn standing_name(number: usize) -> String {
    format!("s{number}")
}

fn service(name: &str, node_ports: &[u16], host_ports: &str) -> Value {
    let annotations = match host_ports {
        "" => json!({}),
        text => json!({ ANNOTATION: text }),
    };
    let ports = node_ports.iter().enumerate().map(|(index, it)| {
        json!({ "name": format!("p{index}"), "port": 80 + index, "protocol": "TCP", "nodePort": it })
    });
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": name, "namespace": NAMESPACE, "annotations": annotations },
        "spec": {
            "type": "NodePort",
            "selector": { "app": name },
            "ports": ports.collect::<Vec<_>>(),
        },
    })
}

/// The EndpointSlice of a Service with three ready pods, on nodes that differ from Service to Service.
pub(crate) fn slice(number: usize, nodes: usize) -> Value {
    let service = standing_name(number);
    let endpoints = (0..3).map(|it| {
        let node = 1 + (number * 3 + it) % nodes;
        json!({
            "addresses": [format!("10.201.{node}.{}", 1 + number % 250)],
            "nodeName": node_name(node),
            "conditions": { "ready": true, "serving": true, "terminating": false },
        })
    });
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{service}-bench"), "namespace": NAMESPACE,
            "labels": { "kubernetes.io/service-name": service },
        },
        "addressType": "IPv4",
        "endpoints": endpoints.collect::<Vec<_>>(),
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
    })
}
