//! What is listened on: for each cluster the wish in force, and what became of each port of it.
//!
//! A port is opened, changed or closed because the wish or the configuration says so, and for no
//! other reason: not because agents come and go, not because another port failed.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tunnel_proto::desired::{NotTaken, Wish};
use tunnel_proto::message::{Desired, PortReport, PortState, Protocol, PublishedPort, QuotaWish};

use crate::cluster::Cluster;
use crate::config::ClusterName;
use crate::filter::{Filter, PortFilter};
use crate::listener::{Bound, House, Listener};
use crate::port::{PortKey, normalised, overlap, sockets};
use crate::socket;

/// Ports that one cluster may have, whatever it is granted: each costs memory and descriptors.
const MOST_PORTS: usize = 16_384;

/// How long what was found out about the holder of a port is believed.
const HOLDER_KEPT: Duration = Duration::from_secs(30);

/// What is listened on.
#[derive(Debug)]
pub(crate) struct Table {
    house: Arc<House>,
    /// The addresses that ports without one are published on; empty means every one.
    offered: Vec<IpAddr>,
    clusters: BTreeMap<ClusterName, Share>,
    /// Sockets that were handed over and that no wish has asked for yet.
    inherited: Vec<Bound>,
    /// Whether visitors are taken; listening comes first after a start that took sockets over.
    taking: bool,
    /// Whether everything has been closed for good.
    closed: bool,
}

/// One cluster's part.
#[derive(Debug)]
struct Share {
    cluster: Arc<Cluster>,
    wish: Wish,
    quota: Option<QuotaWish>,
    ports: BTreeMap<PortKey, Entry>,
}

#[derive(Debug)]
enum Entry {
    Open(Arc<Listener>),
    /// Some sockets could not be opened yet; those that could are at work.
    Partly(Arc<Listener>, Missing),
    Not(Missing),
}

/// Why there is no socket.
#[derive(Clone, Debug)]
struct Missing {
    state: PortState,
    since: Instant,
}

impl Table {
    pub(crate) fn new(house: Arc<House>, offered: Vec<IpAddr>) -> Self {
        Self {
            house,
            offered,
            clusters: BTreeMap::new(),
            inherited: Vec::new(),
            taking: true,
            closed: false,
        }
    }

    /// Sockets to use before others are opened; until [`Self::take_visitors`] nobody is taken.
    pub(crate) fn inherit(&mut self, sockets: Vec<Bound>) {
        self.inherited = sockets;
        self.taking = false;
    }

    /// Takes visitors on every socket, and lets go of those that nobody has wished for.
    pub(crate) fn take_visitors(&mut self) {
        self.taking = true;
        self.inherited.clear();
        self.listeners().for_each(Listener::start);
    }

    /// Whether visitors are taken. While they are not, another process has the kernel's rules.
    pub(crate) fn takes_visitors(&self) -> bool {
        self.taking
    }

    /// Whether everything has been closed for good.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Another set of addresses is offered.
    pub(crate) fn offer(&mut self, offered: Vec<IpAddr>) {
        if self.offered != offered {
            self.offered = offered;
            // Ports without an address are bound anew.
            for share in self.clusters.values_mut() {
                share.close(|key| key.address.is_none());
            }
        }
    }

    /// Serves this cluster from now on, with the wish that was kept of it.
    pub(crate) fn add(&mut self, cluster: Arc<Cluster>, kept: Option<Desired>) {
        let name = cluster.name.clone();
        let mut share = Share { cluster, wish: Wish::new(), quota: None, ports: BTreeMap::new() };
        if let Some(desired) = kept
            && let Err(why) = share.take(desired, "")
        {
            tracing::error!(cluster = %name, %why, "the wish that was kept is not taken");
        }
        // Whoever wished that is not here.
        share.wish.left("");
        self.clusters.insert(name, share);
    }

    /// Serves this cluster no longer.
    pub(crate) fn remove(&mut self, name: &ClusterName) {
        if let Some(mut share) = self.clusters.remove(name) {
            share.close(|_| true);
        }
    }

    /// Takes a cluster's wish, as its agent of this name says it. [`Self::settle`] makes it so.
    pub(crate) fn wish(
        &mut self,
        name: &ClusterName,
        desired: Desired,
        by: &str,
    ) -> Result<(), NotTaken> {
        match self.clusters.get_mut(name) {
            Some(share) => share.take(desired, by),
            None => Ok(()),
        }
    }

    /// An agent of a cluster has left.
    pub(crate) fn left(&mut self, name: &ClusterName, agent: &str) {
        if let Some(share) = self.clusters.get_mut(name) {
            share.wish.left(agent);
        }
    }

    /// Opens, changes and closes sockets until they are as wished and granted. What cannot be had
    /// now is tried again by the next call.
    pub(crate) fn settle(&mut self) {
        for share in self.clusters.values_mut() {
            let gone: Vec<PortKey> = share
                .ports
                .keys()
                .filter(|it| !share.wish.ports().contains_key(it))
                .copied()
                .collect();
            share.close(|key| gone.contains(key));
        }
        let names: Vec<ClusterName> = self.clusters.keys().cloned().collect();
        for name in names {
            self.settle_cluster(&name);
        }
    }

    fn settle_cluster(&mut self, name: &ClusterName) {
        let Some(share) = self.clusters.get(name) else { return };
        let cluster = Arc::clone(&share.cluster);
        let wished: Vec<PublishedPort> = share.wish.ports().values().cloned().collect();
        let config = cluster.config();
        let mut used = vec![0; config.grants.as_ref().map_or(0, Vec::len)];
        for (index, port) in wished.into_iter().enumerate() {
            let key = PortKey::from(&port);
            let granted = config.grants(key.address, key.protocol, key.port, &used);
            let granted = granted.and_then(|grant| match key.address {
                Some(address) if !self.offered.is_empty() && !self.offered.contains(&address) => {
                    Err(format!("the gateway does not offer {address}"))
                }
                Some(_) | None if index >= MOST_PORTS => {
                    Err(format!("a cluster can have {MOST_PORTS} ports at a gateway"))
                }
                Some(_) | None => Ok(grant),
            });
            let before = self.clusters.get_mut(name).and_then(|it| it.ports.remove(&key));
            let entry = match granted {
                Ok(grant) => {
                    if let Some(used) = grant.and_then(|it| used.get_mut(it)) {
                        *used += 1;
                    }
                    self.settle_port(&cluster, port, before)
                }
                Err(why) => {
                    if let Some(Entry::Open(listener) | Entry::Partly(listener, _)) = before {
                        close(&cluster, &listener);
                    }
                    Entry::Not(Missing::new(PortState::NotGranted(why)))
                }
            };
            if let Some(share) = self.clusters.get_mut(name) {
                share.ports.insert(key, entry);
            }
        }
    }

    fn settle_port(
        &mut self,
        cluster: &Arc<Cluster>,
        port: PublishedPort,
        before: Option<Entry>,
    ) -> Entry {
        let key = PortKey::from(&port);
        let (listener, missing) = match before {
            Some(Entry::Open(listener)) => {
                listener.change_if_needed(port);
                return Entry::Open(listener);
            }
            Some(Entry::Partly(listener, missing)) => {
                listener.change_if_needed(port.clone());
                (Some(listener), Some(missing))
            }
            Some(Entry::Not(missing)) => (None, Some(missing)),
            None => (None, None),
        };
        if let Some(owner) = self.overlapping(&key) {
            let state = PortState::InUse(if owner == cluster.name {
                "another port of this cluster, on an address that both have".to_owned()
            } else {
                "another cluster of this gateway".to_owned()
            });
            return Entry::Not(Missing::new(state));
        }
        let have: Vec<SocketAddr> =
            listener.iter().flat_map(|it| it.sockets()).map(|it| it.address()).collect();
        let (mut opened, mut failed) = (Vec::new(), None);
        for at in sockets(&key, &self.offered) {
            if have.contains(&at) {
                continue;
            }
            match self.open(key.protocol, at) {
                Ok(socket) => opened.push(socket),
                Err(error) => failed = Some((at, error)),
            }
        }
        let listener = match listener {
            Some(listener) => {
                opened.into_iter().for_each(|it| listener.add(it));
                Some(listener)
            }
            None if opened.is_empty() => None,
            None => {
                let (cluster, house) = (Arc::clone(cluster), Arc::clone(&self.house));
                let listener = Listener::new(port, cluster, house, opened);
                if self.taking {
                    listener.start();
                }
                tracing::info!(cluster = %listener.cluster.name, port = %key, "listening");
                Some(listener)
            }
        };
        let missing = failed.map(|(at, error)| why_not(key.protocol, at, &error, missing));
        match (listener, missing) {
            (Some(listener), None) => Entry::Open(listener),
            (Some(listener), Some(missing)) => Entry::Partly(listener, missing),
            (None, Some(missing)) => Entry::Not(missing),
            (None, None) => Entry::Not(Missing::new(PortState::Failed(
                "the gateway offers no address".to_owned(),
            ))),
        }
    }

    fn open(&mut self, protocol: Protocol, at: SocketAddr) -> io::Result<Bound> {
        let same = |it: &Bound| match it {
            Bound::Tcp(address, _) => protocol == Protocol::Tcp && *address == at,
            Bound::Udp(address, _) => protocol == Protocol::Udp && *address == at,
        };
        if let Some(index) = self.inherited.iter().position(same) {
            return Ok(self.inherited.swap_remove(index));
        }
        match protocol {
            Protocol::Tcp => {
                let listener = tokio::net::TcpListener::from_std(socket::listen(at)?)?;
                Ok(Bound::Tcp(at, Arc::new(listener)))
            }
            Protocol::Udp => {
                let socket = tokio::net::UdpSocket::from_std(socket::bind(at)?)?;
                Ok(Bound::Udp(at, Arc::new(socket)))
            }
        }
    }

    /// The cluster that has a port which stands in the way.
    fn overlapping(&self, key: &PortKey) -> Option<ClusterName> {
        let other = self.listeners().find(|it| it.key != *key && overlap(&it.key, key));
        let same = self.listeners().find(|it| it.key == *key);
        other.or(same).map(|it| it.cluster.name.clone())
    }

    /// Every port that is listened on.
    pub(crate) fn listeners(&self) -> impl Iterator<Item = &Arc<Listener>> {
        let entries = self.clusters.values().flat_map(|it| it.ports.values());
        entries.filter_map(Entry::listener)
    }

    /// Whether something that is wished cannot be had yet.
    pub(crate) fn lacks_something(&self) -> bool {
        let mut entries = self.clusters.values().flat_map(|it| it.ports.values());
        entries.any(|it| !matches!(it, Entry::Open(_)))
    }

    /// Each port of a cluster, for a report, with the revision of the wish.
    pub(crate) fn report(&self, name: &ClusterName) -> (u64, Vec<PortReport>) {
        let Some(share) = self.clusters.get(name) else { return (0, Vec::new()) };
        let ports = share.ports.iter().map(|(key, entry)| match entry {
            Entry::Open(listener) => listener.report(),
            Entry::Partly(listener, missing) => {
                PortReport { state: missing.state.clone(), ..listener.report() }
            }
            Entry::Not(missing) => PortReport {
                address: key.address,
                port: key.port,
                protocol: key.protocol,
                state: missing.state.clone(),
                open: 0,
                total: 0,
                received: 0,
                sent: 0,
                failed: 0,
                probed: None,
            },
        });
        (share.wish.revision().unwrap_or(0), ports.collect())
    }

    /// What became of each port.
    pub(crate) fn states(&self) -> Vec<(ClusterName, u64, PortKey, PortState)> {
        let of_share = |(name, share): (&ClusterName, &Share)| {
            let (name, revision) = (name.clone(), share.wish.revision().unwrap_or(0));
            let state = |entry: &Entry| match entry {
                Entry::Open(_) => PortState::Listening,
                Entry::Partly(_, missing) | Entry::Not(missing) => missing.state.clone(),
            };
            let ports = share.ports.iter();
            ports
                .map(move |(key, it)| (name.clone(), revision, *key, state(it)))
                .collect::<Vec<_>>()
        };
        self.clusters.iter().flat_map(of_share).collect()
    }

    /// The smallest receive buffer of the UDP sockets, in bytes, if there is a socket.
    pub(crate) fn udp_buffer(&self) -> Option<usize> {
        let sockets = self.listeners().flat_map(|it| it.sockets());
        let buffers = sockets.filter_map(|it| match it {
            // The kernel tells twice of what it was asked for: half is its own overhead.
            Bound::Udp(_, socket) => {
                SockRef::from(&*socket).recv_buffer_size().ok().map(|it| it / 2)
            }
            Bound::Tcp(..) => None,
        });
        buffers.min()
    }

    /// Takes no visitors for now: they wait in the kernel. [`Self::take_visitors`] takes them.
    pub(crate) fn pause(&mut self) {
        self.taking = false;
        self.listeners().for_each(|it| it.pause());
    }

    /// Takes no visitors any more; the wishes stay.
    pub(crate) fn close(&mut self) {
        self.taking = false;
        self.closed = true;
        self.listeners().for_each(|it| it.stop());
    }

    /// Whether a cluster wishes any port.
    pub(crate) fn wishes_something(&self, name: &ClusterName) -> bool {
        self.clusters.get(name).is_some_and(|it| !it.wish.ports().is_empty())
    }

    /// The quota that a cluster's objects ask for.
    pub(crate) fn quota(&self, name: &ClusterName) -> Option<QuotaWish> {
        self.clusters.get(name)?.quota
    }

    /// What the kernel shall refuse.
    pub(crate) fn filter(&self) -> Filter {
        let ports = self.listeners().filter_map(|it| {
            let wished = it.wish();
            let filter = PortFilter {
                allow_from: wished.port.allow_from.clone(),
                limits: wished.port.limits,
            };
            filter.is_needed(it.key.protocol).then_some((it.key, filter))
        });
        Filter { ports: ports.collect(), shaped: BTreeMap::new() }
    }
}

impl Share {
    fn take(&mut self, desired: Desired, by: &str) -> Result<(), NotTaken> {
        let desired = normalised(desired);
        let quota = desired.quota;
        self.wish.take(desired, by)?;
        self.quota = quota;
        Ok(())
    }

    fn close(&mut self, which: impl Fn(&PortKey) -> bool) {
        let cluster = &self.cluster;
        self.ports.retain(|key, entry| {
            if !which(key) {
                return true;
            }
            if let Some(listener) = entry.listener() {
                close(cluster, listener);
            }
            false
        });
    }
}

fn close(cluster: &Cluster, listener: &Listener) {
    tracing::info!(cluster = %cluster.name, port = %listener.key, "listening no more");
    listener.withdraw();
    cluster.traffic.leave(Arc::clone(&listener.meter));
}

impl Entry {
    fn listener(&self) -> Option<&Arc<Listener>> {
        match self {
            Self::Open(listener) | Self::Partly(listener, _) => Some(listener),
            Self::Not(_) => None,
        }
    }
}

impl Missing {
    fn new(state: PortState) -> Self {
        Self { state, since: Instant::now() }
    }
}

/// Why a socket could not be opened. Who has the port is looked up now and then only.
fn why_not(
    protocol: Protocol,
    at: SocketAddr,
    error: &io::Error,
    before: Option<Missing>,
) -> Missing {
    if let Some(before) = before
        && matches!(before.state, PortState::InUse(_))
        && error.kind() == io::ErrorKind::AddrInUse
        && before.since.elapsed() < HOLDER_KEPT
    {
        return before;
    }
    let kind = error.kind();
    Missing::new(if kind == io::ErrorKind::AddrInUse {
        PortState::InUse(socket::holder(protocol, at))
    } else if kind == io::ErrorKind::AddrNotAvailable {
        PortState::Failed(format!("this machine does not have the address {}", at.ip()))
    } else if kind == io::ErrorKind::PermissionDenied {
        PortState::Failed(format!(
            "{at}: {error}; give the gateway CAP_NET_BIND_SERVICE, or a kernel with \
             net.ipv4.ip_unprivileged_port_start of at most {}",
            at.port()
        ))
    } else {
        PortState::Failed(format!("{at}: {error}"))
    })
}
