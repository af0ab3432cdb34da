//! etcd, kube-apiserver and kube-controller-manager, with TLS and RBAC.

mod accounts;
mod place;
mod programs;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DynamicObject;
use kube::{Api, Client};

pub(super) use self::place::Place;
use self::place::Ports;
use self::programs::{Files, start_api_server, start_etcd};
use super::account::Access;
use super::certificates::Authority;
use super::daemon::Daemon;
use super::deadline::until_ok;
use super::manifest;
use super::programs::Programs;
use super::relay::Relay;
use super::workspace::Workspace;
use crate::Missing;

/// Long, because a machine may be building beside; the start itself takes four seconds.
const READY_LIMIT: Duration = Duration::from_secs(90);
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// A chosen port can be taken by somebody else before it is used.
const START_ATTEMPTS: usize = 5;

/// What a control plane consists of.
#[derive(Clone, Debug, Default)]
pub struct ControlPlaneOptions {
    /// Further arguments of kube-apiserver, each with its leading dashes.
    pub api_server_arguments: Vec<String>,
    /// Start kube-scheduler too. Without nodes it has nothing to do.
    pub scheduler: bool,
}

/// A running control plane. It ends when it is dropped, or with this process, whatever ends it.
///
/// Every function that changes something takes `&self`: tests share one.
#[derive(Debug)]
pub struct ControlPlane {
    // In the order in which they must end: programs, the way to them, their files.
    controller_manager: Mutex<Option<Daemon>>,
    scheduler: Mutex<Option<Daemon>>,
    api_server: Mutex<Option<Daemon>>,
    etcd: Daemon,
    relay: Option<Relay>,
    place: Place,
    ports: Ports,
    options: ControlPlaneOptions,
    files: Files,
    authority: Authority,
    admin: Access,
    workspace: Workspace,
}

impl ControlPlane {
    /// The control plane that all tests of this process share, started by the first that asks.
    ///
    /// Tests keep apart by working in a [fresh namespace](Self::namespace) each.
    ///
    /// # Errors
    ///
    /// As [`Self::start`]; every later call fails in the same way.
    pub fn shared() -> anyhow::Result<&'static Self> {
        static SHARED: OnceLock<Result<ControlPlane, String>> = OnceLock::new();
        let started = SHARED.get_or_init(|| {
            Self::start(ControlPlaneOptions::default()).map_err(|it| format!("{it:#}"))
        });
        started.as_ref().map_err(|it| anyhow::anyhow!("{it}"))
    }

    /// Whether the programs are there; for [`require`](crate::require).
    ///
    /// # Errors
    ///
    /// Says what to run.
    pub fn available() -> Result<(), Missing> {
        Programs::find().map(|_| ())
    }

    /// Starts a control plane of one's own, and returns when it is ready: the API server says so, and the
    /// controller-manager has begun to work.
    ///
    /// Blocks; call it from anywhere, inside or outside of an async runtime.
    ///
    /// # Errors
    ///
    /// [`Missing`](crate::Missing) when the programs were not built, otherwise what kept a program from starting, with
    /// the end of its log.
    pub fn start(options: ControlPlaneOptions) -> anyhow::Result<Self> {
        let directory = std::env::temp_dir().join(Workspace::fresh_name());
        let workspace = Workspace::new(directory, &[])?;
        let control_plane = Self::start_in(Place::Loopback, workspace, options)?;
        control_plane.wait_for_controllers()?;
        Ok(control_plane)
    }

    /// Starts everything, and returns when the API server is ready; the controllers may not be.
    pub(super) fn start_in(
        place: Place,
        workspace: Workspace,
        options: ControlPlaneOptions,
    ) -> anyhow::Result<Self> {
        let authority = Authority::new()?;
        let files = Files::write(&workspace, &authority, &place)?;
        let mut attempt = 1;
        let (etcd, api_server, ports) = loop {
            let ports = Ports::choose(&place)?;
            let etcd = start_etcd(&place, &workspace, ports)?;
            let api_server = start_api_server(&place, &workspace, &files, ports, &options)?;
            match reach(etcd, api_server) {
                Reached::Ready(etcd, api_server) => break (etcd, api_server, ports),
                Reached::PortTaken if attempt < START_ATTEMPTS => attempt += 1,
                Reached::PortTaken => {
                    bail!("every port that was chosen was taken by somebody else")
                }
                Reached::Failed(error) => return Err(error),
            }
        };
        let relay = match &place {
            Place::Loopback => None,
            Place::Inside { holder, address, .. } => Some(Relay::into_namespace(
                holder,
                SocketAddr::new(IpAddr::V4(*address), ports.api_server),
            )?),
        };
        let admin = Access::new(workspace.path().join("admin.kubeconfig"));
        let mut control_plane = Self {
            controller_manager: Mutex::new(None),
            scheduler: Mutex::new(None),
            api_server: Mutex::new(Some(api_server)),
            etcd,
            relay,
            place,
            ports,
            options,
            files,
            authority,
            admin,
            workspace,
        };
        control_plane.admin =
            control_plane.certified("admin", "kubernetes-admin", &["system:masters"])?;
        // The controllers look for a ready API server once a second: one that is there at once saves most of that.
        control_plane.wait_for_api_server()?;
        control_plane.start_controllers()?;
        Ok(control_plane)
    }

    /// Whoever may do everything.
    #[must_use]
    pub fn admin(&self) -> &Access {
        &self.admin
    }

    /// A new client that may do everything.
    ///
    /// # Errors
    ///
    /// As [`Access::client`].
    pub async fn client(&self) -> anyhow::Result<Client> {
        self.admin.client().await
    }

    /// A `kubectl` that may do everything; add arguments to it.
    ///
    /// # Errors
    ///
    /// [`Missing`](crate::Missing) when the programs were not built.
    pub fn kubectl(&self) -> anyhow::Result<Command> {
        let mut command = Command::new(Programs::find()?.kubernetes("kubectl"));
        command.env("KUBECONFIG", self.admin.kubeconfig());
        // What it remembers of this cluster goes with the cluster.
        command.env("KUBECACHEDIR", self.workspace.path().join("kubectl-cache"));
        Ok(command)
    }

    /// Applies a manifest of any number of objects, as `kubectl apply --server-side --force-conflicts` does.
    ///
    /// # Errors
    ///
    /// Names the first object that was refused; those before it stay.
    pub async fn apply_manifest(&self, text: &str) -> anyhow::Result<Vec<DynamicObject>> {
        manifest::apply(&self.client().await?, text).await
    }

    /// Makes a namespace of which nobody else knows the name, ready for pods.
    ///
    /// # Errors
    ///
    /// Fails when the API server or the controller-manager is down.
    pub async fn namespace(&self) -> anyhow::Result<String> {
        let client = self.client().await?;
        let namespace = Namespace {
            metadata: ObjectMeta { generate_name: Some("test-".into()), ..ObjectMeta::default() },
            ..Namespace::default()
        };
        let made =
            Api::all(client.clone()).create(&kube::api::PostParams::default(), &namespace).await;
        let name = made
            .context("cannot make a namespace")?
            .metadata
            .name
            .context("a namespace without a name")?;
        wait_for_account(&client, &name).await?;
        Ok(name)
    }

    /// Stops the API server, as in an outage: connections end, new ones are refused.
    ///
    /// # Errors
    ///
    /// Fails when it is not running.
    pub fn stop_api_server(&self) -> anyhow::Result<()> {
        let mut running =
            locked(&self.api_server).take().context("the API server is not running")?;
        running.stop(STOP_LIMIT);
        Ok(())
    }

    /// Starts the API server again, on the same port and the same etcd, and returns when it is ready.
    ///
    /// # Errors
    ///
    /// Fails when it is running already, or does not get ready.
    pub fn start_api_server(&self) -> anyhow::Result<()> {
        let mut running = locked(&self.api_server);
        anyhow::ensure!(running.is_none(), "the API server is running already");
        *running = Some(start_api_server(
            &self.place,
            &self.workspace,
            &self.files,
            self.ports,
            &self.options,
        )?);
        drop(running);
        self.wait_for_api_server()
    }

    /// Where clients of this process reach the API server.
    #[must_use]
    pub fn url(&self) -> String {
        match &self.relay {
            Some(relay) => format!("https://{}", relay.address()),
            None => format!("https://127.0.0.1:{}", self.ports.api_server),
        }
    }

    /// The processes of this control plane, for tests of their end.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        let slots = [&self.api_server, &self.controller_manager, &self.scheduler];
        let running = slots.iter().filter_map(|it| locked(it).as_ref().map(Daemon::pid));
        running.chain([self.etcd.pid()]).collect()
    }

    /// The directory that holds everything of this control plane, logs included.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.workspace.path()
    }

    /// Where programs beside the API server reach it.
    pub(super) fn url_inside(&self) -> String {
        match &self.place {
            Place::Loopback => format!("https://127.0.0.1:{}", self.ports.api_server),
            Place::Inside { address, .. } => format!("https://{address}:{}", self.ports.api_server),
        }
    }

    pub(super) fn workspace(&self) -> &Workspace {
        &self.workspace
    }

    pub(super) fn authority_file(&self) -> &Path {
        &self.files.authority
    }

    fn wait_for_api_server(&self) -> anyhow::Result<()> {
        blocking(async || {
            let client = self.client().await?;
            until_ok("the API server to be ready", READY_LIMIT, async || {
                locked(&self.api_server).as_mut().map_or(Ok(()), Daemon::ensure_running)?;
                Ok(says_ready(&client).await.then_some(()))
            })
            .await
        })
    }

    /// Waits for the first visible work of the controller-manager.
    pub(super) fn wait_for_controllers(&self) -> anyhow::Result<()> {
        blocking(async || {
            let accounts: Api<ServiceAccount> = Api::namespaced(self.client().await?, "default");
            until_ok("the controller-manager to work", READY_LIMIT, async || {
                locked(&self.controller_manager).as_mut().map_or(Ok(()), Daemon::ensure_running)?;
                Ok(accounts.get_opt("default").await?.map(|_| ()))
            })
            .await
        })
    }
}

/// What came of one attempt to start.
enum Reached {
    Ready(Daemon, Daemon),
    PortTaken,
    Failed(anyhow::Error),
}

/// Waits until the API server answers at all, or one of the two programs ends.
fn reach(mut etcd: Daemon, mut api_server: Daemon) -> Reached {
    let listening = crate::wait::until_ok("the API server to listen", READY_LIMIT, || {
        etcd.ensure_running()?;
        api_server.ensure_running()?;
        Ok(api_server.log_contains("Serving securely on").then_some(()))
    });
    match listening {
        Ok(()) => Reached::Ready(etcd, api_server),
        Err(_)
            if [&etcd, &api_server].iter().any(|it| it.log_contains("address already in use")) =>
        {
            Reached::PortTaken
        }
        Err(error) => Reached::Failed(error),
    }
}

async fn says_ready(client: &Client) -> bool {
    let Ok(request) = http::Request::get("/readyz").body(Vec::new()) else { return false };
    client.request_text(request).await.is_ok_and(|it| it == "ok")
}

async fn wait_for_account(client: &Client, namespace: &str) -> anyhow::Result<()> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let what = format!("the default service account of {namespace}");
    until_ok(&what, READY_LIMIT, async || Ok(accounts.get_opt("default").await?.map(|_| ()))).await
}

fn locked<T>(slot: &Mutex<T>) -> MutexGuard<'_, T> {
    // A test that panicked while it held the lock left a whole value.
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs async code to its end, inside or outside of another runtime.
pub(super) fn blocking<T: Send>(
    work: impl AsyncFnOnce() -> anyhow::Result<T> + Send,
) -> anyhow::Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.context("cannot make an async runtime")?.block_on(work())
        });
        thread.join().unwrap_or_else(|_| bail!("a thread of the test bed panicked"))
    })
}
