//! The cluster as planning sees it: the little that is needed of each object.
//!
//! Objects come in one by one or as complete lists, from whatever source; each is read once, and
//! what is kept is small. What hosts are like is not known here, and nothing is decided here that
//! depends on a host.

mod endpoints;
mod host;
mod node;
mod owner;
mod pod;
pub(crate) mod ports;
mod service;
pub(crate) mod wish;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use api::host::HostSettings;
use api::object::{ObjectKind, ObjectRef};

use crate::finding::Finding;
pub use crate::object::{Change, Object};
use endpoints::{Endpoints, Readiness};
use host::HostEntry;
use node::{NodeChange, NodeEntry, Nodes};
use owner::Owner;
use ports::Ports;
use wish::Wish;

/// The cluster as planning sees it.
#[derive(Debug, Default)]
pub struct ClusterView {
    listed: BTreeSet<ObjectKind>,
    version: u64,
    /// The version in which the addresses of active nodes last changed.
    nodes_changed: u64,
    owners: BTreeMap<ObjectRef, Owner>,
    /// The owners with findings or with a choice of hosts: few, and every plan looks at them.
    noted: BTreeSet<ObjectRef>,
    /// The version in which one of them, or the names of Hosts, last changed.
    noted_changed: u64,
    nodes: Nodes,
    endpoints: Endpoints,
    hosts: BTreeMap<String, HostEntry>,
    ports: Ports,
}

/// Every kind whose complete list must have been seen before anything may be changed.
const KINDS: [ObjectKind; 5] = [
    ObjectKind::Service,
    ObjectKind::Pod,
    ObjectKind::Node,
    ObjectKind::EndpointSlice,
    ObjectKind::Host,
];

impl ClusterView {
    /// Takes in a change; returns whether anything changed that planning reads.
    ///
    /// An object that can no longer be understood keeps its last good state, with a finding,
    /// until it is corrected or deleted.
    pub fn change(&mut self, change: Change) -> bool {
        let version = self.version + 1;
        let changed = match change {
            Change::Applied(object) => self.apply(&object, version),
            Change::Deleted(object) => self.delete(&object, version),
            Change::Reset(kind, objects) => {
                let present: BTreeSet<_> = objects.iter().map(Object::reference).collect();
                let mut changed = KINDS.contains(&kind) && self.listed.insert(kind);
                for gone in self.known(kind).filter(|it| !present.contains(it)).collect::<Vec<_>>()
                {
                    changed |= self.delete(&gone, version);
                }
                for object in &objects {
                    changed |= self.apply(object, version);
                }
                changed
            }
        };
        if changed {
            self.version = version;
        }
        changed
    }

    /// Whether a complete list of every kind was seen. Until then, what is missing here may well
    /// exist, so nothing must be planned.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.missing().next().is_none()
    }

    /// The kinds of which no complete list was seen yet.
    pub fn missing(&self) -> impl Iterator<Item = ObjectKind> + '_ {
        KINDS.into_iter().filter(|it| !self.listed.contains(it))
    }

    /// A number that grows with every change that [`change`](Self::change) reports.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The names of all Hosts.
    pub fn host_names(&self) -> impl Iterator<Item = &str> {
        self.hosts.keys().map(String::as_str)
    }

    /// What is asked of one host; `None` when there is no such Host, or when it never could be
    /// understood.
    #[must_use]
    pub fn host(&self, name: &str) -> Option<&Arc<HostSettings>> {
        self.hosts.get(name)?.settings.as_ref()
    }

    /// The generation of one Host: what `status.observedGeneration` should say of a plan.
    #[must_use]
    pub fn host_generation(&self, name: &str) -> Option<i64> {
        self.hosts.get(name)?.generation
    }

    /// The `metadata.uid` of an object, for Events; `None` when it is unknown or asks nothing.
    #[must_use]
    pub fn uid(&self, object: &ObjectRef) -> Option<&str> {
        let uid = match object.kind {
            ObjectKind::Service | ObjectKind::Pod => &self.owners.get(object)?.uid,
            ObjectKind::Node => &self.nodes.get(&object.name)?.uid,
            ObjectKind::Host => &self.hosts.get(&object.name)?.uid,
            ObjectKind::EndpointSlice
            | ObjectKind::Namespace
            | ObjectKind::Secret
            | ObjectKind::GatewayClass
            | ObjectKind::Gateway
            | ObjectKind::ListenerSet
            | ObjectKind::TcpRoute
            | ObjectKind::UdpRoute
            | ObjectKind::TlsRoute
            | ObjectKind::HttpRoute
            | ObjectKind::ReferenceGrant
            | ObjectKind::EdgeGateway => return None,
        };
        Some(uid.as_ref()).filter(|it| !it.is_empty())
    }

    /// The nodes that take traffic, with their addresses: those that are ready or, while no node
    /// is, those that the control plane does not hear from (`Ready` is `Unknown`).
    pub fn active_nodes(&self) -> impl Iterator<Item = (&str, &[IpAddr])> {
        self.nodes.active().map(|(name, it)| (name, it.addresses.as_ref()))
    }

    /// Whether some node that may take traffic is ready.
    pub(crate) fn any_ready(&self) -> bool {
        self.nodes.any_ready()
    }

    /// Whether any Node, active or not, has `address`.
    pub(crate) fn is_node_address(&self, address: IpAddr) -> bool {
        self.nodes.iter().any(|(_, it)| it.addresses.contains(&address))
    }

    /// The version in which the addresses of active nodes last changed.
    pub(crate) fn nodes_changed(&self) -> u64 {
        self.nodes_changed
    }

    /// The version in which last changed what [`noted`](Self::noted), or the names of Hosts, say.
    pub(crate) fn noted_changed(&self) -> u64 {
        self.noted_changed
    }

    /// The version in which one Host last changed.
    pub(crate) fn host_changed(&self, name: &str) -> u64 {
        self.hosts.get(name).map_or(0, |it| it.changed)
    }

    /// The addresses at which one Host forwards, as its status tells.
    pub(crate) fn host_addresses(&self, name: &str) -> Option<&BTreeSet<IpAddr>> {
        self.hosts.get(name).map(|it| &it.addresses)
    }

    /// Every claim on a host port.
    pub(crate) fn ports(&self) -> &Ports {
        &self.ports
    }

    /// Every wish, in the order of its owner.
    pub(crate) fn wishes(&self) -> impl Iterator<Item = &Arc<Wish>> {
        self.owners.values().filter_map(|it| it.wish.as_ref())
    }

    /// What one object asks for.
    pub(crate) fn wish(&self, owner: &ObjectRef) -> Option<&Arc<Wish>> {
        self.owners.get(owner)?.wish.as_ref()
    }

    /// The Services whose `status.loadBalancer` is ours; those not understood without a wish.
    pub(crate) fn load_balancers(&self) -> impl Iterator<Item = (&ObjectRef, Option<&Arc<Wish>>)> {
        let ours = self.owners.iter().filter(|(_, it)| it.load_balancer);
        ours.map(|(owner, it)| (owner, it.wish.as_ref()))
    }

    /// The objects that cannot be understood and that have no last good state.
    pub(crate) fn unreadable(&self) -> impl Iterator<Item = &ObjectRef> {
        // Whatever cannot be understood has a finding.
        self.noted.iter().filter(|it| self.owners.get(it).is_some_and(Owner::is_unreadable))
    }

    /// What is wrong with objects that ask something of hosts, and what they ask.
    pub(crate) fn noted(&self) -> impl Iterator<Item = (&[Finding], Option<&Arc<Wish>>)> {
        let noted = self.noted.iter().filter_map(|it| self.owners.get(it));
        noted.map(|it| (it.findings.as_slice(), it.wish.as_ref()))
    }

    /// What is wrong with Nodes.
    pub(crate) fn node_findings(&self) -> impl Iterator<Item = &Finding> {
        self.nodes.iter().flat_map(|(_, it)| &it.findings)
    }

    /// What is wrong with one Host.
    pub(crate) fn host_findings(&self, name: &str) -> &[Finding] {
        self.hosts.get(name).map_or(&[], |it| &it.findings)
    }

    /// Whether there is a Host of this name, understood or not.
    pub(crate) fn has_host(&self, name: &str) -> bool {
        self.hosts.contains_key(name)
    }

    /// The addresses of all active nodes.
    pub(crate) fn all_nodes(&self) -> BTreeSet<IpAddr> {
        self.active_nodes().flat_map(|(_, addresses)| addresses).copied().collect()
    }

    /// The addresses of the active nodes with ready endpoints of one Service, of the families
    /// that it has.
    ///
    /// Whoever loses sight of a node also marks its Pods, and with them the endpoints, as not
    /// ready. So while no node is ready, and no active node has a ready endpoint, every endpoint
    /// counts that is not on its way out.
    pub(crate) fn nodes_with_endpoints(&self, namespace: &str, service: &str) -> BTreeSet<IpAddr> {
        let addresses = |readiness| {
            let names = self.endpoints.nodes(namespace, service, readiness);
            let active = names.filter_map(|it| self.nodes.get_active(it));
            active.flat_map(|it| it.addresses.iter().copied()).collect::<BTreeSet<_>>()
        };
        let service = ObjectRef::namespaced(ObjectKind::Service, namespace, service);
        let family = self.wish(&service).and_then(|it| it.family);
        let ready = addresses(Readiness::Ready);
        let no_more = !ready.is_empty() || self.any_ready();
        let mut nodes = if no_more { ready } else { addresses(Readiness::NotReady) };
        nodes.retain(|it| family.is_none_or(|family| family.has(*it)));
        nodes
    }

    fn known(&self, kind: ObjectKind) -> Box<dyn Iterator<Item = ObjectRef> + '_> {
        match kind {
            ObjectKind::Service | ObjectKind::Pod => {
                Box::new(self.owners.keys().filter(move |it| it.kind == kind).cloned())
            }
            ObjectKind::Node => {
                Box::new(self.nodes.iter().map(move |(it, _)| ObjectRef::cluster(kind, it)))
            }
            ObjectKind::Host => {
                Box::new(self.hosts.keys().map(move |it| ObjectRef::cluster(kind, it)))
            }
            ObjectKind::EndpointSlice => Box::new(
                self.endpoints
                    .keys()
                    .map(move |(namespace, name)| ObjectRef::namespaced(kind, namespace, name)),
            ),
            ObjectKind::Namespace
            | ObjectKind::Secret
            | ObjectKind::GatewayClass
            | ObjectKind::Gateway
            | ObjectKind::ListenerSet
            | ObjectKind::TcpRoute
            | ObjectKind::UdpRoute
            | ObjectKind::TlsRoute
            | ObjectKind::HttpRoute
            | ObjectKind::ReferenceGrant
            | ObjectKind::EdgeGateway => Box::new(std::iter::empty()),
        }
    }

    fn apply(&mut self, object: &Object, version: u64) -> bool {
        match object {
            Object::Service(it) => {
                let owner = object.reference();
                let read = service::read(it, self.owners.get(&owner));
                self.set_owner(owner, read, version)
            }
            Object::Pod(it) => {
                let owner = object.reference();
                let read = pod::read(it, self.owners.get(&owner));
                self.set_owner(owner, read, version)
            }
            Object::Node(it) => {
                let name = it.metadata.name.clone().unwrap_or_default();
                self.set_node(name, Some(node::read(it)), version)
            }
            Object::EndpointSlice(it) => {
                let reference = object.reference();
                let namespace = reference.namespace.unwrap_or_default();
                let any_ready = self.any_ready();
                let services = self.endpoints.insert(&namespace, &reference.name, it, any_ready);
                self.touch(&namespace, services, version)
            }
            Object::Host(it) => {
                let name = it.metadata.name.clone().unwrap_or_default();
                let read = host::read(it, self.hosts.get(&name), version);
                let before = self.hosts.get(&name);
                if before
                    .is_some_and(|it| it.changed == read.changed && it.addresses == read.addresses)
                {
                    return false;
                }
                if self.hosts.insert(name, read).is_none() {
                    self.noted_changed = version;
                }
                true
            }
            // What is published is none of a host's concern.
            Object::Namespace(_)
            | Object::Secret(_)
            | Object::GatewayClass(_)
            | Object::Gateway(_)
            | Object::ListenerSet(_)
            | Object::TcpRoute(_)
            | Object::UdpRoute(_)
            | Object::TlsRoute(_)
            | Object::HttpRoute(_)
            | Object::ReferenceGrant(_)
            | Object::EdgeGateway(_) => false,
        }
    }

    fn delete(&mut self, object: &ObjectRef, version: u64) -> bool {
        match object.kind {
            ObjectKind::Service | ObjectKind::Pod => self.set_owner(object.clone(), None, version),
            ObjectKind::Node => self.set_node(object.name.clone(), None, version),
            ObjectKind::EndpointSlice => {
                let namespace = object.namespace.as_deref().unwrap_or_default();
                let services = self.endpoints.remove(namespace, &object.name);
                self.touch(namespace, services, version)
            }
            ObjectKind::Host => {
                let known = self.hosts.remove(&object.name).is_some();
                if known {
                    self.noted_changed = version;
                }
                known
            }
            ObjectKind::Namespace
            | ObjectKind::Secret
            | ObjectKind::GatewayClass
            | ObjectKind::Gateway
            | ObjectKind::ListenerSet
            | ObjectKind::TcpRoute
            | ObjectKind::UdpRoute
            | ObjectKind::TlsRoute
            | ObjectKind::HttpRoute
            | ObjectKind::ReferenceGrant
            | ObjectKind::EdgeGateway => false,
        }
    }

    fn set_owner(&mut self, reference: ObjectRef, new: Option<Owner>, version: u64) -> bool {
        let old = self.owners.get(&reference);
        if old == new.as_ref() {
            return false;
        }
        let old_wish = old.and_then(|it| it.wish.as_ref());
        let new_wish = new.as_ref().and_then(|it| it.wish.as_ref());
        if old_wish != new_wish {
            self.ports.replace(old_wish.map(AsRef::as_ref), new_wish, version);
        }
        let noted_before = self.noted.remove(&reference);
        if new.as_ref().is_some_and(Owner::is_noted) {
            self.noted.insert(reference.clone());
            self.noted_changed = version;
        } else if noted_before {
            self.noted_changed = version;
        }
        match new {
            Some(new) => self.owners.insert(reference, new),
            None => self.owners.remove(&reference),
        };
        true
    }

    fn set_node(&mut self, name: String, new: Option<NodeEntry>, version: u64) -> bool {
        let change = self.nodes.set(name, new);
        if change == NodeChange::Decisive {
            self.nodes_changed = version;
        }
        change != NodeChange::Nothing
    }

    /// Marks the ports of Services that depend on where their endpoints are.
    fn touch(&mut self, namespace: &str, services: Vec<String>, version: u64) -> bool {
        let mut changed = false;
        for service in services {
            let owner = ObjectRef::namespaced(ObjectKind::Service, namespace, &service);
            let Some(wish) = self.owners.get(&owner).and_then(|it| it.wish.as_ref()) else {
                continue;
            };
            if !wish.depends_on_endpoints() {
                continue;
            }
            self.ports.touch(wish, version);
            changed = true;
        }
        changed
    }
}
