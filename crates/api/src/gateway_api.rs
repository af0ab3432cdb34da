//! The kinds of the Gateway API (`gateway.networking.k8s.io/v1`, release 1.6), as far as they are
//! read and written here.
//!
//! Nothing in them is checked: the API server did, and what a manifest gets wrong becomes a
//! condition or a finding where it is understood. Fields that nobody reads are left out, except in
//! the statuses, which are written back and so must lose nothing that another controller said.

mod gateway;
mod gateway_class;
mod listener;
mod listener_set;
mod reference_grant;
mod route;
mod status;

pub use gateway::{
    AllowedListeners, Gateway, GatewayAddress, GatewayInfrastructure, GatewaySpec, GatewayStatus,
    ListenerNamespaces, LocalParametersReference,
};
pub use gateway_class::{
    GatewayClass, GatewayClassSpec, GatewayClassStatus, ParametersReference, SupportedFeature,
};
pub use listener::{
    AllowedRoutes, Listener, ListenerTls, RouteGroupKind, RouteNamespaces, SecretObjectReference,
};
pub use listener_set::{ListenerSet, ListenerSetSpec, ListenerSetStatus, ParentGatewayReference};
pub use reference_grant::{
    ReferenceGrant, ReferenceGrantFrom, ReferenceGrantSpec, ReferenceGrantTo,
};
pub use route::{
    BackendRef, HttpRoute, HttpRouteMatch, HttpRouteRule, HttpRouteSpec, ParentReference,
    RouteRule, TcpRoute, TcpRouteSpec, TlsRoute, TlsRouteSpec, UdpRoute, UdpRouteSpec,
};
pub use status::{GatewayStatusAddress, ListenerStatus, RouteParentStatus, RouteStatus};

/// The group of every kind here.
pub const GROUP: &str = "gateway.networking.k8s.io";

/// What `spec.controllerName` of our GatewayClasses says, and what we sign statuses with.
pub const CONTROLLER_NAME: &str = "portcullis.dev/gateway-controller";

#[cfg(test)]
mod tests;
