//! Gateways, agents and backends around a router, and the objects that the agents watch.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use tempfile::TempDir;
use testkit::internet::{Internet, public};
use testkit::lab::Daemon;
use testkit::probe::{Answer, Attempt, EchoServer, Outcome, Probe, Prober};
use testkit::tunnels::Tunnels;
use testkit::{Lab, Machine, Protocol, wait};

/// How long anything may take on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The program under test: the one that was built with the tests, or the one that
/// `PORTCULLIS_PROGRAM` names, such as a release build for what depends on it.
pub(crate) fn program() -> PathBuf {
    let named = std::env::var_os("PORTCULLIS_PROGRAM");
    named.map_or_else(|| env!("CARGO_BIN_EXE_portcullis").into(), PathBuf::from)
}

/// The last number of the first agent's and the first backend's address.
pub(crate) const AGENT: u8 = 21;
pub(crate) const BACKEND: u8 = 31;

/// How many of what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) gateways: u8,
    pub(crate) agents: u8,
}

/// One of each.
pub(crate) const ONE: Size = Size { gateways: 1, agents: 1 };

/// A machine and the program that runs on it.
struct Running {
    machine: Machine,
    daemon: Mutex<Option<Daemon>>,
}

impl Running {
    fn new(machine: Machine) -> Self {
        Self { machine, daemon: Mutex::new(None) }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Daemon>> {
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The internet, a home, and what runs there.
pub(crate) struct Place {
    // Programs end before the machines do.
    gateways: Vec<Running>,
    agents: Vec<Running>,
    pub(crate) backends: Vec<Machine>,
    servers: Mutex<Vec<EchoServer>>,
    pub(crate) internet: Internet,
    pub(crate) tunnels: Tunnels,
    directory: TempDir,
}

impl Place {
    /// Machines, an authority, adopted gateways and running agents; nothing is published yet, and
    /// the backends `b1` and `b2` serve TCP 8080 and 8443 and UDP 8053. `None` when labs cannot be
    /// made here.
    pub(crate) fn build(name: &str, size: Size) -> anyhow::Result<Option<Self>> {
        let Some(place) = Self::empty(name, size)? else { return Ok(None) };
        for number in 1..=size.gateways {
            place.create_gateway(number, "", &[])?;
            place.start_gateway(number)?;
        }
        for number in 1..=size.agents {
            place.start_agent(number)?;
        }
        for number in 1..=size.agents {
            place.wait_connected(number, usize::from(size.gateways))?;
        }
        Ok(Some(place))
    }

    /// The machines, the backends, and empty directories; no program runs.
    pub(crate) fn empty(name: &str, size: Size) -> anyhow::Result<Option<Self>> {
        let Some(lab) = testkit::require(Lab::as_root(name)) else { return Ok(None) };
        let internet = Internet::build(lab)?;
        let machines = |letter: char, count: u8, first: u8, home: bool| {
            let one = |number: u8| {
                let (name, address) = (format!("{letter}{number}"), first + number - 1);
                if home {
                    internet.private(&name, address)
                } else {
                    internet.public(&name, address)
                }
            };
            (1..=count).map(one).collect::<anyhow::Result<Vec<_>>>()
        };
        let gateways = machines('g', size.gateways, 1, false)?;
        let agents = machines('a', size.agents, AGENT, true)?;
        let backends = machines('b', 2, BACKEND, true)?;
        let directory = TempDir::new()?;
        let tunnels = Tunnels::new(&program(), directory.path())?;
        let place = Self {
            gateways: gateways.into_iter().map(Running::new).collect(),
            agents: agents.into_iter().map(Running::new).collect(),
            backends,
            servers: Mutex::default(),
            internet,
            tunnels,
            directory,
        };
        for backend in &place.backends {
            for (port, protocol) in
                [(8080, Protocol::Tcp), (8443, Protocol::Tcp), (8053, Protocol::Udp)]
            {
                place.serve(backend, port, protocol)?;
            }
        }
        Ok(Some(place))
    }

    /// Opens an echo server that says the machine's name, for as long as the place stands.
    pub(crate) fn serve(
        &self,
        machine: &Machine,
        port: u16,
        protocol: Protocol,
    ) -> anyhow::Result<()> {
        let at = SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port));
        let server = machine.serve(machine.name(), at, protocol)?;
        self.servers.lock().unwrap_or_else(PoisonError::into_inner).push(server);
        Ok(())
    }

    pub(crate) fn visitor(&self) -> &Machine {
        &self.internet.visitor
    }

    pub(crate) fn gateway(&self, number: u8) -> &Machine {
        &self.gateways[usize::from(number) - 1].machine
    }

    pub(crate) fn agent(&self, number: u8) -> &Machine {
        &self.agents[usize::from(number) - 1].machine
    }

    /// A path below the place's own directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.tunnels.path(name)
    }

    /// Writes or replaces the manifest of this name in one step.
    pub(crate) fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        self.tunnels.write(name, text)
    }

    /// Removes the manifest of this name.
    pub(crate) fn remove(&self, name: &str) -> anyhow::Result<()> {
        self.tunnels.remove(name)
    }

    /// Declares a gateway and writes the configuration for it, with a fresh one-time secret; `spec`
    /// is added to the object, `more` are arguments of `gateway create`.
    pub(crate) fn create_gateway(
        &self,
        number: u8,
        spec: &str,
        more: &[&str],
    ) -> anyhow::Result<()> {
        self.create_gateway_at(number, &public(number).to_string(), spec, more)
    }

    /// The same for a gateway that is dialled at this host.
    pub(crate) fn create_gateway_at(
        &self,
        number: u8,
        host: &str,
        spec: &str,
        more: &[&str],
    ) -> anyhow::Result<()> {
        self.tunnels.declare(&format!("g{number}"), host, more)?;
        self.amend(number, spec)
    }

    /// Adds lines to the `spec` of a gateway's object.
    fn amend(&self, number: u8, spec: &str) -> anyhow::Result<()> {
        if spec.is_empty() {
            return Ok(());
        }
        let name = format!("g{number}");
        let text = std::fs::read_to_string(self.tunnels.manifest(&name))?;
        let lines: String = spec.lines().map(|it| format!("  {it}\n")).collect();
        self.write(&name, &text.replacen("spec:\n", &format!("spec:\n{lines}"), 1))
    }

    /// Starts a gateway's program.
    pub(crate) fn start_gateway(&self, number: u8) -> anyhow::Result<()> {
        let daemon = self.gateway_process(number)?;
        *self.gateways[usize::from(number) - 1].lock() = Some(daemon);
        Ok(())
    }

    /// Starts a second program beside the running one, and returns the old one. The new one is
    /// the one that the place looks after.
    pub(crate) fn replace_gateway(&self, number: u8) -> anyhow::Result<Daemon> {
        self.succeed_gateway(number, self.gateway_process(number)?)
    }

    /// Looks after this program from now on, and returns the one that ran before.
    pub(crate) fn succeed_gateway(&self, number: u8, daemon: Daemon) -> anyhow::Result<Daemon> {
        let old = self.gateways[usize::from(number) - 1].lock().replace(daemon);
        old.context("no gateway ran")
    }

    fn gateway_process(&self, number: u8) -> anyhow::Result<Daemon> {
        self.tunnels.gateway(self.gateway(number), &format!("g{number}"))
    }

    /// Starts a gateway's program with this environment.
    pub(crate) fn start_gateway_in(
        &self,
        number: u8,
        environment: &[(&str, &str)],
    ) -> anyhow::Result<()> {
        let configuration = self.path(&format!("g{number}.toml"));
        let machine = self.gateway(number);
        let mut command = machine.command(program());
        command.args(["gateway", "run", "--config"]).arg(configuration);
        command.envs(environment.iter().copied());
        let daemon = Daemon::start(format!("the gateway on {}", machine.name()), command)?;
        *self.gateways[usize::from(number) - 1].lock() = Some(daemon);
        Ok(())
    }

    /// Starts a gateway's program as this user, with one capability and nothing else.
    pub(crate) fn start_gateway_as(
        &self,
        number: u8,
        user: u32,
        capability: &str,
    ) -> anyhow::Result<()> {
        let configuration = self.path(&format!("g{number}.toml"));
        let state = self.path(&format!("g{number}-state"));
        std::fs::create_dir_all(&state)?;
        for path in [self.directory.path(), &configuration, &state] {
            std::os::unix::fs::chown(path, Some(user), Some(user))?;
        }
        let user = user.to_string();
        let only = format!("-all,+{capability}");
        let configuration = configuration.display().to_string();
        let program = program().display().to_string();
        let arguments = [
            "--reuid",
            &user,
            "--regid",
            &user,
            "--clear-groups",
            "--no-new-privs",
            "--inh-caps",
            &only,
            "--ambient-caps",
            &only,
            "--bounding-set",
            &only,
            "--",
            &program,
            "gateway",
            "run",
            "--config",
            &configuration,
        ];
        let daemon = self.gateway(number).spawn("setpriv", &arguments)?;
        *self.gateways[usize::from(number) - 1].lock() = Some(daemon);
        Ok(())
    }

    /// Starts an agent's program.
    pub(crate) fn start_agent(&self, number: u8) -> anyhow::Result<()> {
        self.start_agent_with(number, &[])
    }

    /// Starts an agent's program with further arguments.
    pub(crate) fn start_agent_with(&self, number: u8, more: &[&str]) -> anyhow::Result<()> {
        let running = &self.agents[usize::from(number) - 1];
        *running.lock() = Some(self.agent_process(number, more)?);
        Ok(())
    }

    /// Another process of the same agent, which the place does not look after.
    pub(crate) fn agent_process(&self, number: u8, more: &[&str]) -> anyhow::Result<Daemon> {
        self.tunnels.agent(self.agent(number), &format!("a{number}"), more)
    }

    /// Kills a gateway's program as a power cut would, and returns what it had logged.
    pub(crate) fn kill_gateway(&self, number: u8) -> anyhow::Result<String> {
        kill(&self.gateways[usize::from(number) - 1])
    }

    /// Kills an agent's program as a power cut would, and returns what it had logged.
    pub(crate) fn kill_agent(&self, number: u8) -> anyhow::Result<String> {
        kill(&self.agents[usize::from(number) - 1])
    }

    /// Does something with the running program of a gateway.
    pub(crate) fn with_gateway<T>(
        &self,
        number: u8,
        f: impl FnOnce(&Daemon) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let running = self.gateways[usize::from(number) - 1].lock();
        f(running.as_ref().context("the gateway does not run")?)
    }

    /// Does something with the running program of an agent.
    pub(crate) fn with_agent<T>(
        &self,
        number: u8,
        f: impl FnOnce(&Daemon) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let running = self.agents[usize::from(number) - 1].lock();
        f(running.as_ref().context("the agent does not run")?)
    }

    /// What the programs log, for messages of tests.
    pub(crate) fn logs(&self) -> String {
        let mut text = String::new();
        for running in self.gateways.iter().chain(&self.agents) {
            let log = running.lock().as_ref().map(Daemon::log).unwrap_or_default();
            text += &format!("--- {}\n{log}\n", running.machine.name());
        }
        text
    }

    /// Waits until an agent has sessions with this many gateways.
    pub(crate) fn wait_connected(&self, agent: u8, gateways: usize) -> anyhow::Result<()> {
        let mut last = None;
        wait::until_ok(&format!("a{agent} is connected to {gateways} gateways"), PATIENCE, || {
            self.with_agent(agent, Daemon::check_alive)?;
            let connected = self.connected(agent);
            let reached = connected.as_ref().is_ok_and(|it| *it == gateways);
            last = Some(connected);
            Ok(reached.then_some(()))
        })
        .with_context(|| format!("in the end there was {last:?}\n{}", self.logs()))
    }

    /// How many gateways an agent says that it has sessions with.
    pub(crate) fn connected(&self, agent: u8) -> anyhow::Result<usize> {
        let status = self.agent_status(agent)?;
        let gateways = status["gateways"].as_object().into_iter().flatten();
        Ok(gateways.filter(|(_, it)| it["connected"] == true).count())
    }

    /// Begins to replace the cluster's authority, as an administrator does.
    pub(crate) fn rotate(&self) -> anyhow::Result<()> {
        let [manifests, authority] =
            ["manifests", "authority"].map(|it| self.path(it).display().to_string());
        let arguments =
            ["gateway", "rotate", "--now", "--manifests", &manifests, "--ca-dir", &authority];
        let output = std::process::Command::new(program()).args(arguments).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "gateway rotate: {said}");
        Ok(())
    }

    /// What the gateway keeps as its certificate.
    pub(crate) fn gateway_serial(&self, number: u8) -> anyhow::Result<String> {
        let kept = format!("g{number}-state/clusters/{}/identity.pem", testkit::tunnels::CLUSTER);
        let text = std::fs::read_to_string(self.path(&kept))?;
        let begin = text.find("BEGIN CERTIFICATE").context("a gateway without a certificate")?;
        let end = text[begin..].find("END CERTIFICATE").context("half a certificate")?;
        Ok(text[begin..begin + end].to_owned())
    }

    /// How many sessions a gateway says that it has.
    pub(crate) fn sessions(&self, gateway: u8) -> anyhow::Result<usize> {
        let status = self.tunnels.gateway_status(self.gateway(gateway))?;
        let clusters = status["clusters"].as_array().into_iter().flatten();
        Ok(clusters.filter_map(|it| it["agents"].as_array()).map(Vec::len).sum())
    }

    /// What a running agent tells about itself.
    pub(crate) fn agent_status(&self, agent: u8) -> anyhow::Result<serde_json::Value> {
        self.tunnels.agent_status(self.agent(agent))
    }

    /// One connection from the visitor.
    pub(crate) fn visit(&self, to: SocketAddr, protocol: Protocol) -> anyhow::Result<Outcome> {
        let probe = Probe::new(to, protocol).within(Duration::from_secs(1));
        self.visitor().probe(probe)
    }

    /// Connects until there is an answer.
    #[track_caller]
    pub(crate) fn reached(&self, to: SocketAddr, protocol: Protocol) -> anyhow::Result<Answer> {
        let mut last = None;
        let reached = wait::until_ok(&format!("{to}/{protocol} answers"), PATIENCE, || {
            let outcome = self.visit(to, protocol)?;
            let answer = outcome.answer().cloned();
            last = Some(outcome);
            Ok(answer)
        });
        reached.with_context(|| format!("the last outcome was {last:?}\n{}", self.logs()))
    }

    /// Connects until nobody answers.
    pub(crate) fn closed(&self, to: SocketAddr, protocol: Protocol) -> anyhow::Result<()> {
        wait::until_ok(&format!("{to}/{protocol} is closed"), PATIENCE, || {
            Ok(self.visit(to, protocol)?.answer().is_none().then_some(()))
        })
        .with_context(|| self.logs())
    }

    /// Connects again and again, every 20 ms, giving each attempt three seconds.
    pub(crate) fn prober(&self, to: SocketAddr) -> anyhow::Result<Prober> {
        self.reached(to, Protocol::Tcp)?;
        self.visitor().prober(Probe::new(to, Protocol::Tcp), Duration::from_millis(20))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _nobody_listens = std::io::Write::write_all(
                &mut std::io::stderr(),
                format!("{}\n", self.logs()).as_bytes(),
            );
        }
        for running in self.agents.iter().chain(&self.gateways) {
            running.lock().take();
        }
    }
}

fn kill(running: &Running) -> anyhow::Result<String> {
    let daemon = running.lock().take().context("it does not run")?;
    daemon.kill();
    Ok(daemon.log())
}

/// Lets a prober make enough attempts after whatever happened, and returns all of its attempts.
pub(crate) fn finish(prober: Prober) -> anyhow::Result<Vec<Attempt>> {
    let mut attempts = prober.read()?;
    let enough = attempts.len() + 50;
    wait::until_ok("fifty more attempts", PATIENCE, || {
        attempts.extend(prober.read()?);
        Ok((attempts.len() >= enough).then_some(()))
    })?;
    attempts.extend(prober.stop()?);
    Ok(attempts)
}

/// A gateway's address and a port.
pub(crate) fn at(gateway: u8, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::from(public(gateway)), port)
}

/// Fails unless every attempt was answered, each within `limit`.
#[track_caller]
pub(crate) fn none_failed_or_slow(attempts: &[Attempt], limit: Duration) {
    none_failed_or_slow_but(attempts, limit, &[]);
}

/// The same, except for attempts that had begun at one of these moments and not ended: what was
/// connected through a program that is killed is lost with it.
#[track_caller]
pub(crate) fn none_failed_or_slow_but(attempts: &[Attempt], limit: Duration, kills: &[SystemTime]) {
    // An attempt takes a few milliseconds.
    let begun = |at: SystemTime| {
        let before = |kill: &SystemTime| kill.duration_since(at).ok();
        kills.iter().filter_map(before).any(|it| it < Duration::from_millis(100))
    };
    let took = |it: &Attempt| it.outcome.answer().map(|it| it.answered);
    let is_bad = |it: &&Attempt| took(it).is_none_or(|it| it > limit) && !begun(it.at);
    let bad: Vec<_> = attempts.iter().filter(is_bad).collect();
    assert!(attempts.len() > 20, "only {} connections were tried", attempts.len());
    assert!(bad.is_empty(), "{} of {}: {bad:#?}", bad.len(), attempts.len());
}
