//! One machine with two backends, and every tunnel before them.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use testkit::lab::Daemon;
use testkit::{Lab, Machine, wait};

use super::load::{Echo, connect};
use super::ways::{self, Way};
use crate::Setting;

/// Where the backends are; beside the loopback address, which no cluster would have endpoints on.
pub(super) const BACKEND: Ipv4Addr = Ipv4Addr::new(10, 90, 0, 1);

/// Where our gateway publishes.
pub(super) const PUBLIC: Ipv4Addr = Ipv4Addr::new(10, 90, 0, 2);

/// Takes bulk data: iperf3.
pub(super) const BULK: u16 = 5201;

/// Sends back what it gets; every way has a port of its own. What one way leaves behind of its
/// connections would let the others search for free ports, milliseconds for each connection.
const ECHOES: [u16; 6] = [5300, 5301, 5302, 5303, 5304, 5305];

/// How long a tunnel may take to come up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Everything that runs for these benches, until it is dropped.
pub(super) struct Site {
    pub(super) machine: Machine,
    /// What is measured, the way without a tunnel first.
    pub(super) ways: Vec<Way>,
    _backends: (Daemon, Vec<Echo>),
    _directory: tempfile::TempDir,
    _lab: Lab,
}

impl Site {
    /// With every tunnel that can be had here.
    pub(super) fn build(setting: &Setting) -> Result<Self> {
        let lab = Lab::as_root("publish")?;
        let machine = lab.machine("border")?;
        for address in [BACKEND, PUBLIC] {
            machine.add_address("lo", &format!("{address}/32"))?;
        }
        let bulk = machine.spawn(
            "iperf3",
            &[
                "--server",
                "--bind",
                &BACKEND.to_string(),
                "--port",
                &BULK.to_string(),
                "--forceflush",
            ],
        )?;
        bulk.wait_for_log("Server listening", PATIENCE)?;
        // Thousands of connections a second come and go.
        machine.sysctl("ipv4/tcp_tw_reuse", "1")?;
        machine.sysctl("ipv4/ip_local_port_range", "10000 65000")?;
        let start = |port| Echo::start(&machine, SocketAddr::from((BACKEND, port)));
        let echoes = ECHOES.into_iter().map(start).collect::<Result<_>>()?;
        let [direct, ours, plain, noise, bore, ssh] = ECHOES;
        let directory = tempfile::tempdir()?;
        let peers = peers()?;
        let mut ways = vec![Way::direct(direct)];
        ways.push(ways::ours(&machine, &setting.portcullis, directory.path(), ours)?);
        for (transport, echo) in [("tcp", plain), ("noise", noise)] {
            ways.push(ways::rathole(&machine, &peers.rathole, transport, directory.path(), echo)?);
        }
        ways.push(ways::bore(&machine, &peers.bore, bore)?);
        ways.push(ways::ssh(&machine, ssh)?);
        let site =
            Self { machine, ways, _backends: (bulk, echoes), _directory: directory, _lab: lab };
        for way in &site.ways {
            site.wait_for(way).with_context(|| way.logs())?;
        }
        Ok(site)
    }

    /// Waits until a tunnel carries bytes to both backends.
    fn wait_for(&self, way: &Way) -> Result<()> {
        wait::until(way.name, PATIENCE, || {
            let inside = || {
                let mut stream = connect(way.echo).ok()?;
                stream.exchange(1).ok()
            };
            self.machine.enter(inside).ok().flatten()
        })?;
        // iperf3 talks to one client at a time; this one says nothing.
        wait::until(way.name, PATIENCE, || {
            let listing = self.machine.run("ss", &["-Hltn"]).ok()?;
            listing.contains(&format!(":{} ", way.bulk.port())).then_some(())
        })
    }

    /// The way of this name.
    pub(super) fn index(&self, name: &str) -> Result<usize> {
        self.ways.iter().position(|it| it.name == name).with_context(|| format!("no way {name}"))
    }
}

struct Peers {
    rathole: PathBuf,
    bore: PathBuf,
}

/// Where `scripts/setup` has put the programs of others.
fn peers() -> Result<Peers> {
    let setup = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/setup");
    let output = Command::new(setup).arg("where").output().context("run scripts/setup")?;
    let listing = String::from_utf8(output.stdout)?;
    let find = |name: &str| {
        let mut pairs = listing.lines().filter_map(|it| it.split_once('='));
        let directory = pairs.find(|(key, _)| *key == name).map(|(_, directory)| directory);
        let program = PathBuf::from(directory.context("scripts/setup knows it not")?).join(name);
        anyhow::ensure!(program.is_file(), "{name} is not there: run `scripts/setup peers`");
        Ok(program)
    };
    Ok(Peers { rathole: find("rathole")?, bore: find("bore")? })
}
