//! Wires source, engine, pages, leader election and reporter together.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::host::Host;
use cluster::backoff::Limits;
use cluster::leader::{self, Leadership};
use cluster::report::{Reporter, Seen};
use cluster::source::Source;
use cluster::{kubernetes, manifests};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::engine::{Engine, Start};
use crate::http::{self, Pages};
use crate::metrics::Metrics;
use crate::reach::Keys;
use crate::status::Snapshot;

/// The lease for which replicas compete; the shipped Role names it.
const LEASE: &str = "portcullis";

/// Where the lease lies.
const LEASE_NAMESPACE: &str = "portcullis";

/// How long a graceful stop waits for the lease to be given back.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How a controller runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where objects come from.
    pub source: SourceSettings,
    /// Hosts declared on the command line, beside Host objects.
    pub hosts: Vec<Host>,
    /// The name of the Host that is this machine; Hosts with the local executor and another name
    /// are left to the controllers on those machines.
    pub local_host: Option<String>,
    /// Where `/healthz`, `/readyz`, `/metrics` and `/status` are served.
    pub listen: Option<SocketAddr>,
    /// How often a host is looked at although nothing happened.
    pub resync: Duration,
    /// What names this replica in Events and in the lease.
    pub identity: String,
    /// Whether replicas elect one that drives hosts over SSH and writes status.
    pub leader_election: bool,
}

/// Where objects come from.
#[derive(Clone)]
pub enum SourceSettings {
    /// The Kubernetes API.
    Kubernetes(kube::Client),
    /// A directory of manifests, watched.
    Manifests(PathBuf),
}

impl std::fmt::Debug for SourceSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Kubernetes(_) => f.write_str("Kubernetes"),
            Self::Manifests(path) => f.debug_tuple("Manifests").field(path).finish(),
        }
    }
}

/// Why a controller cannot start. Once it runs it does not fail: it tries again.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The address for the pages cannot be bound.
    #[error("cannot listen on {address} for /healthz, /readyz, /metrics and /status")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// Runs until `shutdown` completes; rules stay in the kernel.
///
/// # Errors
///
/// Fails only when it cannot start.
pub async fn run(
    settings: Settings,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), RunError> {
    let metrics = Arc::new(Metrics::new());
    let (snapshot, snapshots) = watch::channel(Arc::new(Snapshot::default()));
    if let Some(address) = settings.listen {
        let failed = |source| RunError::Listen { address, source };
        let listener = bind(address).await.map_err(failed)?;
        let pages = Pages { snapshot: snapshots, metrics: Arc::clone(&metrics) };
        tokio::spawn(http::serve(listener, pages));
    }
    let Opened { source, reporter, leadership, keys } = open(&settings);
    let start = Start {
        declared: settings.hosts,
        local_host: settings.local_host,
        keys,
        resync: settings.resync,
        leading: leadership.follow(),
        metrics,
        snapshot,
        reporter,
    };
    Engine::new(start).run(source, shutdown).await;
    leadership.release(LAST_WORDS).await;
    Ok(())
}

/// Binds, with a little patience: what a predecessor that was just killed had begun to start may
/// still hold its socket for a moment.
async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let mut patience = 20;
    loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == ErrorKind::AddrInUse && patience > 0 => {
                patience -= 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            bound => return bound,
        }
    }
}

struct Opened {
    source: Source,
    reporter: Reporter,
    leadership: Leadership,
    keys: Keys,
}

fn open(settings: &Settings) -> Opened {
    match &settings.source {
        SourceSettings::Manifests(path) => Opened {
            source: manifests::watch(path, &manifests::Settings::default()),
            reporter: Reporter::log(),
            leadership: Leadership::alone(),
            keys: Keys::in_files(),
        },
        SourceSettings::Kubernetes(client) => {
            let seen = Arc::new(Seen::default());
            let identity = &settings.identity;
            let leadership = match settings.leader_election {
                true => {
                    let timing = leader::Settings::default();
                    leader::run(client, LEASE_NAMESPACE, LEASE, identity, timing)
                }
                false => Leadership::alone(),
            };
            Opened {
                source: kubernetes::watch(client, &kubernetes::Settings::default(), &seen),
                reporter: Reporter::kubernetes(client, &seen, identity, Limits::default()),
                leadership,
                keys: Keys::in_cluster(client),
            }
        }
    }
}
