//! Manifests as tests need them: short to write, and exactly what a user would write.

use std::fmt::Write as _;

/// The class that publishes every port of a Service as itself.
pub(crate) const BY_CLASS: &str = "type: LoadBalancer\nloadBalancerClass: portcullis.dev/gateway";

/// A Service in namespace `web` and what is behind it.
#[derive(Clone, Debug)]
pub(crate) struct Service<'a> {
    pub(crate) name: &'a str,
    /// `key: value` lines without the prefix `portcullis.dev/`.
    pub(crate) annotations: &'a [(&'a str, &'a str)],
    /// Further lines of its `spec`.
    pub(crate) spec: &'a str,
    /// Port, protocol and target port of each of its ports.
    pub(crate) ports: &'a [(u16, &'a str, u16)],
    /// Addresses of ready endpoints.
    pub(crate) endpoints: &'a [&'a str],
    /// Who is older wins; the default is 2026.
    pub(crate) created: &'a str,
}

impl Default for Service<'_> {
    /// A Service of the gateway's class, with TCP 80 and 443, behind which is `b1`.
    fn default() -> Self {
        Self {
            name: "blog",
            annotations: &[],
            spec: BY_CLASS,
            ports: &[(80, "TCP", 8080), (443, "TCP", 8443)],
            endpoints: &["10.77.0.31"],
            created: "2026-01-01T00:00:00Z",
        }
    }
}

impl Service<'_> {
    /// The Service and its EndpointSlice, as YAML.
    pub(crate) fn yaml(&self) -> String {
        let Self { name, annotations, spec, ports, endpoints, created } = self;
        let mut text = format!(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: web\n  \
             creationTimestamp: {created:?}\n"
        );
        if !annotations.is_empty() {
            text += "  annotations:\n";
        }
        for (key, value) in *annotations {
            let _ = writeln!(text, "    portcullis.dev/{key}: {value:?}");
        }
        text += "spec:\n";
        for line in spec.lines() {
            let _ = writeln!(text, "  {line}");
        }
        text += "  ports:\n";
        for (port, protocol, target) in *ports {
            let name = port_name(*port, protocol);
            let _ = writeln!(
                text,
                "  - {{ name: {name}, port: {port}, protocol: {protocol}, targetPort: {target} }}"
            );
        }
        let _ = write!(
            text,
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}-1\n  \
             namespace: web\n  labels: {{ kubernetes.io/service-name: {name} }}\naddressType: IPv4\nports:\n"
        );
        for (port, protocol, target) in *ports {
            let name = port_name(*port, protocol);
            let _ = writeln!(text, "- {{ name: {name}, port: {target}, protocol: {protocol} }}");
        }
        text += if endpoints.is_empty() { "endpoints: []\n" } else { "endpoints:\n" };
        for address in *endpoints {
            let _ = writeln!(text, "- {{ addresses: [{address}], conditions: {{ ready: true }} }}");
        }
        text
    }
}

fn port_name(port: u16, protocol: &str) -> String {
    format!("{}-{port}", protocol.to_lowercase())
}
