//! What a Service's annotations ask for.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::host_ports::HostPorts;
use super::vocabulary::Vocabulary;
use super::{Reading, key};
use crate::name::ObjectName;
use crate::source_range::SourceRanges;

/// What a Service's annotations ask for. Its `spec` may ask for more; that is not read here.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ServiceWish {
    /// The host ports; `None` when no annotation speaks of them.
    pub host_ports: Option<HostPorts>,
    /// Which Hosts should forward; `None` for all, never empty.
    pub hosts: Option<BTreeSet<ObjectName>>,
    /// Whether its forwards stay off the external interface.
    pub internal: bool,
    /// Who may use its forwards, as far as annotations say; `None` for everyone.
    pub sources: Option<SourceRanges>,
}

/// Reads the annotations of a Service.
#[must_use]
pub fn read_service(metadata: &ObjectMeta) -> Reading<ServiceWish> {
    let mut annotations = Vocabulary::new(metadata.annotations.as_ref());
    let wish = ServiceWish {
        host_ports: annotations.host_ports(),
        hosts: annotations.hosts(),
        internal: annotations.internal(),
        sources: annotations.sources([key::ALLOW_FROM, key::EPOK_ALLOW_RANGE]),
    };
    let known = [key::HOST_PORTS, key::HOST, key::INTERNAL, key::ALLOW_FROM];
    annotations.warn_of_unknown("Service", &known);
    annotations.warn_of(
        key::EPOK_EXTERNAL,
        "has no effect on a Service: its forwards are reachable through every interface",
        "remove it",
    );
    Reading::new(wish, annotations.into_problems())
}
