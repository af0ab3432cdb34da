//! Real packets: echo servers, and clients that say what became of theirs.
//!
//! Both run in the agent of a machine, so a probe costs one line over a pipe and no process.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::bail;

use crate::Protocol;
use crate::lab::Machine;
pub use crate::message::{Answer, Attempt, Outcome, Probe};
use crate::message::{Ask, Told};

/// How long a probe waits if nothing else is said. Long enough for a busy machine, because a
/// test that expects an answer gets it in far less.
pub const DEADLINE: Duration = Duration::from_secs(3);

/// How long a probe waits when the test expects silence.
pub const SILENCE: Duration = Duration::from_millis(300);

impl Probe {
    /// A probe with the [`DEADLINE`] and a source that the kernel chooses.
    #[must_use]
    pub fn new(to: SocketAddr, protocol: Protocol) -> Self {
        Self { to, protocol, from: None, deadline: DEADLINE }
    }

    /// From this source address and port; port 0 means any.
    #[must_use]
    pub fn from(self, source: SocketAddr) -> Self {
        Self { from: Some(source), ..self }
    }

    /// With another deadline.
    #[must_use]
    pub fn within(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }
}

/// Servers and clients in a machine.
impl Machine {
    /// Opens an echo server; port 0 lets the kernel choose one. The address `::` takes IPv4 as
    /// well. It is closed, with all its connections, when the returned value is dropped.
    ///
    /// # Errors
    ///
    /// When the address cannot be bound.
    pub fn serve(
        &self,
        name: &str,
        at: SocketAddr,
        protocol: Protocol,
    ) -> anyhow::Result<EchoServer> {
        let ask = Ask::Serve { name: name.to_owned(), at, protocol };
        match self.agent().ask(ask)? {
            (handle, Told::Bound(address)) => Ok(EchoServer {
                machine: self.clone(),
                handle,
                name: name.to_owned(),
                address,
                protocol,
            }),
            (_, other) => unexpected(&other),
        }
    }

    /// Probes once.
    ///
    /// # Errors
    ///
    /// When the attempt cannot be made, for example because the source address is not one of
    /// the machine's. Everything that happens to the packets is an [`Outcome`].
    pub fn probe(&self, probe: Probe) -> anyhow::Result<Outcome> {
        match self.agent().ask(Ask::Probe(probe))? {
            (_, Told::Outcome(outcome)) => Ok(outcome),
            (_, other) => unexpected(&other),
        }
    }

    /// Probes `count` times, one after the other and without a pause, each over a connection of
    /// its own. For measurements: the times in the answers are taken inside the machine.
    ///
    /// # Errors
    ///
    /// When an attempt cannot be made.
    pub fn burst(&self, probe: Probe, count: u32) -> anyhow::Result<Burst> {
        let mut burst = Burst { answers: Vec::new(), failed: Vec::new() };
        let mut left = count;
        // In parts, so that a reply stays well within the time that the agent has for one.
        while left > 0 {
            let part = left.min(1000);
            match self.agent().ask(Ask::Burst { probe, count: part })? {
                (_, Told::Burst { answers, failed }) => {
                    burst.answers.extend(answers);
                    burst.failed.extend(failed);
                }
                (_, other) => return unexpected(&other),
            }
            left -= part;
        }
        Ok(burst)
    }

    /// Opens a connection (or a UDP socket) and keeps it, with its source port. `None` when the
    /// first question was not answered; the outcome says why.
    ///
    /// # Errors
    ///
    /// When the attempt cannot be made.
    pub fn flow(&self, probe: Probe) -> anyhow::Result<(Option<Flow>, Outcome)> {
        match self.agent().ask(Ask::OpenFlow(probe))? {
            (handle, Told::Outcome(outcome)) => {
                let flow = outcome.answer().map(|it| Flow {
                    machine: self.clone(),
                    handle,
                    local: it.local,
                });
                Ok((flow, outcome))
            }
            (_, other) => unexpected(&other),
        }
    }

    /// Probes again and again, one attempt `every` so often, until it is stopped.
    ///
    /// # Errors
    ///
    /// When `every` is less than 100 microseconds.
    pub fn prober(&self, probe: Probe, every: Duration) -> anyhow::Result<Prober> {
        let (handle, _) = self.agent().ask(Ask::StartProber { probe, every })?;
        Ok(Prober { machine: self.clone(), handle, stopped: false })
    }
}

fn unexpected<T>(told: &Told) -> anyhow::Result<T> {
    bail!("the agent told {told:?}")
}

/// An open echo server. Dropping it closes it.
#[derive(Debug)]
pub struct EchoServer {
    machine: Machine,
    handle: u64,
    name: String,
    address: SocketAddr,
    protocol: Protocol,
}

impl EchoServer {
    /// The name that it tells its clients.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address and port that it is bound to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its protocol.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.machine.agent().close_handle(self.handle);
    }
}

/// What became of a [`Machine::burst`].
#[derive(Clone, Debug)]
pub struct Burst {
    /// The answers, in order.
    pub answers: Vec<Answer>,
    /// The attempts that had no answer.
    pub failed: Vec<Outcome>,
}

/// A connection, or a UDP socket with a fixed source port. Dropping it closes it.
#[derive(Debug)]
pub struct Flow {
    machine: Machine,
    handle: u64,
    local: SocketAddr,
}

impl Flow {
    /// The client's own address and port.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Asks the server at the other end who it is, over the same connection or from the same
    /// port.
    ///
    /// # Errors
    ///
    /// When the attempt cannot be made.
    pub fn ask(&self, deadline: Duration) -> anyhow::Result<Outcome> {
        match self.machine.agent().ask(Ask::QueryFlow { flow: self.handle, deadline })? {
            (_, Told::Outcome(outcome)) => Ok(outcome),
            (_, other) => unexpected(&other),
        }
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.machine.agent().close_handle(self.handle);
    }
}

/// Probes at a steady rate until it is stopped or dropped.
#[derive(Debug)]
pub struct Prober {
    machine: Machine,
    handle: u64,
    stopped: bool,
}

impl Prober {
    /// The attempts that have ended since the last call, in the order in which they began. One
    /// that waited long comes in a later call than others that began after it.
    ///
    /// # Errors
    ///
    /// When an attempt could not be made.
    pub fn read(&self) -> anyhow::Result<Vec<Attempt>> {
        attempts(self.machine.agent().ask(Ask::ReadProber { prober: self.handle })?)
    }

    /// Begins no further attempt, waits for those that are open, and returns all that were not
    /// yet read.
    ///
    /// # Errors
    ///
    /// When an attempt could not be made.
    pub fn stop(mut self) -> anyhow::Result<Vec<Attempt>> {
        self.stopped = true;
        attempts(self.machine.agent().ask(Ask::StopProber { prober: self.handle })?)
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        if !self.stopped {
            let _gone = self.machine.agent().ask(Ask::StopProber { prober: self.handle });
        }
    }
}

fn attempts((_, told): (u64, Told)) -> anyhow::Result<Vec<Attempt>> {
    if let Told::Attempts(attempts) = told {
        return Ok(attempts);
    }
    unexpected(&told)
}
