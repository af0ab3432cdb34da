//! What the tests of this program share: the shipped role, a follower of changes, a wire to cut.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use api::object::{ObjectKind, ObjectRef};
use cluster::backoff::Limits;
use cluster::kubernetes::Settings;
use cluster::source::{Health, Source};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use planner::cluster_view::{Change, Object};
use testkit::kubernetes::{Access, ControlPlane};
use testkit::require;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OnceCell, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// How long anything may take that should happen at once. Generous: other builds run beside.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

pub(crate) const ROLE: &str = include_str!("../../../../deploy/rbac/controller.yaml");
const HOSTS: &str = include_str!("../../../../deploy/crds/hosts.portcullis.dev.yaml");

/// The account of the shipped role.
const ACCOUNT: &str = "system:serviceaccount:portcullis:portcullis";

/// A control plane on which Portcullis is installed, as far as the API is concerned.
pub(crate) struct Site {
    pub(crate) plane: &'static ControlPlane,
    /// Whoever may do everything.
    pub(crate) admin: Client,
    /// Who has the shipped role, and nothing else.
    pub(crate) controller: Client,
    /// A namespace of one's own.
    pub(crate) namespace: String,
}

impl Site {
    /// The site that all tests share; `None` where it cannot be.
    pub(crate) async fn shared() -> Result<Option<Self>> {
        static INSTALLED: OnceCell<Access> = OnceCell::const_new();
        let Some(()) = require(ControlPlane::available()) else { return Ok(None) };
        let plane = ControlPlane::shared()?;
        let access = INSTALLED.get_or_try_init(async || {
            plane.apply_manifest(HOSTS).await?;
            install_role(plane).await
        });
        let controller = access.await?.client().await?;
        let (admin, namespace) = (plane.client().await?, plane.namespace().await?);
        Ok(Some(Self { plane, admin, controller, namespace }))
    }

    pub(crate) fn object(&self, kind: ObjectKind, name: &str) -> ObjectRef {
        ObjectRef::namespaced(kind, &self.namespace, name)
    }
}

/// Installs the shipped role, and returns what has it.
pub(crate) async fn install_role(plane: &ControlPlane) -> Result<Access> {
    plane.apply_manifest(ROLE).await?;
    plane.user(ACCOUNT, &[]).await
}

/// Settings that do not make a test wait.
pub(crate) fn quick() -> Settings {
    Settings {
        backoff: quick_limits(),
        watch_timeout: Duration::from_secs(5),
        silence: Duration::from_secs(1),
        request_timeout: Duration::from_secs(5),
        page_size: 100,
    }
}

pub(crate) fn quick_limits() -> Limits {
    Limits {
        first: Duration::from_millis(50),
        cap: Duration::from_secs(1),
        settled: Duration::from_secs(10),
    }
}

/// Follows a source, and remembers everything.
pub(crate) struct Follower {
    source: Source,
    pub(crate) objects: BTreeMap<ObjectRef, Object>,
    /// How many complete sets came, by kind.
    pub(crate) resets: BTreeMap<ObjectKind, u32>,
    pub(crate) applied: u32,
}

impl Follower {
    pub(crate) fn new(source: Source) -> Self {
        Self { source, objects: BTreeMap::new(), resets: BTreeMap::new(), applied: 0 }
    }

    /// Follows until `is_so`.
    pub(crate) async fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) -> Result<()> {
        let begin = Instant::now();
        while !is_so(self) {
            let rest = LIMIT.saturating_sub(begin.elapsed());
            let waited = timeout(rest, async {
                tokio::select! {
                    change = self.source.changes.recv() => Some(change.context("the source ended")),
                    changed = self.source.health.changed() => changed.err().map(|it| Err(it.into())),
                }
            })
            .await;
            let Ok(waited) = waited else {
                anyhow::bail!("not within {LIMIT:?}: {what}: {:#?}", self.health());
            };
            if let Some(change) = waited {
                self.take(change?);
            }
        }
        Ok(())
    }

    /// Follows for a while, for what should not happen.
    pub(crate) async fn during(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while let Ok(Some(change)) = tokio::time::timeout_at(end, self.source.changes.recv()).await
        {
            self.take(change);
        }
    }

    /// Looks again and again, for what is not told as a change.
    pub(crate) async fn during_until(&mut self, is_so: impl Fn(&Self) -> bool) -> Result<()> {
        let begin = Instant::now();
        while !is_so(self) {
            anyhow::ensure!(begin.elapsed() < LIMIT, "not within {LIMIT:?}: {:#?}", self.health());
            self.during(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    pub(crate) fn health(&self) -> Health {
        self.source.health.borrow().clone()
    }

    pub(crate) fn has(&self, object: &ObjectRef) -> bool {
        self.objects.contains_key(object)
    }

    pub(crate) fn count(&self, kind: ObjectKind, namespace: &str) -> usize {
        let namespace = Some(namespace);
        let keys = self.objects.keys();
        keys.filter(|it| it.kind == kind && it.namespace.as_deref() == namespace).count()
    }

    fn take(&mut self, change: Change) {
        match change {
            Change::Applied(object) => {
                self.applied += 1;
                self.objects.insert(object.reference(), object);
            }
            Change::Deleted(reference) => {
                self.objects.remove(&reference);
            }
            Change::Reset(kind, objects) => {
                *self.resets.entry(kind).or_default() += 1;
                self.objects.retain(|it, _| it.kind != kind);
                self.objects.extend(objects.into_iter().map(|it| (it.reference(), it)));
            }
        }
    }
}

/// A wire to the API server.
pub(crate) struct Wire {
    address: SocketAddr,
    state: watch::Sender<State>,
    _tasks: JoinSet<()>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Whole,
    /// Connections end, and new ones end at once.
    Cut,
    /// Connections stay and carry nothing.
    Frozen,
}

impl Wire {
    /// Lays a wire to `server`.
    pub(crate) async fn lay(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (state, receiver) = watch::channel(State::Whole);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((connection, _)) = listener.accept().await {
                connections.spawn(carry(connection, server, receiver.clone()));
            }
        });
        Ok(Self { address, state, _tasks: tasks })
    }

    pub(crate) fn cut(&self) {
        self.state.send_replace(State::Cut);
    }

    pub(crate) fn freeze(&self) {
        self.state.send_replace(State::Frozen);
    }

    pub(crate) fn mend(&self) {
        self.state.send_replace(State::Whole);
    }

    /// A client at this end of the wire.
    pub(crate) async fn client(&self, access: &Access) -> Result<Client> {
        let file = Kubeconfig::read_from(access.kubeconfig())?;
        let mut config =
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        config.cluster_url = format!("https://{}/", self.address).parse()?;
        Ok(Client::try_from(config)?)
    }
}

async fn carry(mut near: TcpStream, server: SocketAddr, mut state: watch::Receiver<State>) {
    loop {
        let now = *state.borrow_and_update();
        match now {
            State::Cut => return,
            State::Frozen => {
                // What was carried before the frost is lost with the connection.
                let _ = state.wait_for(|it| *it != State::Frozen).await;
                return;
            }
            State::Whole => {
                let Ok(mut far) = TcpStream::connect(server).await else { return };
                tokio::select! {
                    _ = copy_bidirectional(&mut near, &mut far) => return,
                    _ = state.wait_for(|it| *it != State::Whole) => {}
                }
            }
        }
    }
}

/// Where the API server listens.
pub(crate) fn address(plane: &ControlPlane) -> Result<SocketAddr> {
    let url = plane.url();
    let address = url.strip_prefix("https://").context("not https")?.trim_end_matches('/');
    address.parse().with_context(|| format!("{url} has no address"))
}
