//! What acts on one host.
//!
//! No decision lives here: what to write comes from `firewall`, when to write from the host task.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use api::host::{Backend as Wanted, Executor as Way, HostSettings};
use command::{Command, Output};
use firewall::{Backend, Observed, Plan, StandingRuleset};
use host::{Blame, ConfirmedChange, ExecuteError, Executor};
use planner::desired::Options;
use planner::host_view::HostView;

/// Why a pass failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PassError {
    /// A command could not be run.
    #[error(transparent)]
    Execute(#[from] ExecuteError),
    /// A program ran and failed.
    #[error("`{command}` ended with status {status}: {stderr}")]
    Command {
        /// The command line.
        command: String,
        /// The exit status, or `none` for a signal.
        status: String,
        /// What it said.
        stderr: String,
    },
    /// A listing could not be understood.
    #[error("cannot read the host's state: {0}")]
    Listing(String),
}

impl PassError {
    /// Whether the key that we log in with may have been replaced since it was read.
    pub(crate) fn needs_new_key(&self) -> bool {
        matches!(self, Self::Execute(ExecuteError::AuthenticationFailed { .. }))
    }

    /// Whether the host itself answered, so that it is reachable.
    pub(crate) fn host_answered(&self) -> bool {
        match self {
            Self::Execute(error) => error.blame() == Blame::Host,
            Self::Command { .. } | Self::Listing(_) => true,
        }
    }
}

/// A host that has its ruleset.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reached {
    /// How many steps that took.
    pub(crate) steps: usize,
    /// When the kernel had answered.
    pub(crate) at: Instant,
}

/// What acts on the host.
pub(crate) struct Hand {
    backend: Backend,
    options: Options,
    /// How long a change may stand unconfirmed before the host takes it back.
    confirm: Option<Duration>,
    executor: Box<dyn Executor>,
    /// Whether the other backend may still have rules of ours.
    leftovers: bool,
    /// The host's own addresses.
    addresses: BTreeSet<IpAddr>,
    cost_of_looking: Duration,
}

impl Hand {
    /// A hand that knows nothing about the host yet.
    pub(crate) fn new(settings: &HostSettings, executor: Box<dyn Executor>) -> Self {
        let backend = backend(settings);
        let confirm = match &settings.executor {
            Way::Local => None,
            Way::Ssh(ssh) => ssh.confirm_within,
        };
        let options = Options {
            accept_forwarded: settings.accept_forwarded,
            masquerade: settings.masquerade,
            hairpin: settings.hairpin,
        };
        Self {
            backend,
            options,
            confirm,
            executor,
            leftovers: true,
            addresses: BTreeSet::new(),
            cost_of_looking: Duration::ZERO,
        }
    }

    /// How long the last full reading took.
    pub(crate) fn cost_of_looking(&self) -> Duration {
        self.cost_of_looking
    }

    /// Reads addresses and listening sockets.
    pub(crate) async fn facts(&mut self) -> Result<HostView, PassError> {
        let addresses = self.checked(&firewall::observe::addresses()).await?;
        // Listeners only serve warnings: a host without `ss` is forwarded all the same.
        let listeners = self.executor.run(&firewall::observe::listeners()).await;
        let listeners = listeners.map(|it| it.stdout).unwrap_or_default();
        let facts = HostView::read(&addresses.stdout, &listeners)
            .map_err(|error| PassError::Listing(error.to_string()))?;
        self.addresses = facts.addresses.values().flatten().map(|it| it.addr()).collect();
        Ok(facts)
    }

    /// Brings the host to the ruleset that it should have.
    pub(crate) async fn reach(
        &mut self,
        standing: &mut StandingRuleset,
    ) -> Result<Reached, PassError> {
        if standing.observed().is_none() {
            let started = Instant::now();
            standing.observe(self.observe(self.backend, self.options).await?);
            self.cost_of_looking = started.elapsed();
        }
        let plan = standing.plan().unwrap_or_default();
        let stale = standing.stale_flows(&plan, &self.addresses);
        if !plan.is_empty()
            && let Some(before) = standing.observed()
        {
            self.apply(&plan, before).await?;
        }
        standing.confirm(&plan);
        let reached = Reached { steps: plan.steps().count(), at: Instant::now() };
        self.forget_flows(&stale).await;
        if self.leftovers {
            self.leftovers = !self.remove_leftovers().await;
        }
        Ok(reached)
    }

    async fn apply(&mut self, plan: &Plan, before: &Observed) -> Result<(), PassError> {
        tracing::debug!("applying:\n{plan}");
        let apply = plan.commands();
        let outputs = match self.confirm {
            Some(within) => {
                let rollback = plan.rollback(before);
                let change = ConfirmedChange { apply: apply.clone(), rollback, within };
                self.executor.run_confirmed(&change).await?
            }
            None => {
                let mut outputs = Vec::new();
                for command in &apply {
                    outputs.push(self.checked(command).await?);
                }
                outputs
            }
        };
        apply.iter().zip(&outputs).try_for_each(|(command, output)| check(command, output))
    }

    /// Deletes connection tracking entries that would keep using the old way.
    ///
    /// A host without `conntrack` keeps old UDP flows until they time out; that is worth a line in
    /// the log and no failure.
    async fn forget_flows(&mut self, stale: &[Command]) {
        for command in stale {
            if let Err(error) = self.executor.run(command).await {
                tracing::warn!(%command, %error, "cannot delete stale tracked connections");
                return;
            }
        }
    }

    /// Removes what the other backend left when the Host's backend was changed; true when that is
    /// settled. A host on which the other backend's programs are missing or not permitted has
    /// nothing of ours there.
    async fn remove_leftovers(&mut self) -> bool {
        let other = match self.backend {
            // The chains of iptables that accept are part of this backend's own state then.
            Backend::Nftables if self.options.accept_forwarded => return true,
            Backend::Nftables => Backend::Iptables,
            Backend::Iptables => Backend::Nftables,
        };
        let Ok(observed) = self.observe(other, Options::default()).await else { return true };
        for command in other.cleanup(&observed).commands() {
            if let Err(error) = self.checked(&command).await {
                tracing::warn!(%command, %error, "cannot remove rules of the other backend");
                return false;
            }
        }
        true
    }

    async fn observe(&mut self, backend: Backend, options: Options) -> Result<Observed, PassError> {
        let mut outputs = Vec::new();
        for command in backend.listing(options) {
            outputs.push(self.executor.run(&command).await?);
        }
        backend.observe(&outputs).map_err(|error| PassError::Listing(error.to_string()))
    }

    async fn checked(&mut self, command: &Command) -> Result<Output, PassError> {
        let output = self.executor.run(command).await?;
        check(command, &output)?;
        Ok(output)
    }
}

/// The backend that a Host asks for.
pub(crate) fn backend(settings: &HostSettings) -> Backend {
    match settings.backend {
        Wanted::Nftables => Backend::Nftables,
        Wanted::Iptables => Backend::Iptables,
    }
}

fn check(command: &Command, output: &Output) -> Result<(), PassError> {
    if output.succeeded() {
        return Ok(());
    }
    let status = output.status.map_or_else(|| "none".to_owned(), |it| it.to_string());
    let stderr = output.stderr.trim().to_owned();
    Err(PassError::Command { command: command.to_string(), status, stderr })
}
