//! A running gateway: its parts, and what they know of one another.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::sync::mpsc;
use tunnel::trust::{ClusterTrust, GatewayTrust, Pin, SecretHash, SecretOffer, StateDirectory};
use tunnel_proto::message::{QuotaReport, Report};

use crate::addresses;
use crate::cluster::Cluster;
use crate::config::{ClusterConfig, ClusterName, Config};
use crate::error::GatewayError;
use crate::keeper::Errand;
use crate::listener::House;
use crate::state::State;
use crate::table::Table;

/// What a person should know, by what it is about.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Note {
    /// Who keeps the limits of sources.
    KernelLimits,
    /// How large buffers of UDP sockets are.
    UdpBuffer,
    /// How much of one connection may be under way.
    Windows,
    /// How many descriptors there can be.
    Descriptors,
    /// The tunnel port for UDP.
    TunnelUdp,
}

/// What every part of a gateway knows.
#[derive(Debug)]
pub(crate) struct Inner {
    config: RwLock<Arc<Config>>,
    pub(crate) house: Arc<House>,
    clusters: RwLock<BTreeMap<ClusterName, Arc<Cluster>>>,
    table: Mutex<Table>,
    pub(crate) state: State,
    pub(crate) trust: Arc<GatewayTrust>,
    notes: Mutex<BTreeMap<Note, String>>,
    quotas: Mutex<BTreeMap<ClusterName, QuotaReport>>,
    errands: mpsc::UnboundedSender<Errand>,
    draining: AtomicBool,
    /// What it was told when it began.
    pub(crate) program: String,
}

impl Inner {
    /// Puts the parts together. Nothing is opened yet.
    pub(crate) fn new(
        config: Config,
        program: &str,
    ) -> Result<(Arc<Self>, mpsc::UnboundedReceiver<Errand>), GatewayError> {
        let path = config.state_directory.clone();
        let state = State::open(&path)
            .map_err(|source| GatewayError::StateDirectory { path: path.clone(), source })?;
        let directory = StateDirectory::open(&path).map_err(GatewayError::Trust)?;
        let trust = GatewayTrust::open(directory, trusts(&config)).map_err(GatewayError::Trust)?;
        let house = Arc::new(House::default());
        let mut table = Table::new(Arc::clone(&house), config.addresses.clone());
        let mut clusters = BTreeMap::new();
        for it in &config.clusters {
            let cluster = Cluster::new(it.clone());
            table.add(Arc::clone(&cluster), state.desired(&it.name));
            clusters.insert(it.name.clone(), cluster);
        }
        house.set_hold(config.hold());
        let (errands, received) = mpsc::unbounded_channel();
        let inner = Arc::new(Self {
            config: RwLock::new(Arc::new(config)),
            house,
            clusters: RwLock::new(clusters),
            table: Mutex::new(table),
            state,
            trust,
            notes: Mutex::default(),
            quotas: Mutex::default(),
            errands,
            draining: AtomicBool::new(false),
            program: program.to_owned(),
        });
        Ok((inner, received))
    }

    /// Takes another configuration. What of it cannot be taken is left as it was, and logged.
    pub(crate) fn configure(&self, config: Config) {
        let before = self.config();
        if config.listen != before.listen
            || config.state_directory != before.state_directory
            || config.metrics != before.metrics
            || config.name != before.name
        {
            tracing::warn!(
                "name, listen, stateDirectory and metrics count from the next start; all else now"
            );
        }
        if let Err(error) = self.trust.configure(trusts(&config)) {
            tracing::error!(%error, "the configuration is not taken");
            return;
        }
        let wanted: BTreeMap<_, _> =
            config.clusters.iter().map(|it| (it.name.clone(), it)).collect();
        {
            let mut clusters = self.clusters.write().unwrap_or_else(PoisonError::into_inner);
            let gone: Vec<_> =
                clusters.keys().filter(|it| !wanted.contains_key(*it)).cloned().collect();
            for name in gone {
                self.table().remove(&name);
                if let Some(cluster) = clusters.remove(&name) {
                    cluster.dismiss();
                }
                self.set_quota(&name, None);
            }
            for (name, config) in wanted {
                match clusters.get(&name) {
                    Some(cluster) => {
                        cluster.configure(config.clone());
                        if before
                            .clusters
                            .iter()
                            .any(|it| it.name == name && it.ca_pin != config.ca_pin)
                        {
                            tracing::info!(cluster = %name, "its authority's pin has changed");
                        }
                    }
                    None => {
                        let cluster = Cluster::new(config.clone());
                        self.table().add(Arc::clone(&cluster), self.state.desired(&name));
                        clusters.insert(name, cluster);
                    }
                }
            }
        }
        self.table().offer(config.addresses.clone());
        self.house.set_hold(config.hold());
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        tracing::info!("configuration taken");
    }

    /// The configuration in force.
    pub(crate) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is listened on. Not to be held while waiting.
    pub(crate) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A cluster that is served.
    pub(crate) fn cluster(&self, name: &str) -> Option<Arc<Cluster>> {
        let name: ClusterName = name.parse().ok()?;
        let clusters = self.clusters.read().unwrap_or_else(PoisonError::into_inner);
        clusters.get(&name).map(Arc::clone)
    }

    /// Every cluster that is served.
    pub(crate) fn clusters(&self) -> BTreeMap<ClusterName, Arc<Cluster>> {
        self.clusters.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gives the keeper something to do.
    pub(crate) fn errand(&self, errand: Errand) {
        // Without a keeper the gateway is ending.
        let _ending = self.errands.send(errand);
    }

    /// What a person should know about something, from now on.
    pub(crate) fn note(&self, about: Note, text: Option<String>) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        match text {
            Some(text) => notes.insert(about, text),
            None => notes.remove(&about),
        };
    }

    /// What a person should know.
    pub(crate) fn notes(&self) -> Vec<String> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// How the traffic of a cluster stands.
    pub(crate) fn set_quota(&self, name: &ClusterName, report: Option<QuotaReport>) {
        let mut quotas = self.quotas.lock().unwrap_or_else(PoisonError::into_inner);
        match report {
            Some(report) => quotas.insert(name.clone(), report),
            None => quotas.remove(name),
        };
    }

    /// How the traffic of a cluster stands, if it has a quota.
    pub(crate) fn quota(&self, name: &ClusterName) -> Option<QuotaReport> {
        self.quotas.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }

    /// What became of each port, to see whether something changed.
    pub(crate) fn states(&self) -> impl PartialEq + use<> {
        self.table().states()
    }

    /// What a cluster's agents are told.
    pub(crate) fn report(&self, cluster: &Cluster) -> Report {
        let (revision, ports) = self.table().report(&cluster.name);
        Report {
            revision,
            ports,
            sessions: cluster.session_reports(),
            addresses: self.offered(),
            quota: self.quota(&cluster.name),
            notes: self.notes(),
        }
    }

    /// The addresses that ports can be published on.
    pub(crate) fn offered(&self) -> Vec<IpAddr> {
        let config = self.config();
        if config.addresses.is_empty() { addresses::global() } else { config.addresses.clone() }
    }

    /// Whether the gateway is going away.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// The gateway is going away.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}

fn trusts(config: &Config) -> Vec<ClusterTrust> {
    config.clusters.iter().map(|it| trust(&config.name, it)).collect()
}

fn trust(gateway: &str, cluster: &ClusterConfig) -> ClusterTrust {
    let offer = cluster.secret_hash.zip(cluster.expires).map(|(hash, expires)| SecretOffer {
        hash: SecretHash::from_digest(hash.0),
        expires: expires.into(),
        redemptions: cluster.redemptions,
    });
    ClusterTrust {
        cluster: cluster.name.to_string(),
        gateway: gateway.to_owned(),
        pins: vec![Pin::from_digest(cluster.ca_pin.0)],
        offer,
    }
}
