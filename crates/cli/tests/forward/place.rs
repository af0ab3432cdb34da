//! A border with the program on its host, and the objects that it watches.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tempfile::TempDir;
use testkit::border::Border;
use testkit::lab::Daemon;
use testkit::probe::{EchoServer, Outcome, Probe, SILENCE};
use testkit::{Lab, Machine, Protocol, wait};

use crate::objects;

/// How long anything may take on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_portcullis");

/// A border whose host has a directory of manifests, and backends on both nodes.
pub(crate) struct Place {
    pub(crate) border: Border,
    pub(crate) manifests: TempDir,
    /// What the nodes serve: TCP 30443 and UDP 30053, by node.
    pub(crate) servers: [Vec<EchoServer>; 2],
}

impl Place {
    /// A border with Host `edge` and both nodes ready, and nothing forwarded yet. `None` when labs
    /// cannot be made here.
    pub(crate) fn build(name: &str, host: &str) -> anyhow::Result<Option<Self>> {
        let Some(lab) = testkit::require(Lab::new(name)) else { return Ok(None) };
        Ok(Some(Self::in_lab(lab, host)?))
    }

    /// The same in an empty lab.
    pub(crate) fn in_lab(lab: Lab, host: &str) -> anyhow::Result<Self> {
        let border = Border::build(lab)?;
        let serve = |node| -> anyhow::Result<Vec<EchoServer>> {
            Ok(vec![
                border.serve(node, 30443, Protocol::Tcp)?,
                border.serve(node, 30053, Protocol::Udp)?,
            ])
        };
        let servers = [serve(1)?, serve(2)?];
        let manifests = TempDir::new()?;
        let place = Self { border, manifests, servers };
        place.write("host", &objects::host(host))?;
        place.write("n1", &objects::node(1, true))?;
        place.write("n2", &objects::node(2, true))?;
        Ok(place)
    }

    /// The machine that the program runs on.
    pub(crate) fn host(&self) -> &Machine {
        &self.border.host
    }

    /// Writes or replaces the manifest of this name in one step.
    pub(crate) fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        write(self.manifests.path(), name, text)
    }

    /// Removes the manifest of this name.
    pub(crate) fn remove(&self, name: &str) -> anyhow::Result<()> {
        Ok(std::fs::remove_file(self.manifests.path().join(format!("{name}.yaml")))?)
    }

    /// Starts the controller on the host.
    pub(crate) fn start(&self) -> anyhow::Result<Daemon> {
        self.start_with(&[])
    }

    /// Starts the controller on the host with further arguments.
    pub(crate) fn start_with(&self, more: &[&str]) -> anyhow::Result<Daemon> {
        let manifests = self.manifests.path().to_str().context("a path of text")?;
        let mut arguments = vec!["controller", "--manifests", manifests, "--host", "edge"];
        arguments.extend(more);
        self.host().spawn(PROGRAM, &arguments)
    }

    /// Runs the program on the host and returns what it printed.
    pub(crate) fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.host().run(PROGRAM, arguments)
    }

    /// What the running controller tells about itself, as the JSON of `status`.
    pub(crate) fn status(&self) -> anyhow::Result<serde_json::Value> {
        Ok(serde_json::from_str(&self.run(&["status", "--output", "json"])?)?)
    }

    /// Connects from outside until an answer comes from one of the nodes.
    pub(crate) fn wait_reached(
        &self,
        to: SocketAddr,
        protocol: Protocol,
    ) -> anyhow::Result<Outcome> {
        wait::until_ok(&format!("{to}/{protocol} answers"), PATIENCE, || {
            let outcome = self.try_outside(to, protocol)?;
            Ok(outcome.answer().is_some().then_some(outcome))
        })
    }

    /// Connects from outside until nobody answers.
    pub(crate) fn wait_closed(&self, to: SocketAddr, protocol: Protocol) -> anyhow::Result<()> {
        wait::until_ok(&format!("{to}/{protocol} is closed"), PATIENCE, || {
            Ok(self.try_outside(to, protocol)?.answer().is_none().then_some(()))
        })
    }

    /// One connection from outside.
    pub(crate) fn try_outside(
        &self,
        to: SocketAddr,
        protocol: Protocol,
    ) -> anyhow::Result<Outcome> {
        self.border.outside.probe(Probe::new(to, protocol).within(SILENCE))
    }

    /// Who answers how many of `count` connections; `""` counts those without an answer.
    pub(crate) fn spread(
        &self,
        client: &Machine,
        to: SocketAddr,
        count: u32,
    ) -> anyhow::Result<BTreeMap<String, u32>> {
        let mut spread = BTreeMap::new();
        for _ in 0..count {
            let outcome = client.probe(Probe::new(to, Protocol::Tcp).within(SILENCE))?;
            *spread.entry(outcome.server().unwrap_or_default().to_owned()).or_default() += 1;
        }
        Ok(spread)
    }
}

/// Writes or replaces a manifest in one step, as ConfigMaps and careful editors do.
pub(crate) fn write(directory: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let draft = directory.join(format!(".{name}"));
    std::fs::write(&draft, text)?;
    Ok(std::fs::rename(draft, directory.join(format!("{name}.yaml")))?)
}

/// The count of each answer, for comparison with [`Place::spread`].
pub(crate) fn counts<const N: usize>(expected: [(&str, u32); N]) -> BTreeMap<String, u32> {
    expected.map(|(name, count)| (name.to_owned(), count)).into()
}
