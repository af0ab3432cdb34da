//! One node: namespaces of its own, and in them containerd, the kubelet and kube-proxy.
//!
//! A node is a machine in all but the kernel: its network, mounts, processes and control groups
//! are its own, so that the end of its first process is the end of everything in it. What the
//! programs write to fixed places (`/run`, `/var/lib`, `/var/log`) they write to the node's own.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::control_groups::ControlGroups;
use super::control_plane::ControlPlane;
use super::daemon::{Daemon, run};
use super::namespace::Holder;
use super::programs::Programs;
use super::underlay::{AddressPlan, Underlay};
use crate::wait::until_ok;

mod configuration;

/// The node's only interface beside the loopback.
const INTERFACE: &str = "eth0";
const SOCKET_LIMIT: Duration = Duration::from_secs(30);
/// Unpacking an image takes a moment on a busy machine.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// A Kubernetes node.
#[derive(Debug)]
pub struct Node {
    // In the order in which they must end.
    programs: Mutex<NodePrograms>,
    holder: Holder,
    name: String,
    number: u8,
    directory: PathBuf,
}

#[derive(Debug, Default)]
struct NodePrograms {
    kube_proxy: Option<Daemon>,
    kubelet: Option<Daemon>,
    containerd: Option<Daemon>,
}

impl Node {
    /// Starts the node's programs. The node object must exist, so that its pod range is known.
    pub(super) fn start(
        number: u8,
        control_plane: &ControlPlane,
        underlay: &Underlay,
        groups: &ControlGroups,
        nodes: u8,
    ) -> anyhow::Result<Self> {
        let name = Self::name_of(number);
        let directory = control_plane.directory().join(&name);
        for below in [
            "",
            "containerd",
            "kubelet",
            "var-lib",
            "var-lib-work",
            "var-log",
            "var-log-work",
            "cni",
            "leases",
            "pod-logs",
        ] {
            let path = directory.join(below);
            std::fs::create_dir_all(&path)
                .with_context(|| format!("cannot make {}", path.display()))?;
        }
        let holder = Holder::machine(&name, directory.join("holder.log"))?;
        let node = Self { programs: Mutex::default(), holder, name, number, directory };
        node.mount(groups)?;
        node.wire(underlay, nodes)?;
        node.write_configuration(control_plane, groups)?;
        node.start_containerd()?;
        node.start_kube_proxy()?;
        for image in ["pause", "echo"] {
            node.load_image(&Programs::find()?.image(&format!("{image}.tar")))?;
        }
        node.start_kubelet(control_plane)?;
        Ok(node)
    }

    pub(super) fn name_of(number: u8) -> String {
        format!("node-{number}")
    }

    /// The name of the Node object.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The node's `InternalIP`, on the underlay.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        AddressPlan::node(self.number)
    }

    /// The node's second `InternalIP`.
    #[must_use]
    pub fn address6(&self) -> Ipv6Addr {
        AddressPlan::node6(self.number)
    }

    /// The node's namespaces: run commands in them, or enter its network.
    #[must_use]
    pub fn holder(&self) -> &Holder {
        &self.holder
    }

    /// Makes an image of a docker-archive or OCI archive available to pods, under the names that the archive gives it.
    ///
    /// # Errors
    ///
    /// Fails with what containerd said.
    pub fn load_image(&self, archive: &Path) -> anyhow::Result<()> {
        let mut command = self.holder.command(Programs::find()?.containerd("ctr"));
        command.arg("--address").arg(self.socket()).args([
            "--namespace",
            "k8s.io",
            "images",
            "import",
        ]);
        run(command.arg(archive)).map(|_| ())
    }

    /// Stops the kubelet: pods and kube-proxy go on, but after some ten seconds the node is NotReady.
    ///
    /// # Errors
    ///
    /// Fails when it is not running.
    pub fn stop_kubelet(&self) -> anyhow::Result<()> {
        let mut programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        programs.kubelet.take().context("the kubelet is not running")?.stop(STOP_LIMIT);
        Ok(())
    }

    /// Starts the kubelet again, after [`Self::stop_kubelet`].
    ///
    /// # Errors
    ///
    /// Fails when it does not start.
    pub fn start_kubelet(&self, control_plane: &ControlPlane) -> anyhow::Result<()> {
        let access = control_plane.certified_inside(
            &format!("kubelet-{}", self.name),
            &format!("system:node:{}", self.name),
            &["system:nodes"],
        )?;
        let mut command = self.holder.bound_command(Programs::find()?.kubernetes("kubelet"));
        command
            .arg("--config")
            .arg(self.directory.join("kubelet.json"))
            .arg("--kubeconfig")
            .arg(access.kubeconfig())
            .arg("--root-dir")
            .arg(self.directory.join("kubelet"))
            .arg("--cert-dir")
            .arg(self.directory.join("kubelet/pki"))
            .arg("--hostname-override")
            .arg(&self.name)
            .arg("--node-ip")
            .arg(format!("{},{}", self.address(), self.address6()));
        let started = Daemon::start("kubelet", command, self.directory.join("kubelet.log"))?;
        self.programs.lock().unwrap_or_else(PoisonError::into_inner).kubelet = Some(started);
        Ok(())
    }

    /// Kills what runs in the pods, without a warning. The kubelet starts it again, if it runs.
    ///
    /// # Errors
    ///
    /// Fails when a process cannot be killed.
    pub fn kill_containers(&self) -> anyhow::Result<()> {
        // Containers are grandchildren of the node's first process: it, a shim, the container. The
        // pause program of a pod stays, and with it the pod's address.
        let own: BTreeSet<_> = self.pids().into_iter().collect();
        for shim in &own {
            let children = std::fs::read_to_string(format!("/proc/{shim}/task/{shim}/children"));
            let children = children.unwrap_or_default();
            let pids = children.split_whitespace().filter_map(|it| it.parse::<u32>().ok());
            for pid in pids.filter(|it| !own.contains(it)) {
                let executable = std::fs::read_link(format!("/proc/{pid}/exe"));
                if executable.is_ok_and(|it| !it.ends_with("pause")) {
                    kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL)
                        .with_context(|| format!("cannot kill a container on {}", self.name))?;
                }
            }
        }
        Ok(())
    }

    /// The processes of the node itself: its programs, and a shim for each pod.
    pub(super) fn pids(&self) -> Vec<u32> {
        let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let own = namespace(&self.holder.pid().to_string());
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let names = entries.filter_map(|it| it.file_name().into_string().ok());
        names
            .filter(|it| own.is_some() && namespace(it) == own)
            .filter_map(|it| it.parse().ok())
            .collect()
    }

    /// Fails when one of the node's programs has ended, with the end of its log.
    pub(super) fn ensure_running(&self) -> anyhow::Result<()> {
        let mut programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        let NodePrograms { kube_proxy, kubelet, containerd } = &mut *programs;
        [kube_proxy, kubelet, containerd].into_iter().flatten().try_for_each(Daemon::ensure_running)
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("containerd.sock")
    }

    /// Gives the node its own view of what the programs write to, and its own control groups.
    fn mount(&self, groups: &ControlGroups) -> anyhow::Result<()> {
        self.holder.run("mount", &["-t", "tmpfs", "tmpfs", "/run"])?;
        for (place, name) in [("/var/lib", "var-lib"), ("/var/log", "var-log")] {
            // An overlay, because the test bed's own programs may lie below.
            let options = format!(
                "lowerdir={place},upperdir={},workdir={}",
                self.directory.join(name).display(),
                self.directory.join(format!("{name}-work")).display()
            );
            self.holder.run("mount", &["-t", "overlay", "overlay", "-o", &options, place])?;
        }
        self.holder.run("mount", &["-t", "sysfs", "sysfs", "/sys"])?;
        groups.mount_in(&self.holder)
    }

    /// Connects the node to the underlay, and gives it the ways to the other nodes' pods.
    fn wire(&self, underlay: &Underlay, nodes: u8) -> anyhow::Result<()> {
        let ip = |arguments: &[&str]| self.holder.run("ip", arguments).map(|_| ());
        underlay.plug(self.holder.pid(), INTERFACE)?;
        ip(&[
            "address",
            "add",
            &format!("{}/{}", self.address(), AddressPlan::PREFIX),
            "dev",
            INTERFACE,
        ])?;
        ip(&[
            "address",
            "add",
            &format!("{}/{}", self.address6(), AddressPlan::PREFIX6),
            "dev",
            INTERFACE,
            "nodad",
        ])?;
        ip(&["link", "set", INTERFACE, "up"])?;
        ip(&["route", "add", "default", "via", &AddressPlan::GATEWAY.to_string()])?;
        ip(&["route", "add", "default", "via", &AddressPlan::GATEWAY6.to_string()])?;
        for other in (1..=nodes).filter(|it| *it != self.number) {
            ip(&[
                "route",
                "add",
                &AddressPlan::pods(other),
                "via",
                &AddressPlan::node(other).to_string(),
            ])?;
            ip(&[
                "route",
                "add",
                &AddressPlan::pods6(other),
                "via",
                &AddressPlan::node6(other).to_string(),
            ])?;
        }
        self.holder
            .run("sysctl", &["-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"])?;
        Ok(())
    }

    fn start_containerd(&self) -> anyhow::Result<()> {
        let programs = Programs::find()?;
        let mut command = self.holder.bound_command(programs.containerd("containerd"));
        // It finds its shim, and the shim runc, by this.
        let path = std::env::join_paths(
            [programs.containerd_directory().to_owned()]
                .into_iter()
                .chain(std::env::split_paths(&crate::requirement::search_path())),
        )?;
        command.env("PATH", path).arg("--config").arg(self.directory.join("containerd.toml"));
        let mut started =
            Daemon::start("containerd", command, self.directory.join("containerd.log"))?;
        let socket = self.socket();
        until_ok("containerd to listen", SOCKET_LIMIT, || {
            started.ensure_running()?;
            Ok(started.log_contains("containerd successfully booted").then_some(()))
        })
        .with_context(|| format!("no answer on {}", socket.display()))?;
        self.programs.lock().unwrap_or_else(PoisonError::into_inner).containerd = Some(started);
        Ok(())
    }

    fn start_kube_proxy(&self) -> anyhow::Result<()> {
        let mut command = self.holder.bound_command(Programs::find()?.kubernetes("kube-proxy"));
        command.arg("--config").arg(self.directory.join("kube-proxy.json"));
        let started = Daemon::start("kube-proxy", command, self.directory.join("kube-proxy.log"))?;
        self.programs.lock().unwrap_or_else(PoisonError::into_inner).kube_proxy = Some(started);
        Ok(())
    }
}
