//! What one Service or Pod asks of hosts, with everything resolved that no host decides.

use std::collections::BTreeSet;
use std::net::IpAddr;

use api::name::ObjectName;
use api::object::ObjectRef;
use api::port::{Port, Protocol};
use api::source_range::SourceRanges;

use crate::desired::{Exposure, IpFamily, NodeSetName};

/// What one Service or Pod asks of hosts.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Wish {
    pub(crate) owner: ObjectRef,
    /// Creation time in seconds since 1970; objects without one count as the youngest.
    pub(crate) created: i64,
    /// Which hosts it is for; `None` for all.
    pub(crate) hosts: Option<BTreeSet<ObjectName>>,
    pub(crate) exposure: Exposure,
    pub(crate) sources: Option<SourceRanges>,
    pub(crate) affinity: bool,
    /// Where the user wrote the host ports: what a finding about one of them should name.
    pub(crate) field: &'static str,
    /// The only family that it answers in; `None` for both.
    pub(crate) family: Option<IpFamily>,
    pub(crate) backends: Backends,
    /// In ascending order, no host port of a protocol twice.
    pub(crate) ports: Box<[WishedPort]>,
}

/// Who answers.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Backends {
    /// Nodes, at a node port.
    Nodes(NodeSetName),
    /// One Pod, at its own addresses.
    Pod(Box<[IpAddr]>),
}

/// One host port and the port that it leads to.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct WishedPort {
    pub(crate) protocol: Protocol,
    pub(crate) host: Port,
    pub(crate) target: Port,
}

impl Wish {
    /// Whether it is for the host of this name.
    pub(crate) fn is_for(&self, host: &str) -> bool {
        self.hosts.as_ref().is_none_or(|it| it.iter().any(|name| name.as_str() == host))
    }

    /// The order in which conflicts are decided: the smaller one wins.
    pub(crate) fn rank(&self) -> (i64, &ObjectRef) {
        (self.created, &self.owner)
    }

    /// Whether it matters where its endpoints are.
    pub(crate) fn depends_on_endpoints(&self) -> bool {
        matches!(self.backends, Backends::Nodes(NodeSetName::WithEndpoints { .. }))
    }

    /// Whether it sends traffic straight to a Pod.
    pub(crate) fn is_pod(&self) -> bool {
        matches!(self.backends, Backends::Pod(_))
    }
}
