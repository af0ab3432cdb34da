//! The programs of a control plane: their files and their arguments.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use anyhow::Context as _;

use super::place::{Place, Ports};
use super::{ControlPlane, ControlPlaneOptions};
use crate::kubernetes::certificates::{Authority, Pair, bare_pair};
use crate::kubernetes::daemon::Daemon;
use crate::kubernetes::programs::Programs;
use crate::kubernetes::workspace::Workspace;

/// The first address of the Service range: how pods call the API server.
const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 202, 0, 1);
const SERVICE_RANGES: &str = "10.202.0.0/16,fd00:202::/108";
/// Pods get their ranges from here: `10.201.N.0/24` and `fd00:201:N::/64` for node N.
const POD_RANGES: &str = "10.201.0.0/16,fd00:201::/48";

/// What the programs read.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) authority: PathBuf,
    authority_key: PathBuf,
    server: PathBuf,
    server_key: PathBuf,
    kubelet_client: PathBuf,
    kubelet_client_key: PathBuf,
    accounts: PathBuf,
    accounts_key: PathBuf,
}

impl Files {
    pub(super) fn write(
        workspace: &Workspace,
        authority: &Authority,
        place: &Place,
    ) -> anyhow::Result<Self> {
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

pub(super) fn start_etcd(
    place: &Place,
    workspace: &Workspace,
    ports: Ports,
) -> anyhow::Result<Daemon> {
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

pub(super) fn start_api_server(
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

impl ControlPlane {
    pub(super) fn start_controllers(&self) -> anyhow::Result<()> {
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
            // A dead node is noticed within eleven seconds instead of a minute.
            .args(["--node-monitor-period=1s", "--node-monitor-grace-period=10s"])
            // Its own limits alone would make the start four seconds longer.
            .args(["--kube-api-qps=1000", "--kube-api-burst=2000"])
            .args(["--allocate-node-cidrs", "--node-cidr-mask-size-ipv6=64"])
            .arg(option("cluster-cidr", POD_RANGES))
            .arg(option("service-cluster-ip-range", SERVICE_RANGES));
        let started = Daemon::start(
            "kube-controller-manager",
            command,
            self.workspace.path().join("controller-manager.log"),
        )?;
        *super::locked(&self.controller_manager) = Some(started);

        if self.options.scheduler {
            let access = self.certified_inside("scheduler", "system:kube-scheduler", &[])?;
            let mut command = self.place.bound_command(programs.kubernetes("kube-scheduler"));
            command.arg(option("kubeconfig", access.kubeconfig().display()));
            command.args([
                "--leader-elect=false",
                "--secure-port=0",
                "--kube-api-qps=1000",
                "--kube-api-burst=2000",
            ]);
            let started = Daemon::start(
                "kube-scheduler",
                command,
                self.workspace.path().join("scheduler.log"),
            )?;
            *super::locked(&self.scheduler) = Some(started);
        }
        Ok(())
    }
}
