//! One host, kept as wished: observe, compare, apply, remember what the kernel confirmed.
//!
//! A task of its own for each host, so that one that does not answer delays no other. What the
//! host should look like arrives as a [`Wish`]; this file decides only *when* to act on it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::object::ObjectRef;
use command::{Command, Output};
use firewall::{Backend, Observed, Plan};
use futures::StreamExt;
use futures::stream::BoxStream;
use host::{ConfirmedChange, ExecuteError, Executor};
use planner::desired::Forwarding;
use planner::host_view::HostView;
use tokio::sync::{mpsc, watch};

use crate::backoff::Backoff;

/// What a host should look like.
#[derive(Debug)]
pub(crate) struct Wish {
    /// The desired forwarding.
    pub(crate) forwarding: Forwarding,
    /// Objects that cannot be read: what the host still has for them stays.
    pub(crate) keep: BTreeSet<ObjectRef>,
}

/// Somebody changed something on this machine.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Disturbance {
    /// The firewall, not by us.
    Firewall,
    /// Interfaces or addresses.
    Addresses,
}

/// What a host task tells the engine.
#[derive(Debug)]
pub(crate) enum Told {
    /// What was read about the host.
    Facts(HostView),
    /// A pass reached the desired state.
    Applied(Applied),
    /// A pass or a reading failed and will be tried again.
    Failed(String),
}

/// A pass that reached the desired state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Applied {
    /// The number of host ports forwarded.
    pub(crate) forwards: usize,
    /// The number of steps that the plan had; zero when there was nothing to do.
    pub(crate) steps: usize,
    /// Whether the wish was the same as before, so that the steps undid somebody else's change.
    pub(crate) drift: bool,
    /// From taking up the wish to the kernel's answer.
    pub(crate) took: Duration,
}

/// Why a pass failed.
#[derive(Debug, thiserror::Error)]
enum PassError {
    /// A command could not be run.
    #[error("{0}")]
    Execute(ExecuteError),
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

/// The way to one host and what is known about it.
pub(crate) struct HostTask {
    pub(crate) backend: Backend,
    pub(crate) executor: Box<dyn Executor>,
    /// How long a change may stand unconfirmed before the host takes it back.
    pub(crate) confirm: Option<Duration>,
    /// How often to look although nothing happened.
    pub(crate) resync: Duration,
    pub(crate) wish: watch::Receiver<Option<Arc<Wish>>>,
    pub(crate) disturbances: BoxStream<'static, Disturbance>,
    pub(crate) told: mpsc::Sender<Told>,
}

impl HostTask {
    /// Runs until the engine drops its end of `wish` or `told`; rules stay.
    pub(crate) async fn run(self) {
        let Self { backend, executor, confirm, resync, mut wish, mut disturbances, told } = self;
        let mut hand = Hand { backend, executor, confirm, observed: None, leftovers: true };
        let mut backoff = Backoff::default();
        let mut look_at_facts = true;
        let mut applied: Option<Arc<Wish>> = None;
        loop {
            let started = Instant::now();
            let outcome = hand.pass(&mut look_at_facts, &mut wish, &mut applied, &told).await;
            let wait = match outcome {
                Ok(()) => {
                    backoff.reset();
                    // Looking must stay cheap on hosts where looking is slow.
                    resync.max(started.elapsed() * 500)
                }
                Err(error) => {
                    hand.observed = None;
                    if told.send(Told::Failed(error.to_string())).await.is_err() {
                        return;
                    }
                    backoff.next(rand::random())
                }
            };
            tokio::select! {
                changed = wish.changed() => if changed.is_err() { return },
                Some(disturbance) = disturbances.next() => {
                    hand.observed = None;
                    look_at_facts |= disturbance == Disturbance::Addresses;
                }
                () = tokio::time::sleep(wait) => {
                    hand.observed = None;
                    look_at_facts = true;
                }
                () = told.closed() => return,
            }
        }
    }
}

/// What acts on the host and remembers what the kernel confirmed.
struct Hand {
    backend: Backend,
    executor: Box<dyn Executor>,
    confirm: Option<Duration>,
    /// The last listing plus every transaction confirmed since; `None` when in doubt.
    observed: Option<Observed>,
    /// Whether the other backend may still have rules of ours.
    leftovers: bool,
}

impl Hand {
    async fn pass(
        &mut self,
        look_at_facts: &mut bool,
        wish: &mut watch::Receiver<Option<Arc<Wish>>>,
        applied: &mut Option<Arc<Wish>>,
        told: &mpsc::Sender<Told>,
    ) -> Result<(), PassError> {
        if *look_at_facts {
            let facts = self.facts().await?;
            *look_at_facts = false;
            // The engine is gone when nobody listens; the loop notices.
            let _ = told.send(Told::Facts(facts)).await;
        }
        let Some(wished) = wish.borrow_and_update().clone() else { return Ok(()) };
        let same_wish = applied.as_ref().is_some_and(|it| Arc::ptr_eq(it, &wished));
        if same_wish && self.observed.is_some() {
            return Ok(());
        }
        let started = Instant::now();
        let steps = self.reach(&wished).await?;
        let took = started.elapsed();
        *applied = Some(wished.clone());
        let forwards = wished.forwarding.forwards.len();
        let report = Applied { forwards, steps, drift: same_wish && steps > 0, took };
        let _ = told.send(Told::Applied(report)).await;
        Ok(())
    }

    /// Reads addresses and listening sockets.
    async fn facts(&mut self) -> Result<HostView, PassError> {
        let addresses = self.checked(&firewall::observe::addresses()).await?;
        let mut facts = HostView::from_addresses(&addresses.stdout)
            .map_err(|error| PassError::Listing(error.to_string()))?;
        // Listeners only serve warnings: a host without `ss` is forwarded all the same.
        if let Ok(sockets) = self.executor.run(&firewall::observe::listeners()).await {
            facts.add_listeners(&sockets.stdout);
        }
        Ok(facts)
    }

    /// Brings the host to the wished state; returns how many steps that took.
    async fn reach(&mut self, wish: &Wish) -> Result<usize, PassError> {
        let observed = match self.observed.take() {
            Some(observed) => observed,
            None => self.observe(self.backend).await?,
        };
        let ruleset = self.backend.render(&wish.forwarding);
        let plan = self.backend.plan(&ruleset, &observed, &wish.keep);
        let steps = plan.len();
        if plan.is_empty() {
            self.observed = Some(observed);
        } else {
            self.apply(&plan, &observed).await?;
            let mut after = observed.clone();
            plan.apply_to(&mut after);
            self.forget_stale_flows(&observed, &after).await;
            self.observed = Some(after);
        }
        if self.leftovers {
            self.leftovers = !self.remove_leftovers().await;
        }
        Ok(steps)
    }

    async fn apply(&mut self, plan: &Plan, before: &Observed) -> Result<(), PassError> {
        tracing::debug!(%plan, "applying");
        let apply = plan.commands();
        let outputs = match self.confirm {
            Some(within) => {
                let rollback = plan.rollback(before);
                let change = ConfirmedChange { apply: apply.clone(), rollback, within };
                self.executor.run_confirmed(&change).await.map_err(PassError::Execute)?
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
    async fn forget_stale_flows(&mut self, before: &Observed, after: &Observed) {
        for command in firewall::conntrack::stale(before, after) {
            if let Err(error) = self.executor.run(&command).await {
                tracing::warn!(%command, %error, "cannot delete stale tracked connections");
                return;
            }
        }
    }

    /// Removes what the other backend left when the Host's backend was changed; true when that is
    /// settled.
    async fn remove_leftovers(&mut self) -> bool {
        let other = self.backend.other();
        let Ok(observed) = self.observe(other).await else { return true };
        if observed.is_empty() {
            return true;
        }
        for command in other.cleanup() {
            if let Err(error) = self.checked(&command).await {
                tracing::warn!(%command, %error, "cannot remove rules of the other backend");
                return false;
            }
        }
        true
    }

    async fn observe(&mut self, backend: Backend) -> Result<Observed, PassError> {
        let mut outputs = Vec::new();
        for command in backend.listing() {
            outputs.push(self.executor.run(&command).await.map_err(PassError::Execute)?);
        }
        backend.observe(&outputs).map_err(|error| PassError::Listing(error.to_string()))
    }

    async fn checked(&mut self, command: &Command) -> Result<Output, PassError> {
        let output = self.executor.run(command).await.map_err(PassError::Execute)?;
        check(command, &output)?;
        Ok(output)
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
