//! The ways from a visitor to a backend: none, ours, and those of others, each as its users run it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use testkit::Machine;
use testkit::lab::Daemon;
use testkit::sshd::{self, SshServer};
use testkit::tunnels::Tunnels;
use testkit::wait;

use super::site::{BACKEND, BULK, PUBLIC};

/// A way without anything on it.
pub(super) const DIRECT: &str = "direct";
/// Ours.
pub(super) const OURS: &str = "portcullis";
/// Others.
pub(super) const RATHOLE: &str = "rathole plain";
/// Others, encrypted.
pub(super) const NOISE: &str = "rathole Noise";
/// Others.
pub(super) const BORE: &str = "bore";
/// Others, encrypted.
pub(super) const SSH: &str = "OpenSSH -R";

/// A way from a visitor to the backends.
pub(super) struct Way {
    pub(super) name: &'static str,
    /// Leads to iperf3.
    pub(super) bulk: SocketAddr,
    /// Leads to the echo.
    pub(super) echo: SocketAddr,
    pub(super) encrypted: bool,
    /// The public side first.
    daemons: Vec<Daemon>,
    server: Option<(SshServer, Machine)>,
}

impl Way {
    /// To the backends themselves.
    pub(super) fn direct(echo: u16) -> Self {
        let (bulk, echo) = ((BACKEND, BULK).into(), (BACKEND, echo).into());
        Self { name: DIRECT, bulk, echo, encrypted: false, daemons: Vec::new(), server: None }
    }

    fn new(name: &'static str, at: Ipv4Addr, ports: [u16; 2], daemons: Vec<Daemon>) -> Self {
        let [bulk, echo] = ports.map(|it| SocketAddr::from((at, it)));
        Self { name, bulk, echo, encrypted: false, daemons, server: None }
    }

    /// What its programs have written.
    pub(super) fn logs(&self) -> String {
        self.daemons.iter().map(Daemon::log).collect()
    }

    /// Its processes.
    fn processes(&self) -> Vec<u32> {
        let mut all: Vec<_> = self.daemons.iter().map(Daemon::pid).collect();
        if let Some((_, machine)) = &self.server {
            all.extend(named(machine, "sshd"));
        }
        all
    }

    /// The processor time that its programs have used so far, in seconds.
    pub(super) fn processor_time(&self) -> Result<f64> {
        self.processes().into_iter().map(processor_time).sum()
    }

    /// The memory of its programs in MiB, the public side first.
    pub(super) fn memory(&self) -> Result<Vec<f64>> {
        self.daemons.iter().map(|it| memory(it.pid())).collect()
    }
}

/// Our gateway and our agent, between them whatever they choose themselves.
pub(super) fn ours(machine: &Machine, program: &Path, directory: &Path, echo: u16) -> Result<Way> {
    let backend = (BACKEND, [BULK, echo]);
    published([machine, machine], program, directory, PUBLIC, backend)
}

/// Our gateway and our agent on these machines, before the bulk and the echo port of a backend.
pub(super) fn published(
    [gateway, agent]: [&Machine; 2],
    program: &Path,
    directory: &Path,
    public: Ipv4Addr,
    (backend, targets): (Ipv4Addr, [u16; 2]),
) -> Result<Way> {
    let directory = directory.join("portcullis");
    std::fs::create_dir(&directory)?;
    let tunnels = Tunnels::new(program, &directory)?;
    tunnels.declare("edge", &public.to_string(), &[])?;
    let ports = [7301, 7302];
    let mut objects = Vec::new();
    for (name, (port, target)) in ["bulk", "echo"].iter().zip(ports.iter().zip(targets)) {
        objects.push(format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{ name: {name}, namespace: bench }}\n\
             spec:\n  type: LoadBalancer\n  loadBalancerClass: portcullis.dev/gateway\n  ports:\n  \
             - {{ name: it, port: {port}, protocol: TCP, targetPort: {target} }}\n"
        ));
        objects.push(format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  \
             name: {name}-1\n  namespace: bench\n  labels: {{ kubernetes.io/service-name: {name} }}\n\
             addressType: IPv4\nports:\n- {{ name: it, port: {target}, protocol: TCP }}\n\
             endpoints:\n- {{ addresses: [{backend}], conditions: {{ ready: true }} }}\n"
        ));
    }
    tunnels.write("services", &objects.join("---\n"))?;
    let configuration = tunnels.path("edge.toml").display().to_string();
    let edge = gateway.spawn(&gateway_program(program)?, &["--config", &configuration])?;
    let daemons = vec![edge, tunnels.agent(agent, "agent", &[])?];
    let mut way = Way::new(OURS, public, ports, daemons);
    way.encrypted = true;
    Ok(way)
}

/// The small program that gateways of users run, beside the one that has everything.
fn gateway_program(program: &Path) -> Result<PathBuf> {
    let small = program.with_file_name("portcullis-gateway");
    anyhow::ensure!(
        small.is_file(),
        "{}: build it with `cargo build --release --package gateway-daemon`",
        small.display()
    );
    Ok(small)
}

/// rathole, `tcp` or `noise`.
pub(super) fn rathole(
    machine: &Machine,
    program: &Path,
    transport: &str,
    directory: &Path,
    echo: u16,
) -> Result<Way> {
    let noise = transport == "noise";
    let (name, first) = if noise { (NOISE, 7200) } else { (RATHOLE, 7100) };
    let (mut server, mut client) = (String::new(), String::new());
    if noise {
        let keys = machine.run(&program.display().to_string(), &["--genkey"])?;
        let keys: Vec<_> = keys.lines().filter(|it| it.ends_with('=')).collect();
        let [private, public] = keys[..] else { anyhow::bail!("not two keys: {keys:?}") };
        let transport = "type = \"noise\"\n";
        server = format!(
            "[server.transport]\n{transport}[server.transport.noise]\nlocal_private_key = \"{private}\"\n"
        );
        client = format!(
            "[client.transport]\n{transport}[client.transport.noise]\nremote_public_key = \"{public}\"\n"
        );
    }
    let ports = [first + 1, first + 2];
    let mut sides = [
        format!("[server]\nbind_addr = \"127.0.0.1:{first}\"\ndefault_token = \"t\"\n{server}"),
        format!("[client]\nremote_addr = \"127.0.0.1:{first}\"\ndefault_token = \"t\"\n{client}"),
    ];
    for (service, public, local) in [("bulk", ports[0], BULK), ("echo", ports[1], echo)] {
        sides[0] += &format!("[server.services.{service}]\nbind_addr = \"127.0.0.1:{public}\"\n");
        sides[1] += &format!("[client.services.{service}]\nlocal_addr = \"{BACKEND}:{local}\"\n");
    }
    let mut daemons = Vec::new();
    for (side, text) in ["--server", "--client"].iter().zip(sides) {
        let file = directory.join(format!("rathole-{transport}{side}.toml"));
        std::fs::write(&file, text)?;
        daemons.push(machine.spawn(program, &[side, &file.display().to_string()])?);
    }
    let mut way = Way::new(name, Ipv4Addr::LOCALHOST, ports, daemons);
    way.encrypted = noise;
    Ok(way)
}

/// bore, which encrypts nothing.
pub(super) fn bore(machine: &Machine, program: &Path, echo: u16) -> Result<Way> {
    let mut daemons = vec![machine.spawn(program, &["server", "--bind-addr", "127.0.0.1"])?];
    daemons[0].wait_for_log("listening", Duration::from_secs(10))?;
    let ports = [7401, 7402];
    for (public, local) in ports.iter().zip([BULK, echo]) {
        let (local, public) = (local.to_string(), public.to_string());
        let host = BACKEND.to_string();
        let arguments =
            ["local", &local, "--local-host", &host, "--to", "127.0.0.1", "--port", &public];
        daemons.push(machine.spawn(program, &arguments)?);
    }
    Ok(Way::new(BORE, Ipv4Addr::LOCALHOST, ports, daemons))
}

/// OpenSSH with its default cipher.
pub(super) fn ssh(machine: &Machine, echo: u16) -> Result<Way> {
    sshd::available()?;
    let lines = "AllowTcpForwarding yes\nGatewayPorts clientspecified\n";
    let address = Ipv4Addr::LOCALHOST.into();
    let server = sshd::Options::new(machine, address).port(7522).configuration(lines).start()?;
    let ports = [7501, 7502];
    let mut client = server.client(machine);
    client.args(["-N", "-o", "ExitOnForwardFailure=yes"]);
    for (public, local) in ports.iter().zip([BULK, echo]) {
        client.arg("-R").arg(format!("127.0.0.1:{public}:{BACKEND}:{local}"));
    }
    let client = Daemon::start("ssh -R", client)?;
    let mut way = Way::new(SSH, Ipv4Addr::LOCALHOST, ports, vec![client]);
    way.encrypted = true;
    way.server = Some((server, machine.clone()));
    wait::until("ssh forwards", Duration::from_secs(20), || {
        machine.run("ss", &["-Hltn"]).ok().filter(|it| it.contains(":7502 "))
    })
    .with_context(|| way.logs())?;
    Ok(way)
}

/// The processes of this program in a machine.
fn named(machine: &Machine, name: &str) -> Vec<u32> {
    let Ok(here) = std::fs::read_link(machine.net_path()) else { return Vec::new() };
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|it| it.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let net = std::fs::read_link(format!("/proc/{pid}/ns/net"));
        comm.trim() == name && net.is_ok_and(|it| it == here)
    })
    .collect()
}

fn processor_time(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("/proc/PID/stat has no name")?;
    let fields: Vec<_> = fields.split_whitespace().collect();
    // User and system time (proc(5)), in hundredths of a second on every Linux of today.
    let ticks = |at: usize| fields.get(at).and_then(|it| it.parse::<f64>().ok());
    Ok((ticks(11).zip(ticks(12)).map(|(user, system)| user + system)).context("no times")? / 100.0)
}

fn memory(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kibibytes = line.split_whitespace().next().and_then(|it| it.parse::<f64>().ok());
    Ok(kibibytes.context("VmRSS is no number")? / 1024.0)
}
