//! Reading Nodes, and which of them take traffic.

use std::collections::BTreeMap;
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
    pub(super) fitness: Fitness,
    /// Every `InternalIP`, in ascending order.
    pub(super) addresses: Box<[IpAddr]>,
    pub(super) findings: Vec<Finding>,
}

/// Whether a Node may take traffic. A cordon keeps new Pods away, not traffic, so it does not
/// matter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fitness {
    /// It is ready, has an address, and is not excluded.
    Ready,
    /// The same, except that the control plane does not hear from it and so cannot know whether
    /// it is ready. Its data plane may well work.
    OutOfSight,
    /// It is not ready, it has no address, or an annotation or label excludes it.
    Unfit,
}

/// All Nodes.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    entries: BTreeMap<String, NodeEntry>,
    /// How many of them are ready.
    ready: usize,
}

/// What a change of a Node changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum NodeChange {
    /// Nothing.
    Nothing,
    /// Something that is only told.
    Told,
    /// Perhaps which nodes take traffic, or at which addresses.
    Decisive,
}

impl Nodes {
    /// Takes in what a Node now is; `None` when it is gone.
    pub(super) fn set(&mut self, name: String, new: Option<NodeEntry>) -> NodeChange {
        let decisive = |it: &NodeEntry| (it.fitness, it.addresses.clone());
        let ready = |it: Option<&NodeEntry>| it.is_some_and(|it| it.fitness == Fitness::Ready);
        let old = self.entries.get(&name);
        let change = if old == new.as_ref() {
            NodeChange::Nothing
        } else if old.map(decisive) == new.as_ref().map(decisive) {
            NodeChange::Told
        } else {
            NodeChange::Decisive
        };
        self.ready -= usize::from(ready(old));
        self.ready += usize::from(ready(new.as_ref()));
        match new {
            Some(new) => self.entries.insert(name, new),
            None => self.entries.remove(&name),
        };
        change
    }

    /// Whether some node that may take traffic is ready.
    pub(super) fn any_ready(&self) -> bool {
        self.ready > 0
    }

    /// The nodes that take traffic: those that are ready. While none is, those that the control
    /// plane does not hear from: it is more likely that it lost sight of them than that all of
    /// them died.
    pub(super) fn active(&self) -> impl Iterator<Item = (&str, &NodeEntry)> {
        let active = self.entries.iter().filter(|(_, it)| self.is_active(it));
        active.map(|(name, it)| (name.as_str(), it))
    }

    /// The node of this name, if it takes traffic.
    pub(super) fn get_active(&self, name: &str) -> Option<&NodeEntry> {
        self.entries.get(name).filter(|it| self.is_active(it))
    }

    /// The node of this name.
    pub(super) fn get(&self, name: &str) -> Option<&NodeEntry> {
        self.entries.get(name)
    }

    /// Every node, whether it takes traffic or not.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &NodeEntry)> {
        self.entries.iter().map(|(name, it)| (name.as_str(), it))
    }

    fn is_active(&self, node: &NodeEntry) -> bool {
        match node.fitness {
            Fitness::Ready => true,
            Fitness::OutOfSight => !self.any_ready(),
            Fitness::Unfit => false,
        }
    }
}

pub(super) fn read(node: &Node) -> NodeEntry {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let object = ObjectRef::cluster(ObjectKind::Node, name);
    let reading = read_node(&node.metadata);
    let excluded = reading.wish.is_none_or(|it| it.excluded);
    let status = node.status.as_ref();
    let conditions = status.and_then(|it| it.conditions.as_ref()).into_iter().flatten();
    let ready = conditions.into_iter().find(|it| it.type_ == "Ready");
    let addresses = status.and_then(|it| it.addresses.as_ref()).into_iter().flatten();
    let internal = addresses.filter(|it| it.type_ == "InternalIP");
    let mut addresses: Vec<_> = internal.filter_map(|it| target(&it.address)).collect();
    addresses.sort_unstable();
    addresses.dedup();
    let fitness = match ready.map(|it| it.status.as_str()) {
        _ if excluded || addresses.is_empty() => Fitness::Unfit,
        Some("True") => Fitness::Ready,
        Some("Unknown") => Fitness::OutOfSight,
        Some(_) | None => Fitness::Unfit,
    };
    let excluding = "; the node is left out";
    NodeEntry {
        uid: uid(&node.metadata),
        fitness,
        addresses: addresses.into_boxed_slice(),
        findings: reading.problems.into_iter().map(|it| finding(&object, it, excluding)).collect(),
    }
}
