//! Objects as tests need them: short to write, and exactly what a user would write.

use std::fmt::Write as _;

use testkit::kubernetes::ECHO_IMAGE;

/// The namespace in which tests work.
pub(crate) const NAMESPACE: &str = "web";

/// A Host named `edge` with both interfaces, driven by the controller on that machine; `more` is
/// added to its `spec`.
pub(crate) fn host(more: &str) -> String {
    let mut text = String::from(
        "apiVersion: portcullis.dev/v1alpha1\nkind: Host\nmetadata: { name: edge }\n\
         spec:\n  interfaces: [eth0, wg0]\n  externalInterface: eth0\n",
    );
    for line in more.lines() {
        let _ = writeln!(text, "  {line}");
    }
    text
}

/// The host port that leads straight to the echo pods, past kube-proxy: what is lost here, nobody but
/// the host can have lost.
pub(crate) const STRAIGHT: u16 = 9000;

/// A pod on this node, behind every Service of [`service`] and at host port [`STRAIGHT`]; it answers with
/// the node's name.
pub(crate) fn pod(node: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata:
  name: echo-on-{node}
  namespace: {NAMESPACE}
  labels: {{ app: echo }}
  annotations: {{ portcullis.dev/host-ports: '{STRAIGHT}' }}
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

/// A Service over the echo pods, with an annotation for each `key: value`. Its one port is 443/tcp.
pub(crate) struct Service<'a> {
    pub(crate) name: &'a str,
    pub(crate) annotations: &'a [(&'a str, &'a str)],
    /// Further lines of its `spec`.
    pub(crate) spec: &'a str,
    /// Further fields of its port, for example `nodePort: 30443`.
    pub(crate) port: &'a str,
}

impl Service<'_> {
    /// As YAML. Connections stay on the node that is asked, so that the pods see their source.
    pub(crate) fn yaml(&self) -> String {
        let Self { name, annotations, spec, port } = self;
        let mut text = format!(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: {NAMESPACE}\n"
        );
        if !annotations.is_empty() {
            text += "  annotations:\n";
        }
        for (key, value) in *annotations {
            let _ = writeln!(text, "    {key}: {value:?}");
        }
        text += "spec:\n  externalTrafficPolicy: Local\n  ipFamilyPolicy: PreferDualStack\n";
        for line in spec.lines() {
            let _ = writeln!(text, "  {line}");
        }
        if !spec.contains("type:") {
            text += "  type: NodePort\n";
        }
        if !spec.contains("selector:") {
            text += "  selector: { app: echo }\n";
        }
        let comma = if port.is_empty() { "" } else { ", " };
        let _ = writeln!(text, "  ports:\n  - {{ port: 443, targetPort: 9000{comma}{port} }}");
        text
    }
}

/// A Service with this value of `portcullis.dev/host-ports`, and a node port that Kubernetes chooses.
pub(crate) fn service(name: &str, host_ports: &str) -> String {
    let annotations = [("portcullis.dev/host-ports", host_ports)];
    Service { name, annotations: &annotations, spec: "", port: "" }.yaml()
}
