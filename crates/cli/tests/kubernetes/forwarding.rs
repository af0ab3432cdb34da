//! Who reaches which pod.

use testkit::Protocol;
use testkit::border::{HOST, HOST6, OUTSIDE, VPN, at};
use testkit::kubernetes::ECHO_IMAGE;

use crate::objects::{NAMESPACE, Service, host, service};
use crate::scene::Scene;

#[test]
fn ep01_a_service_with_epoks_annotations_leads_to_real_pods() -> anyhow::Result<()> {
    let open = Service {
        name: "open",
        annotations: &[("epok.getbetter.ro/externalports", "2443:31443")],
        spec: "",
        port: "nodePort: 31443",
    };
    let inner = Service {
        name: "inner",
        annotations: &[
            ("epok.getbetter.ro/externalport", "2022:31022"),
            ("epok.getbetter.ro/internal", ""),
        ],
        spec: "",
        port: "nodePort: 31022",
    };
    let udp = Service {
        name: "udp",
        annotations: &[
            ("epok.getbetter.ro/externalports", "2053:31053:udp"),
            ("epok.getbetter.ro/allow-range", "10.8.0.0/24"),
        ],
        spec: "",
        port: "nodePort: 31053, protocol: UDP",
    };
    let objects = [host(""), open.yaml(), inner.yaml(), udp.yaml()];
    let Some(scene) = Scene::set(&objects)? else { return Ok(()) };
    let controller = scene.start()?;

    // Everyone reaches the open one, on both families, and the pods see who it was.
    scene.answered_by(2443, &["node-1", "node-2"])?;
    let (outside, vpn) = (&scene.edge.outside, &scene.edge.vpn);
    for (client, to, source) in [
        (outside, HOST, OUTSIDE),
        (outside, HOST6, "2001:db8::9"),
        (vpn, HOST, VPN),
        (vpn, HOST6, "fd08::2"),
    ] {
        let answer = scene.reached_from(client, at(to, 2443), Protocol::Tcp)?;
        assert_eq!(answer.source_seen.ip().to_string(), source, "at {to}");
    }
    // The inner one is for the VPN; the one over UDP for a range.
    for (port, protocol) in [(2022, Protocol::Tcp), (2053, Protocol::Udp)] {
        scene.reached_from(vpn, at(HOST, port), protocol)?;
        let refused = scene.dial(outside, at(HOST, port), protocol)?;
        assert_eq!(refused.answer(), None, "{port} from outside");
    }
    controller.nothing_was_forbidden();
    Ok(())
}

#[test]
fn ep18_a_node_port_that_kubernetes_chose_is_looked_up() -> anyhow::Result<()> {
    let Some(scene) = Scene::set(&[host(""), service("shop", "8443")])? else { return Ok(()) };
    let controller = scene.start()?;
    scene.answered_by(8443, &["node-1", "node-2"])?;

    // A new Service of the same name has another node port.
    let before = scene.stored("service/shop")?["spec"]["ports"][0]["nodePort"].clone();
    let taken = before.as_u64().expect("a node port");
    let other = if taken == 31999 { 31998 } else { 31999 };
    let moved = Service {
        name: "shop",
        annotations: &[("portcullis.dev/host-ports", "8443")],
        spec: "",
        port: &format!("nodePort: {other}"),
    };
    scene.apply(&moved.yaml())?;
    scene.answered_by(8443, &["node-1", "node-2"])?;
    assert!(scene.rules()?.contains(&other.to_string()), "{}", scene.rules()?);
    controller.nothing_was_forbidden();
    Ok(())
}

#[test]
fn local_traffic_follows_pods_that_move_to_another_node() -> anyhow::Result<()> {
    let objects = [host(""), deployment("node-1"), {
        let annotations = [("portcullis.dev/host-ports", "8443")];
        let spec = "selector: { app: moving }";
        Service { name: "moving", annotations: &annotations, spec, port: "" }.yaml()
    }];
    let Some(scene) = Scene::set(&objects)? else { return Ok(()) };
    let controller = scene.start()?;
    scene.answered_by(8443, &["node-1"])?;

    scene.apply(&deployment("node-2"))?;
    scene.answered_by(8443, &["node-2"])?;

    // Without a pod there is nowhere to send anything: refused at the host, not lost on a node.
    scene.kubectl(&["scale", "-n", NAMESPACE, "deployment/moving", "--replicas=0"])?;
    scene.closed(8443)?;
    scene.kubectl(&["scale", "-n", NAMESPACE, "deployment/moving", "--replicas=1"])?;
    scene.answered_by(8443, &["node-2"])?;
    controller.nothing_was_forbidden();
    Ok(())
}

/// One pod on this node, apart from the others.
fn deployment(node: &str) -> String {
    format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{ name: moving, namespace: {NAMESPACE} }}
spec:
  replicas: 1
  selector: {{ matchLabels: {{ app: moving }} }}
  template:
    metadata: {{ labels: {{ app: moving }} }}
    spec:
      nodeSelector: {{ kubernetes.io/hostname: {node} }}
      terminationGracePeriodSeconds: 0
      containers:
      - name: echo
        image: {ECHO_IMAGE}
        env:
        - {{ name: POD_NAME, valueFrom: {{ fieldRef: {{ fieldPath: spec.nodeName }} }} }}
"
    )
}
