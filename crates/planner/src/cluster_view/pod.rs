//! Reading Pods.

use std::net::IpAddr;
use std::sync::Arc;

use api::annotation::{PodWish, exposure, key, read_pod};
use api::object::{ObjectKind, ObjectRef};
use k8s_openapi::api::core::v1::{Pod, PodStatus};

use super::owner::{Asked, Owner, created, uid};
use super::wish::{Backends, Wish, WishedPort};
use crate::desired::Exposure;
use crate::object::reference;

const HOST_PORT_KEYS: [&str; 3] =
    [key::HOST_PORTS, key::EPOK_EXTERNAL_PORTS, key::EPOK_EXTERNAL_PORT];

/// Reads a Pod; `None` when it asks nothing of hosts and nothing is wrong with it.
pub(super) fn read(pod: &Pod, before: Option<&Owner>) -> Option<Owner> {
    // Nearly all Pods of a cluster end here.
    pod.metadata.annotations.as_ref().filter(|it| !it.is_empty())?;
    let owner = reference(ObjectKind::Pod, &pod.metadata);
    let reading = read_pod(&pod.metadata);
    let mut read = Owner::new(uid(&pod.metadata), false, reading.wish.is_none());
    let asked = reading.wish.map(Arc::new).or_else(|| before?.asked.as_ref()?.as_pod());
    read.report(&owner, reading.problems, asked.is_some());
    if let Some(asked) = asked.filter(|it| it.host_ports.is_some()) {
        read.wish = resolve(owner, pod, &asked).map(Arc::new);
        read.asked = Some(Asked::Pod(asked));
    }
    read.matters().then_some(read)
}

/// Settles what only the status knows; `None` while the Pod takes no traffic.
fn resolve(owner: ObjectRef, pod: &Pod, asked: &PodWish) -> Option<Wish> {
    // A Pod on its way out still says that it is ready; Kubernetes stops sending to it as well.
    let leaving = pod.metadata.deletion_timestamp.is_some();
    let status = pod.status.as_ref().filter(|it| !leaving && is_ready(it))?;
    let addresses = addresses(status);
    if addresses.is_empty() {
        return None;
    }
    let host_ports = asked.host_ports.as_ref()?;
    let mut ports: Vec<_> = host_ports
        .iter()
        .map(|it| WishedPort {
            protocol: it.protocol,
            host: it.port,
            target: it.target.unwrap_or(it.port),
        })
        .collect();
    ports.sort_unstable();
    let annotations = pod.metadata.annotations.as_ref();
    let written = |it: &&str| annotations.is_some_and(|found| found.contains_key(*it));
    Some(Wish {
        owner,
        created: created(&pod.metadata),
        hosts: asked.hosts.clone(),
        exposure: match asked.exposure {
            exposure::Exposure::Everywhere => Exposure::Everywhere,
            exposure::Exposure::Internal => Exposure::Internal,
            exposure::Exposure::External => Exposure::External,
        },
        sources: asked.sources.clone(),
        affinity: false,
        field: HOST_PORT_KEYS.into_iter().find(written).unwrap_or(key::HOST_PORTS),
        // Its addresses say it all.
        family: None,
        backends: Backends::Pod(addresses.into_boxed_slice()),
        ports: ports.into_boxed_slice(),
    })
}

fn is_ready(status: &PodStatus) -> bool {
    status.conditions.iter().flatten().any(|it| it.type_ == "Ready" && it.status == "True")
}

/// Its addresses of both families, in ascending order.
fn addresses(status: &PodStatus) -> Vec<IpAddr> {
    let all = status.pod_ips.iter().flatten().map(|it| it.ip.as_str());
    let mut addresses: Vec<_> = all.chain(status.pod_ip.as_deref()).filter_map(target).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// Reads the address of a Pod or a Node; `None` when nothing can be sent there.
pub(super) fn target(text: &str) -> Option<IpAddr> {
    let address: IpAddr = text.parse().ok()?;
    let nowhere = address.is_unspecified() || address.is_loopback() || address.is_multicast();
    (!nowhere).then_some(address)
}
