//! Wires source, planning, links, pages, leader election and reporter together.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::edge_gateway::EdgeGatewaySettings;
use cluster::backoff::Limits;
use cluster::leader::{self, Leadership};
use cluster::report::{PublishReporter, Seen};
use cluster::source::Source;
use cluster::{kubernetes, manifests};
use planner::publish::{PublishView, Support};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tunnel::trust::NAMESPACE;

use crate::authority::{self, AuthoritySource};
use crate::board::Board;
use crate::flow::Flows;
use crate::http::{self, Pages};
use crate::link::{self, Epochs, Shared};
use crate::metrics::Metrics;
use crate::publication::{self, Published};
use crate::sightings::{self, Others};
use crate::statuses;

/// The lease for which agents compete; the shipped Role names it.
const LEASE: &str = "portcullis-agents";

/// How long a graceful stop waits for the lease to be given back.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How long the last words to gateways may take.
const GOODBYE: Duration = Duration::from_millis(50);

/// What the data plane can do beyond forwarding bytes unread.
const SUPPORT: Support = Support { http: true, terminate: true };

/// How an agent runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where objects come from.
    pub source: SourceSettings,
    /// The agent's name; one program at a time has it.
    pub name: String,
    /// The node that it runs on, if it runs on one.
    pub node: Option<String>,
    /// The cluster's name; must be the one of the authority. `None` takes whatever that says.
    pub cluster: Option<String>,
    /// Where the cluster's authority is.
    pub authority: AuthoritySource,
    /// Where `/healthz`, `/readyz`, `/metrics` and `/status` are served.
    pub listen: Option<SocketAddr>,
    /// How long open flows may go on after the program was asked to stop.
    pub drain: Duration,
    /// Whether agents elect one that writes statuses.
    pub leader_election: bool,
    /// Whether Services may lead to programs on this machine (`portcullis.dev/target: host`).
    pub host_targets: bool,
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

/// Why an agent cannot start. Once it runs it does not fail: it tries again.
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

/// Runs until `shutdown` completes, then drains.
///
/// # Errors
///
/// Fails only when it cannot start.
pub async fn run(
    settings: Settings,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), RunError> {
    let metrics = Arc::new(Metrics::new());
    let board = Arc::new(Board::new());
    let (publish, published) = watch::channel(Arc::new(Published::default()));
    if let Some(address) = settings.listen {
        let failed = |source| RunError::Listen { address, source };
        let listener = bind(address).await.map_err(failed)?;
        let pages = Pages {
            agent: settings.name.clone(),
            node: settings.node.clone(),
            published: published.clone(),
            board: Arc::clone(&board),
            metrics: Arc::clone(&metrics),
        };
        tokio::spawn(http::serve(listener, pages));
    }
    let Opened { source, reporter, leadership, client } = open(&settings);
    let mut tasks = JoinSet::new();

    let (hold, trust) = watch::channel(Err("the authority was not read yet".to_owned()));
    let (cluster, name) = (settings.cluster.clone(), settings.name.clone());
    tasks.spawn(authority::keep(settings.authority.clone(), cluster, name, hold));
    let mut view = PublishView::new(SUPPORT);
    if !settings.host_targets {
        view.refuse_own_host();
    }
    tasks.spawn(publication::run(source, view, publish, Arc::clone(&metrics)));

    let flows = Flows::new(published.clone(), settings.node.clone(), Arc::clone(&metrics));
    let flows = Arc::new(flows);
    let (drain, draining) = watch::channel(false);
    let shared = Arc::new(Shared {
        agent: settings.name.clone(),
        node: settings.node.clone(),
        cluster: settings.cluster.clone(),
        trust,
        published: published.clone(),
        flows: Arc::clone(&flows),
        board: Arc::clone(&board),
        metrics: Arc::clone(&metrics),
        epochs: Epochs::default(),
        client: client.clone(),
        draining,
    });
    tasks.spawn(keep_links(published.clone(), shared));
    let (end, ending) = watch::channel(false);
    let leading = leadership.follow();
    let several = client.filter(|_| settings.leader_election);
    let others = Others::new(several.clone(), &settings.name);
    let seen = several.map(|client| {
        let (agent, board) = (settings.name.clone(), Arc::clone(&board));
        tokio::spawn(sightings::tell(client, agent, board, ending.clone()))
    });
    let teller = statuses::tell(published, board, leading, reporter, metrics, others, ending);
    let teller = tokio::spawn(teller);

    shutdown.await;
    drain.send_replace(true);
    let left = flows.drain(settings.drain).await;
    if left > 0 {
        tracing::warn!(flows = left, "still open after {:?}", settings.drain);
    }
    end.send_replace(true);
    // What statuses say of this agent's links is the next leader's to say.
    let _told_or_not = tokio::time::timeout(LAST_WORDS, teller).await;
    if let Some(seen) = seen {
        let _gone_or_not = tokio::time::timeout(LAST_WORDS, seen).await;
    }
    flows.stop().await;
    tasks.shutdown().await;
    // Sessions that end here say so to their gateways in the background.
    tokio::time::sleep(GOODBYE).await;
    leadership.release(LAST_WORDS).await;
    Ok(())
}

/// One task for each gateway that is declared.
async fn keep_links(mut published: watch::Receiver<Arc<Published>>, shared: Arc<Shared>) {
    let mut links = BTreeMap::<String, Link>::new();
    loop {
        let now = Arc::clone(&published.borrow_and_update());
        if now.complete {
            links.retain(|name, _| {
                let stays = now.gateways.contains_key(name);
                if !stays {
                    shared.board.forget(name);
                }
                stays
            });
            for (name, settings) in &now.gateways {
                if let Some(link) = links.get(name) {
                    link.settings.send_if_modified(|it| {
                        let differs = it != settings;
                        *it = Arc::clone(settings);
                        differs
                    });
                } else {
                    let (sender, receiver) = watch::channel(Arc::clone(settings));
                    let task = keep_link(name.clone(), receiver, Arc::clone(&shared));
                    let task = tokio::spawn(task);
                    links.insert(name.clone(), Link { settings: sender, task });
                }
            }
        }
        if published.changed().await.is_err() {
            return;
        }
    }
}

/// Keeps one link, whatever becomes of a try: an error in handling what a peer says costs that
/// session, not the link.
async fn keep_link(
    name: String,
    settings: watch::Receiver<Arc<EdgeGatewaySettings>>,
    shared: Arc<Shared>,
) {
    loop {
        let mut attempt = JoinSet::new();
        attempt.spawn(link::keep(name.clone(), settings.clone(), Arc::clone(&shared)));
        match attempt.join_next().await {
            Some(Err(error)) if error.is_panic() => {
                shared.board.lost(&name, "a defect of this program ended the session");
                tokio::time::sleep(AFTER_DEFECT).await;
            }
            Some(_) | None => return,
        }
    }
}

/// How long a link rests that a defect ended.
const AFTER_DEFECT: Duration = Duration::from_secs(1);

/// A task that keeps a link; ends when dropped.
struct Link {
    settings: watch::Sender<Arc<EdgeGatewaySettings>>,
    task: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
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
    reporter: PublishReporter,
    leadership: Leadership,
    client: Option<kube::Client>,
}

fn open(settings: &Settings) -> Opened {
    match &settings.source {
        SourceSettings::Manifests(path) => Opened {
            source: manifests::watch_publish(path, &manifests::Settings::default()),
            reporter: PublishReporter::nowhere(),
            leadership: Leadership::alone(),
            client: None,
        },
        SourceSettings::Kubernetes(client) => {
            let seen = Arc::new(Seen::default());
            let identity = leader::unique_identity(&settings.name);
            let leadership = match settings.leader_election {
                true => {
                    let timing = leader::Settings::default();
                    leader::run(client, NAMESPACE, LEASE, &identity, timing)
                }
                false => Leadership::alone(),
            };
            let kinds = PublishView::wanted(SUPPORT);
            let watching = kubernetes::Settings::default();
            Opened {
                source: kubernetes::watch_publish(client, &watching, &seen, &kinds),
                reporter: PublishReporter::kubernetes(client, &seen, &identity, Limits::default()),
                leadership,
                client: Some(client.clone()),
            }
        }
    }
}
