//! On which nodes a Service has endpoints, and whether they are ready.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::EndpointSlice;

/// The label that names the Service of a slice.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// Namespace and name.
type Key = (String, String);

/// The nodes with endpoints, slice by slice.
///
/// All slices are kept, because a Service may turn to `externalTrafficPolicy: Local` at any time;
/// a slice of a thousand Pods costs one shared name for each node.
#[derive(Debug, Default)]
pub(super) struct Endpoints {
    slices: BTreeMap<Key, Slice>,
    slices_of: BTreeMap<Key, BTreeSet<String>>,
    names: BTreeSet<Arc<str>>,
}

#[derive(Debug, Eq, PartialEq)]
struct Slice {
    service: String,
    ready: Box<[Arc<str>]>,
    /// The nodes whose endpoints are all not ready; endpoints that terminate do not count.
    not_ready: Box<[Arc<str>]>,
}

/// Which endpoints of a node are meant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Readiness {
    /// At least one is ready.
    Ready,
    /// None is ready, and at least one does not terminate.
    NotReady,
}

impl Endpoints {
    /// Takes in a slice and returns the names of the Services whose nodes may have changed; while
    /// some node is ready, endpoints that are not ready change nothing.
    pub(super) fn insert(
        &mut self,
        namespace: &str,
        name: &str,
        slice: &EndpointSlice,
        any_node_ready: bool,
    ) -> Vec<String> {
        let labels = slice.metadata.labels.as_ref();
        let Some(service) = labels.and_then(|it| it.get(SERVICE_LABEL)) else {
            return self.remove(namespace, name);
        };
        let (mut ready, mut not_ready) = (BTreeSet::new(), BTreeSet::new());
        for endpoint in slice.endpoints.iter().flatten() {
            let Some(node) = endpoint.node_name.as_deref() else { continue };
            // An absent condition means ready, and not terminating: EndpointConditions,
            // discovery.k8s.io/v1.
            let conditions = endpoint.conditions.as_ref();
            if conditions.and_then(|it| it.ready).unwrap_or(true) {
                ready.insert(node);
            } else if !conditions.and_then(|it| it.terminating).unwrap_or(false) {
                not_ready.insert(node);
            }
        }
        let not_ready = not_ready.difference(&ready).map(|it| self.share(it)).collect();
        let ready = ready.into_iter().map(|it| self.share(it)).collect();
        let slice = Slice { service: service.clone(), ready, not_ready };
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(before) = self.slices.get_mut(&key).filter(|it| {
            it.service == slice.service
                && it.ready == slice.ready
                && (any_node_ready || it.not_ready == slice.not_ready)
        }) {
            *before = slice;
            return Vec::new();
        }
        let mut changed = self.remove(namespace, name);
        changed.push(service.clone());
        let of_service = (namespace.to_owned(), service.clone());
        self.slices_of.entry(of_service).or_default().insert(name.to_owned());
        self.slices.insert(key, slice);
        changed
    }

    /// Forgets a slice and returns the names of the Services whose nodes may have changed.
    pub(super) fn remove(&mut self, namespace: &str, name: &str) -> Vec<String> {
        let Some(slice) = self.slices.remove(&(namespace.to_owned(), name.to_owned())) else {
            return Vec::new();
        };
        let of_service = (namespace.to_owned(), slice.service.clone());
        if let Some(slices) = self.slices_of.get_mut(&of_service) {
            slices.remove(name);
            if slices.is_empty() {
                self.slices_of.remove(&of_service);
            }
        }
        vec![slice.service]
    }

    /// The nodes with endpoints of one Service; some may be named twice.
    pub(super) fn nodes(
        &self,
        namespace: &str,
        service: &str,
        readiness: Readiness,
    ) -> impl Iterator<Item = &str> {
        let slices = self.slices_of.get(&(namespace.to_owned(), service.to_owned()));
        let namespace = namespace.to_owned();
        slices
            .into_iter()
            .flatten()
            .filter_map(move |it| self.slices.get(&(namespace.clone(), it.clone())))
            .flat_map(move |it| match readiness {
                Readiness::Ready => it.ready.iter(),
                Readiness::NotReady => it.not_ready.iter(),
            })
            .map(AsRef::as_ref)
    }

    /// Every slice, by namespace and name.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.slices.keys()
    }

    fn share(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return Arc::clone(known);
        }
        // Nodes come and go for years; names that nobody uses any more go before new ones come.
        if self.names.len().is_power_of_two() {
            self.names.retain(|it| Arc::strong_count(it) > 1);
        }
        let shared: Arc<str> = name.into();
        self.names.insert(Arc::clone(&shared));
        shared
    }
}
