//! What a Pod's annotations ask for.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::exposure::Exposure;
use super::host_ports::HostPorts;
use super::vocabulary::Vocabulary;
use super::{Reading, key};
use crate::name::ObjectName;
use crate::source_range::SourceRanges;

/// What a Pod's annotations ask for. Targets are ports of the Pod; an omitted target is the same
/// number as the host port.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PodWish {
    /// The host ports; `None` when no annotation speaks of them.
    pub host_ports: Option<HostPorts>,
    /// Which Hosts should forward; `None` for all, never empty.
    pub hosts: Option<BTreeSet<ObjectName>>,
    /// Through which interfaces its forwards should be reachable.
    pub exposure: Exposure,
    /// Who may use its forwards; `None` for everyone.
    pub sources: Option<SourceRanges>,
}

/// Reads the annotations of a Pod.
#[must_use]
pub fn read_pod(metadata: &ObjectMeta) -> Reading<PodWish> {
    let mut annotations = Vocabulary::new(metadata.annotations.as_ref());
    let wish = PodWish {
        host_ports: annotations.host_ports(),
        hosts: annotations.hosts(),
        exposure: annotations.exposure(),
        sources: annotations.sources([key::ALLOW_FROM]),
    };
    let known = [key::HOST_PORTS, key::HOST, key::INTERNAL, key::EXTERNAL, key::ALLOW_FROM];
    annotations.warn_of_unknown("Pod", &known);
    if !annotations.has(key::ALLOW_FROM) {
        annotations.warn_of(
            key::EPOK_ALLOW_RANGE,
            "has no effect on a Pod: everyone may use its host ports",
            "write portcullis.dev/allow-from to restrict them",
        );
    }
    Reading::new(wish, annotations.into_problems())
}
