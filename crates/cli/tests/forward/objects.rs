//! Manifests as tests need them: short to write, and exactly what a user would write.

use std::fmt::Write as _;

/// A Host named `edge` with both interfaces; `more` is added to its `spec`.
pub(crate) fn host(more: &str) -> String {
    let mut text = String::from(
        "apiVersion: portcullis.dev/v1alpha1\nkind: Host\nmetadata: { name: edge }\n\
         spec:\n  interfaces: [eth0, wg0]\n",
    );
    for line in more.lines() {
        let _ = writeln!(text, "  {line}");
    }
    text
}

/// Node 1 or 2, ready or not, on both families.
pub(crate) fn node(number: usize, ready: bool) -> String {
    let ready = if ready { "True" } else { "False" };
    format!(
        "apiVersion: v1\nkind: Node\nmetadata: {{ name: n{number} }}\nstatus:\n  addresses:\n\
         \x20 - {{ type: InternalIP, address: 10.77.0.1{number} }}\n\
         \x20 - {{ type: InternalIP, address: \"fd77::1{number}\" }}\n\
         \x20 conditions:\n  - {{ type: Ready, status: \"{ready}\" }}\n"
    )
}

/// A NodePort Service with these annotations (`key: value` lines).
pub(crate) fn service(name: &str, annotations: &[(&str, &str)]) -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: web\n  annotations:\n"
    );
    for (key, value) in annotations {
        let _ = writeln!(text, "    {key}: {value:?}");
    }
    text + "spec:\n  type: NodePort\n  ports:\n  - { port: 443, nodePort: 30443, protocol: TCP }\n"
}

/// A Service that leads host port 443 to node port 30443.
pub(crate) fn blog() -> String {
    service("blog", &[("portcullis.dev/host-ports", "443:30443")])
}
