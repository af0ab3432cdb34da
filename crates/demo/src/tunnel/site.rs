//! Two gateways, two agents and a backend, and the programs that run on them.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use testkit::internet::{Direction, Internet, Silence, public};
use testkit::lab::Daemon;
use testkit::probe::{Answer, EchoServer, Probe, Prober};
use testkit::tunnels::Tunnels;
use testkit::{Lab, Machine, Protocol, wait};

/// The last number of the first agent's address.
const AGENT: u8 = 21;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

const BLOG: &str = include_str!("../../manifests/tunnel/blog.yaml");

/// A program on a machine, which can be killed and started again.
struct Seat {
    machine: Machine,
    daemon: Mutex<Option<Daemon>>,
}

/// The internet and the home.
pub(crate) struct Site {
    // Programs end before their machines.
    gateways: [Seat; 2],
    agents: [Seat; 2],
    _backends: Vec<EchoServer>,
    internet: Internet,
    tunnels: Tunnels,
}

impl Site {
    /// Builds the machines, lets the cluster adopt both gateways, and starts everything.
    pub(crate) fn build(program: &Path, directory: &Path) -> Result<Self> {
        let internet = Internet::build(Lab::new("tunnels").map_err(|it| anyhow!("{it}"))?)?;
        let seat = |machine| Seat { machine, daemon: Mutex::default() };
        let gateways = [seat(internet.public("g1", 1)?), seat(internet.public("g2", 2)?)];
        let agents =
            [seat(internet.private("a1", AGENT)?), seat(internet.private("a2", AGENT + 1)?)];
        let backend = internet.private("blog", 31)?;
        let everywhere = |port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let backends = vec![
            backend.serve("blog", everywhere(8443), Protocol::Tcp)?,
            backend.serve("blog", everywhere(8053), Protocol::Udp)?,
        ];
        let tunnels = Tunnels::new(program, directory)?;
        tunnels.write("blog", BLOG)?;
        let site = Self { gateways, agents, _backends: backends, internet, tunnels };
        for number in [1, 2] {
            site.tunnels.declare(&format!("g{number}"), &public(number).to_string(), &[])?;
            site.start_gateway(number)?;
        }
        for number in [1, 2] {
            site.start_agent(number)?;
        }
        Ok(site)
    }

    pub(crate) fn start_gateway(&self, number: u8) -> Result<()> {
        let seat = &self.gateways[usize::from(number) - 1];
        let daemon = self.tunnels.gateway(&seat.machine, &format!("g{number}"))?;
        seat.put(Some(daemon));
        Ok(())
    }

    pub(crate) fn start_agent(&self, number: u8) -> Result<()> {
        let seat = &self.agents[usize::from(number) - 1];
        let daemon = self.tunnels.agent(&seat.machine, &format!("a{number}"), &[])?;
        seat.put(Some(daemon));
        Ok(())
    }

    /// As a power cut would.
    pub(crate) fn kill_gateway(&self, number: u8) {
        self.gateways[usize::from(number) - 1].put(None);
    }

    /// As a power cut would.
    pub(crate) fn kill_agent(&self, number: u8) {
        self.agents[usize::from(number) - 1].put(None);
    }

    /// Lets all packets between an agent and both gateways vanish.
    pub(crate) fn silence_agent(&self, number: u8) -> Result<[Silence; 2]> {
        let home = AGENT + number - 1;
        let between = |gateway| self.internet.silence(home, gateway, Direction::Both);
        Ok([between(1)?, between(2)?])
    }

    /// What the visitor gets at a gateway.
    pub(crate) fn visit(
        &self,
        gateway: u8,
        port: u16,
        protocol: Protocol,
    ) -> Result<Option<Answer>> {
        let probe = Probe::new(at(gateway, port), protocol).within(Duration::from_secs(1));
        Ok(self.internet.visitor.probe(probe)?.answer().cloned())
    }

    /// Waits until a gateway answers, and returns how long that took.
    pub(crate) fn reached(&self, gateway: u8, port: u16, protocol: Protocol) -> Result<Duration> {
        let begin = Instant::now();
        wait::until_ok(&format!("g{gateway} to answer at {port}"), PATIENCE, || {
            self.visit(gateway, port, protocol)
        })
        .with_context(|| self.logs())?;
        Ok(begin.elapsed())
    }

    /// Waits until an agent itself says that it is connected to this many gateways.
    pub(crate) fn connected(&self, agent: u8, gateways: usize) -> Result<()> {
        let machine = &self.agents[usize::from(agent) - 1].machine;
        wait::until(&format!("a{agent} to have {gateways} links"), PATIENCE, || {
            let status = self.tunnels.agent_status(machine).ok()?;
            let links = status["gateways"].as_object()?;
            (links.values().filter(|it| it["connected"] == true).count() == gateways).then_some(())
        })
        .with_context(|| self.logs())
    }

    /// Connects to a gateway every 10 ms until it is stopped.
    pub(crate) fn prober(&self, gateway: u8) -> Result<Prober> {
        let probe = Probe::new(at(gateway, 443), Protocol::Tcp);
        self.internet.visitor.prober(probe, Duration::from_millis(10))
    }

    /// What every program logged.
    fn logs(&self) -> String {
        let seats = self.gateways.iter().chain(&self.agents);
        seats.map(|it| format!("--- {}\n{}", it.machine.name(), it.log())).collect()
    }
}

impl Seat {
    fn put(&self, daemon: Option<Daemon>) {
        *self.daemon.lock().unwrap_or_else(PoisonError::into_inner) = daemon;
    }

    fn log(&self) -> String {
        let daemon = self.daemon.lock().unwrap_or_else(PoisonError::into_inner);
        daemon.as_ref().map(Daemon::log).unwrap_or_default()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.agents.iter().chain(&self.gateways).for_each(|it| it.put(None));
    }
}

fn at(gateway: u8, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::from(public(gateway)), port)
}
