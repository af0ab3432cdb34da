//! The keys of annotations and labels that are read, and the class of load balancers.

/// What our own keys begin with.
pub const PREFIX: &str = "portcullis.dev/";

/// On Services and Pods: the host ports, see [`HostPorts`](super::host_ports::HostPorts).
pub const HOST_PORTS: &str = "portcullis.dev/host-ports";
/// On Services and Pods: a comma-separated list of names of Hosts; all Hosts when absent.
pub const HOST: &str = "portcullis.dev/host";
/// On Services and Pods: `"true"` keeps the forward off the external interface.
pub const INTERNAL: &str = "portcullis.dev/internal";
/// On Pods: `"true"` keeps the forward off every interface but the external one.
pub const EXTERNAL: &str = "portcullis.dev/external";
/// On Services and Pods: who may use the forward, see
/// [`SourceRanges`](crate::source_range::SourceRanges).
pub const ALLOW_FROM: &str = "portcullis.dev/allow-from";
/// On Nodes: `"true"` keeps forwarded traffic away.
pub const EXCLUDE: &str = "portcullis.dev/exclude";

/// The predecessor's [`HOST_PORTS`].
pub const EPOK_EXTERNAL_PORTS: &str = "epok.getbetter.ro/externalports";
/// How older releases of the predecessor spelled [`EPOK_EXTERNAL_PORTS`].
pub const EPOK_EXTERNAL_PORT: &str = "epok.getbetter.ro/externalport";
/// The predecessor's [`INTERNAL`]: on when present, whatever its value.
pub const EPOK_INTERNAL: &str = "epok.getbetter.ro/internal";
/// The predecessor's [`EXTERNAL`], on Pods: on when present, whatever its value.
pub const EPOK_EXTERNAL: &str = "epok.getbetter.ro/external";
/// The predecessor's [`ALLOW_FROM`], on Services.
pub const EPOK_ALLOW_RANGE: &str = "epok.getbetter.ro/allow-range";
/// The predecessor's [`EXCLUDE`]: on when present, whatever its value.
pub const EPOK_EXCLUDE: &str = "epok.getbetter.ro/exclude";
/// The predecessor's label of excluded Nodes: on when present, whatever its value.
pub const EPOK_EXCLUDE_LABEL: &str = "epok_exclude";

/// The label that Kubernetes itself defines for Nodes that external load balancers should not
/// use: on when present, whatever its value.
pub const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// The `spec.loadBalancerClass` of Services that hosts forward.
pub const LOAD_BALANCER_CLASS: &str = "portcullis.dev/host";

/// On Services, Gateways and ListenerSets: a comma-separated list of names of EdgeGateways, or `*`
/// for all.
pub const GATEWAY: &str = "portcullis.dev/gateway";
/// On Services: the public ports, as
/// [`GatewayPorts`](super::gateway_ports::GatewayPorts); the
/// Service's own ports when absent.
pub const GATEWAY_PORTS: &str = "portcullis.dev/gateway-ports";
/// On Services: the server names by which its TCP ports are shared with others.
pub const HOSTNAMES: &str = "portcullis.dev/hostnames";
/// On Services, Gateways and routes: `v1` or `v2`, for all ports or for single ones (`443=v2`).
pub const PROXY_PROTOCOL: &str = "portcullis.dev/proxy-protocol";
/// On Services, Gateways and routes: `transparent` lets backends see the visitor's own address.
pub const CLIENT_ADDRESS: &str = "portcullis.dev/client-address";
/// On Services and Gateways: new connections a second from one source.
pub const MAX_NEW_PER_SECOND: &str = "portcullis.dev/max-new-per-second";
/// On Services and Gateways: connections of one source at one time.
pub const MAX_OPEN: &str = "portcullis.dev/max-open";
/// On Services: `host` leads to the target ports on the agent's own machine, 127.0.0.1.
pub const TARGET: &str = "portcullis.dev/target";

/// Every key that asks something of gateways and of nobody else.
pub(crate) const OF_GATEWAYS: [&str; 8] = [
    GATEWAY,
    GATEWAY_PORTS,
    HOSTNAMES,
    PROXY_PROTOCOL,
    CLIENT_ADDRESS,
    MAX_NEW_PER_SECOND,
    MAX_OPEN,
    TARGET,
];

/// The `spec.loadBalancerClass` of Services that gateways publish.
pub const GATEWAY_CLASS: &str = "portcullis.dev/gateway";
