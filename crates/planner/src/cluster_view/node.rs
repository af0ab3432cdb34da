//! Reading Nodes.

use std::net::IpAddr;

use api::annotation::read_node;
use api::object::{ObjectKind, ObjectRef};
use k8s_openapi::api::core::v1::Node;

use super::owner::{finding, uid};
use super::pod::target;
use crate::finding::Finding;

/// What is kept of a Node. A heartbeat changes nothing in it.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct NodeEntry {
    pub(super) uid: Box<str>,
    /// Ready, and not excluded by an annotation or label. A cordon keeps new Pods away, not
    /// traffic, so it does not matter.
    pub(super) active: bool,
    /// Every `InternalIP`, in ascending order.
    pub(super) addresses: Box<[IpAddr]>,
    pub(super) findings: Vec<Finding>,
}

pub(super) fn read(node: &Node) -> NodeEntry {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let object = ObjectRef::cluster(ObjectKind::Node, name);
    let reading = read_node(&node.metadata);
    let excluded = reading.wish.is_none_or(|it| it.excluded);
    let status = node.status.as_ref();
    let conditions = status.and_then(|it| it.conditions.as_ref()).into_iter().flatten();
    let ready = conditions.into_iter().any(|it| it.type_ == "Ready" && it.status == "True");
    let addresses = status.and_then(|it| it.addresses.as_ref()).into_iter().flatten();
    let internal = addresses.filter(|it| it.type_ == "InternalIP");
    let mut addresses: Vec<_> = internal.filter_map(|it| target(&it.address)).collect();
    addresses.sort_unstable();
    addresses.dedup();
    let excluding = "; the node is left out";
    NodeEntry {
        uid: uid(&node.metadata),
        active: ready && !excluded,
        addresses: addresses.into_boxed_slice(),
        findings: reading.problems.into_iter().map(|it| finding(&object, it, excluding)).collect(),
    }
}
