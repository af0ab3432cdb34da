//! etcd, kube-apiserver and kube-controller-manager, with TLS and RBAC.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DynamicObject;
use kube::{Api, Client};

use super::account::{Access, Credential, kubeconfig};
use super::certificates::{Authority, Pair, bare_pair};
use super::daemon::{Daemon, bound_command};
use super::deadline::until_ok;
use super::manifest;
use super::namespace::Holder;
use super::programs::Programs;
use super::relay::Relay;
use super::workspace::Workspace;
use crate::Missing;

/// The first address of the Service range: how pods call the API server.
const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 202, 0, 1);
const SERVICE_RANGES: &str = "10.202.0.0/16,fd00:202::/108";
/// Pods get their ranges from here: `10.201.N.0/24` and `fd00:201:N::/64` for node N.
const POD_RANGES: &str = "10.201.0.0/16,fd00:201::/48";

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

/// Where a control plane listens.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// The loopback interface of this process's network namespace.
    Loopback,
    /// An address inside held namespaces, which this process reaches through a relay.
    Inside { holder: Arc<Holder>, address: Ipv4Addr, address6: Ipv6Addr },
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

#[derive(Clone, Copy, Debug)]
struct Ports {
    etcd: u16,
    etcd_peer: u16,
    api_server: u16,
}

/// What the programs read.
#[derive(Debug)]
struct Files {
    authority: PathBuf,
    authority_key: PathBuf,
    server: PathBuf,
    server_key: PathBuf,
    kubelet_client: PathBuf,
    kubelet_client_key: PathBuf,
    accounts: PathBuf,
    accounts_key: PathBuf,
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
        Self::start_in(Place::Loopback, workspace, options)
    }

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
        control_plane.start_controllers()?;
        control_plane.wait_ready()?;
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

    /// A user of this name with exactly these ClusterRoles, known by a client certificate.
    ///
    /// # Errors
    ///
    /// Fails when the API server refuses a binding.
    pub async fn user(&self, name: &str, cluster_roles: &[&str]) -> anyhow::Result<Access> {
        let subject = Subject {
            api_group: Some("rbac.authorization.k8s.io".into()),
            kind: "User".into(),
            name: name.into(),
            ..Subject::default()
        };
        self.bind(&subject, cluster_roles).await?;
        self.certified(&format!("user-{name}"), name, &[])
    }

    /// A service account with exactly these ClusterRoles, known by a token: what a pod of it would have.
    ///
    /// # Errors
    ///
    /// Fails when the API server refuses the account, a binding or the token.
    pub async fn service_account(
        &self,
        namespace: &str,
        name: &str,
        cluster_roles: &[&str],
    ) -> anyhow::Result<Access> {
        let subject = Subject {
            kind: "ServiceAccount".into(),
            name: name.into(),
            namespace: Some(namespace.into()),
            ..Subject::default()
        };
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client().await?, namespace);
        let account = ServiceAccount {
            metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() },
            ..ServiceAccount::default()
        };
        let post = kube::api::PostParams::default();
        accounts
            .create(&post, &account)
            .await
            .with_context(|| format!("cannot make service account {namespace}/{name}"))?;
        self.bind(&subject, cluster_roles).await?;
        let request =
            TokenRequest { spec: Some(TokenRequestSpec::default()), ..TokenRequest::default() };
        let granted = accounts
            .create_token_request(name, &post, &request)
            .await
            .context("cannot get a token")?;
        let token =
            granted.status.and_then(|it| it.token).context("a token request without a token")?;
        let text = kubeconfig(&self.url(), &self.authority.pair.public, &Credential::Token(&token));
        Ok(Access::new(
            self.workspace.write(&format!("account-{namespace}-{name}.kubeconfig"), text)?,
        ))
    }

    async fn bind(&self, subject: &Subject, cluster_roles: &[&str]) -> anyhow::Result<()> {
        let bindings: Api<ClusterRoleBinding> = Api::all(self.client().await?);
        for role in cluster_roles {
            let binding = ClusterRoleBinding {
                metadata: ObjectMeta {
                    generate_name: Some("testkit-".into()),
                    ..ObjectMeta::default()
                },
                role_ref: RoleRef {
                    api_group: Some("rbac.authorization.k8s.io".into()),
                    kind: "ClusterRole".into(),
                    name: (*role).into(),
                },
                subjects: Some(vec![subject.clone()]),
            };
            let bound = bindings.create(&kube::api::PostParams::default(), &binding).await;
            bound.with_context(|| format!("cannot bind ClusterRole {role} to {}", subject.name))?;
        }
        Ok(())
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
        self.wait_ready()
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

    /// Writes a kubeconfig with a client certificate, for programs of this process's network namespace.
    fn certified(&self, file: &str, user: &str, groups: &[&str]) -> anyhow::Result<Access> {
        self.certified_at(&self.url(), file, user, groups)
    }

    /// The same for programs inside the namespaces of a cluster.
    pub(super) fn certified_inside(
        &self,
        file: &str,
        user: &str,
        groups: &[&str],
    ) -> anyhow::Result<Access> {
        self.certified_at(&self.url_inside(), file, user, groups)
    }

    fn certified_at(
        &self,
        url: &str,
        file: &str,
        user: &str,
        groups: &[&str],
    ) -> anyhow::Result<Access> {
        let pair = self.authority.client(user, groups)?;
        let text = kubeconfig(url, &self.authority.pair.public, &Credential::Certificate(&pair));
        Ok(Access::new(self.workspace.write(&format!("{file}.kubeconfig"), text)?))
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

    fn start_controllers(&self) -> anyhow::Result<()> {
        let programs = Programs::find()?;
        let access =
            self.certified_inside("controller-manager", "system:kube-controller-manager", &[])?;
        let mut command = self.place.bound_command(programs.kubernetes("kube-controller-manager"));
        command
            .arg(option("kubeconfig", access.kubeconfig().display()))
            .arg(option("service-account-private-key-file", self.files.accounts_key.display()))
            .arg(option("root-ca-file", self.files.authority.display()))
            .arg(option("cluster-signing-cert-file", self.files.authority.display()))
            .arg(option("cluster-signing-key-file", self.files.authority_key.display()))
            .args(["--use-service-account-credentials", "--leader-elect=false", "--secure-port=0"])
            .args(["--allocate-node-cidrs", "--node-cidr-mask-size-ipv6=64"])
            .arg(option("cluster-cidr", POD_RANGES))
            .arg(option("service-cluster-ip-range", SERVICE_RANGES));
        let started = Daemon::start(
            "kube-controller-manager",
            command,
            self.workspace.path().join("controller-manager.log"),
        )?;
        *locked(&self.controller_manager) = Some(started);

        if self.options.scheduler {
            let access = self.certified_inside("scheduler", "system:kube-scheduler", &[])?;
            let mut command = self.place.bound_command(programs.kubernetes("kube-scheduler"));
            command.arg(option("kubeconfig", access.kubeconfig().display()));
            command.args(["--leader-elect=false", "--secure-port=0"]);
            let started = Daemon::start(
                "kube-scheduler",
                command,
                self.workspace.path().join("scheduler.log"),
            )?;
            *locked(&self.scheduler) = Some(started);
        }
        Ok(())
    }

    fn wait_ready(&self) -> anyhow::Result<()> {
        blocking(async || {
            let client = self.client().await?;
            until_ok("the API server to be ready", READY_LIMIT, async || {
                if let Some(running) = locked(&self.api_server).as_mut() {
                    running.ensure_running()?;
                }
                Ok(says_ready(&client).await.then_some(()))
            })
            .await?;
            until_ok("the controller-manager to work", READY_LIMIT, async || {
                if let Some(running) = locked(&self.controller_manager).as_mut() {
                    running.ensure_running()?;
                }
                let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
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

impl Ports {
    fn choose(place: &Place) -> anyhow::Result<Self> {
        match place {
            Place::Loopback => {
                // Held until all three are chosen, so that they differ.
                let held = [free_port()?, free_port()?, free_port()?];
                let [etcd, etcd_peer, api_server] = held.each_ref().map(|it| it.1);
                Ok(Self { etcd, etcd_peer, api_server })
            }
            // Nobody else is in there.
            Place::Inside { .. } => Ok(Self { etcd: 2379, etcd_peer: 2380, api_server: 6443 }),
        }
    }
}

/// A port that is free now, below the range from which the kernel takes the ports of outgoing
/// connections: while an API server is stopped, none of those may take its port.
fn free_port() -> anyhow::Result<(TcpListener, u16)> {
    for _ in 0..100 {
        let port = rand::random_range(10_240..30_000);
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            return Ok((listener, port));
        }
    }
    bail!("found no free port on the loopback interface")
}

impl Place {
    fn bound_command(&self, program: PathBuf) -> Command {
        match self {
            Self::Loopback => bound_command(program),
            Self::Inside { holder, .. } => holder.bound_command(program),
        }
    }

    fn address(&self) -> Ipv4Addr {
        match self {
            Self::Loopback => Ipv4Addr::LOCALHOST,
            Self::Inside { address, .. } => *address,
        }
    }
}

impl Files {
    fn write(workspace: &Workspace, authority: &Authority, place: &Place) -> anyhow::Result<Self> {
        let mut addresses: Vec<IpAddr> = vec![Ipv4Addr::LOCALHOST.into(), API_SERVICE.into()];
        if let Place::Inside { address, address6, .. } = place {
            addresses.extend([IpAddr::V4(*address), IpAddr::V6(*address6)]);
        }
        let names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"];
        let server = authority.server(&names, &addresses)?;
        let kubelet_client =
            authority.client("kube-apiserver-kubelet-client", &["system:masters"])?;
        let write = |name: &str, pair: &Pair| -> anyhow::Result<(PathBuf, PathBuf)> {
            Ok((
                workspace.write(&format!("{name}.pem"), &pair.public)?,
                workspace.write(&format!("{name}-key.pem"), &pair.key)?,
            ))
        };
        let (authority, authority_key) = write("authority", &authority.pair)?;
        let (server, server_key) = write("server", &server)?;
        let (kubelet_client, kubelet_client_key) = write("kubelet-client", &kubelet_client)?;
        let (accounts, accounts_key) = write("accounts", &bare_pair()?)?;
        Ok(Self {
            authority,
            authority_key,
            server,
            server_key,
            kubelet_client,
            kubelet_client_key,
            accounts,
            accounts_key,
        })
    }
}

fn start_etcd(place: &Place, workspace: &Workspace, ports: Ports) -> anyhow::Result<Daemon> {
    let data = workspace.path().join("etcd");
    // What an attempt on other ports left.
    if data.exists() {
        std::fs::remove_dir_all(&data).context("cannot empty etcd's directory")?;
    }
    let client = format!("http://127.0.0.1:{}", ports.etcd);
    let peer = format!("http://127.0.0.1:{}", ports.etcd_peer);
    let mut command = place.bound_command(Programs::find()?.kubernetes("etcd"));
    command
        .arg(option("data-dir", data.display()))
        // The data need not survive the machine.
        .args(["--unsafe-no-fsync", "--log-level=warn", "--name=testbed"])
        .arg(option("listen-client-urls", &client))
        .arg(option("advertise-client-urls", &client))
        .arg(option("listen-peer-urls", &peer))
        .arg(option("initial-advertise-peer-urls", &peer))
        .arg(option("initial-cluster", format_args!("testbed={peer}")));
    Daemon::start("etcd", command, workspace.path().join("etcd.log"))
}

fn start_api_server(
    place: &Place,
    workspace: &Workspace,
    files: &Files,
    ports: Ports,
    options: &ControlPlaneOptions,
) -> anyhow::Result<Daemon> {
    let advertised = match place {
        // An endpoint must not be a loopback address. Without nodes nobody follows it.
        Place::Loopback => Ipv4Addr::new(192, 0, 2, 1),
        Place::Inside { address, .. } => *address,
    };
    // Inside, pods and nodes reach it by one address and the controllers by the same.
    let mut command = place.bound_command(Programs::find()?.kubernetes("kube-apiserver"));
    command
        .arg(option("etcd-servers", format_args!("http://127.0.0.1:{}", ports.etcd)))
        .arg(option("bind-address", place.address()))
        .arg(option("secure-port", ports.api_server))
        .arg(option("advertise-address", advertised))
        .arg(option("cert-dir", workspace.path().display()))
        .arg(option("tls-cert-file", files.server.display()))
        .arg(option("tls-private-key-file", files.server_key.display()))
        .arg(option("client-ca-file", files.authority.display()))
        .arg(option("kubelet-client-certificate", files.kubelet_client.display()))
        .arg(option("kubelet-client-key", files.kubelet_client_key.display()))
        .arg(option("service-account-key-file", files.accounts.display()))
        .arg(option("service-account-signing-key-file", files.accounts_key.display()))
        .arg(option("service-cluster-ip-range", SERVICE_RANGES))
        .args([
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged",
        ])
        .args([
            "--service-account-issuer=https://kubernetes.default.svc",
            "--kubelet-preferred-address-types=InternalIP",
        ])
        // An outage test must not wait for clients that keep their watches open.
        .args(["--shutdown-delay-duration=0s", "--shutdown-send-retry-after=false"])
        .args(&options.api_server_arguments);
    Daemon::start("kube-apiserver", command, workspace.path().join("apiserver.log"))
}

/// `--NAME=VALUE`.
fn option(name: &str, value: impl std::fmt::Display) -> String {
    format!("--{name}={value}")
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
