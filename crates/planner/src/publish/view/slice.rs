//! Where Services have endpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use api::port::{Port, Protocol};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::object::Key;
use crate::publish::publication::Endpoint;

/// The label that names the Service of a slice.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// All slices.
#[derive(Debug, Default)]
pub(super) struct Slices {
    slices: BTreeMap<Key, Slice>,
    of_service: BTreeMap<Key, BTreeSet<String>>,
}

#[derive(Debug, Eq, PartialEq)]
struct Slice {
    service: String,
    ports: Vec<(String, Protocol, Port)>,
    endpoints: Vec<Place>,
    /// Addresses that no endpoint may have.
    left_out: Vec<IpAddr>,
}

/// An endpoint of a slice, whatever its ports.
#[derive(Debug, Eq, PartialEq)]
struct Place {
    address: IpAddr,
    node: Option<Arc<str>>,
    ready: bool,
}

impl Slices {
    /// Takes in a slice; returns whether anything changed.
    pub(super) fn insert(&mut self, key: Key, slice: &EndpointSlice) -> bool {
        let labels = slice.metadata.labels.as_ref();
        let Some(service) = labels.and_then(|it| it.get(SERVICE_LABEL)) else {
            return self.remove(&key);
        };
        let read = read(service, slice);
        if self.slices.get(&key) == Some(&read) {
            return false;
        }
        self.remove(&key);
        let of_service = (key.0.clone(), service.clone());
        self.of_service.entry(of_service).or_default().insert(key.1.clone());
        self.slices.insert(key, read);
        true
    }

    /// Forgets a slice; returns whether it was there.
    pub(super) fn remove(&mut self, key: &Key) -> bool {
        let Some(slice) = self.slices.remove(key) else { return false };
        let service = (key.0.clone(), slice.service);
        if let Some(names) = self.of_service.get_mut(&service) {
            names.remove(&key.1);
            if names.is_empty() {
                self.of_service.remove(&service);
            }
        }
        true
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.slices.keys()
    }

    /// Addresses of a Service's endpoints that no endpoint may have; in ascending order, none twice.
    pub(super) fn left_out(&self, service: &Key) -> Vec<IpAddr> {
        let names = self.of_service.get(service).into_iter().flatten();
        let slices = names.filter_map(|it| self.slices.get(&(service.0.clone(), it.clone())));
        let addresses: BTreeSet<_> = slices.flat_map(|it| &it.left_out).copied().collect();
        addresses.into_iter().collect()
    }

    /// The endpoints of one port of a Service: those of the family that it prefers, or else of the
    /// other one; in ascending order.
    pub(super) fn endpoints(
        &self,
        service: &Key,
        port: &str,
        protocol: Protocol,
        prefers_ipv6: bool,
    ) -> Vec<Endpoint> {
        let names = self.of_service.get(service).into_iter().flatten();
        let slices = names.filter_map(|it| self.slices.get(&(service.0.clone(), it.clone())));
        // While a slice is split, an endpoint may be in two of them.
        let mut found: BTreeMap<SocketAddr, Endpoint> = BTreeMap::new();
        for slice in slices {
            let ports = slice.ports.iter().filter(|it| it.0 == port && it.1 == protocol);
            for (_, _, port) in ports {
                for it in &slice.endpoints {
                    let address = SocketAddr::new(it.address, port.get());
                    let node = it.node.as_deref().map(str::to_owned);
                    let endpoint = Endpoint { address, node, ready: it.ready };
                    if it.ready || !found.contains_key(&address) {
                        found.insert(address, endpoint);
                    }
                }
            }
        }
        let (preferred, other): (Vec<_>, Vec<_>) =
            found.into_values().partition(|it| it.address.is_ipv6() == prefers_ipv6);
        let usable = |it: &[Endpoint]| it.iter().any(|it| it.ready);
        if usable(&preferred) || (!usable(&other) && !preferred.is_empty()) {
            preferred
        } else {
            other
        }
    }
}

fn read(service: &str, slice: &EndpointSlice) -> Slice {
    let ports = slice.ports.iter().flatten().filter_map(|it| {
        let port = it.port.and_then(|it| u16::try_from(it).ok()).and_then(Port::new)?;
        let protocol = it.protocol.as_deref().unwrap_or("TCP").parse().ok()?;
        Some((it.name.clone().unwrap_or_default(), protocol, port))
    });
    let mut left_out = Vec::new();
    let mut endpoints: Vec<_> = slice
        .endpoints
        .iter()
        .flatten()
        .filter_map(|it| {
            // An absent condition means ready, serving, and not terminating: EndpointConditions,
            // discovery.k8s.io/v1. The addresses of one endpoint are as good as each other.
            let conditions = it.conditions.as_ref();
            let ready = conditions.and_then(|it| it.ready).unwrap_or(true);
            let serving = conditions.and_then(|it| it.serving).unwrap_or(ready);
            let terminating = conditions.and_then(|it| it.terminating).unwrap_or(false);
            let address = it.addresses.iter().find_map(|it| it.parse::<IpAddr>().ok())?;
            let nowhere = is_nowhere(address);
            if nowhere {
                left_out.push(address);
            }
            let node = it.node_name.as_deref().map(Arc::from);
            (!nowhere && (ready || (serving && terminating))).then_some(Place {
                address,
                node,
                ready,
            })
        })
        .collect();
    endpoints.sort_by_key(|it| (it.address, !it.ready));
    Slice { service: service.to_owned(), ports: ports.collect(), endpoints, left_out }
}

/// Whether an address is none that an endpoint may have; the API server refuses the same ones
/// (validation of `discovery.k8s.io/v1 Endpoint`).
fn is_nowhere(address: IpAddr) -> bool {
    let local = match address {
        IpAddr::V4(it) => it.is_link_local(),
        IpAddr::V6(it) => it.is_unicast_link_local() || it.to_ipv4_mapped().is_some(),
    };
    local || address.is_unspecified() || address.is_loopback() || address.is_multicast()
}
