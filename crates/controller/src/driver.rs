//! One host from the engine's side: its plan, its task, and what the task told last.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::host::{Backend, HostSettings};
use api::object::ObjectRef;
use api::port::{Port, Protocol};
use planner::cluster_view::ClusterView;
use planner::desired::PortForwards;
use planner::forward::{Changed, HostDesired, NoPlan, StandingPlan};
use planner::host_view::HostView;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::host_task::{Applied, HostTask, Told};
use crate::reach::{self, Keys};
use crate::status::HostState;
use crate::wish::{News, Wish, Wishes, wishes};

/// Drives one host; dropping it stops the task and leaves the rules.
pub(crate) struct Driver {
    pub(crate) settings: Arc<HostSettings>,
    /// What the task read about the host; nothing is planned before.
    pub(crate) facts: Option<HostView>,
    /// What the task told last.
    pub(crate) state: HostState,
    /// Whether the last attempt reached the host, whatever came of it.
    pub(crate) reachable: bool,
    plan: StandingPlan,
    kept: (BTreeSet<ObjectRef>, bool),
    wishes: Wishes,
    /// Whether any wish was sent, so that the next can tell what is different.
    wished: bool,
    task: JoinHandle<()>,
}

impl Driver {
    /// Starts the task; it reads the host's facts first.
    pub(crate) fn start(
        settings: Arc<HostSettings>,
        keys: &Keys,
        resync: Duration,
        told: &mpsc::Sender<(String, Told)>,
    ) -> Self {
        let (wishes, inbox) = wishes();
        let task = HostTask {
            settings: Arc::clone(&settings),
            keys: keys.clone(),
            resync,
            wishes: inbox,
            told: told.clone(),
        };
        let backend = match settings.backend {
            Backend::Nftables => "nftables",
            Backend::Iptables => "iptables",
        };
        let state = HostState {
            backend: backend.to_owned(),
            executor: reach::describe(&settings),
            ..HostState::default()
        };
        let plan = StandingPlan::new(settings.name.as_str());
        let task = tokio::spawn(task.run());
        Self {
            settings,
            facts: None,
            state,
            reachable: false,
            plan,
            kept: Default::default(),
            wishes,
            wished: false,
            task,
        }
    }

    /// What the last plan decided.
    pub(crate) fn desired(&self) -> &HostDesired {
        self.plan.desired()
    }

    /// Brings the plan up to date and hands the wish to the task if anything changed.
    ///
    /// `unreadable` objects, or with `keep_all` every object, keep what the host has for them.
    /// `changed` is when the oldest change came that this plan is the first to cover.
    pub(crate) fn plan(
        &mut self,
        view: &ClusterView,
        unreadable: &BTreeSet<ObjectRef>,
        keep_all: bool,
        changed: Option<Instant>,
    ) -> Result<(), NoPlan> {
        let Some(facts) = &self.facts else { return Ok(()) };
        let planned = self.plan.update(view, facts)?;
        let desired = self.plan.desired();
        let keep: BTreeSet<_> = desired.unreadable.union(unreadable).cloned().collect();
        let kept = (keep, keep_all);
        let news = match planned {
            _ if !self.wished => News::Whole(Box::new(desired.forwarding.clone())),
            Changed::Nothing if kept == self.kept => return Ok(()),
            Changed::Nothing => News::Ports(PortForwards::new()),
            Changed::Ports(ports) => {
                let forwards = |(protocol, port): (Protocol, Port)| {
                    let at = desired.forwarding.at(protocol, port);
                    ((protocol, port), at.map(|(key, it)| (key, it.clone())).collect())
                };
                News::Ports(ports.into_iter().map(forwards).collect())
            }
            Changed::Everything => News::Whole(Box::new(desired.forwarding.clone())),
        };
        self.wishes.send(Wish { news, keep: kept.0.clone(), keep_all, changed });
        (self.kept, self.wished) = (kept, true);
        Ok(())
    }

    /// Notes a pass that reached the desired state.
    pub(crate) fn applied(&mut self, applied: &Applied) {
        let state = &mut self.state;
        if applied.steps > 0 || state.revision == 0 {
            state.revision += 1;
            state.last_applied = Some(applied.at);
        }
        state.forwards = applied.forwards;
        state.last_steps = applied.steps;
        state.last_pass_micros = u64::try_from(applied.took.as_micros()).unwrap_or(u64::MAX);
        if let Some(lag) = applied.lag {
            state.last_lag_micros = u64::try_from(lag.as_micros()).unwrap_or(u64::MAX);
        }
        state.drift_repaired += u64::from(applied.drift);
        state.last_error = None;
        self.reachable = true;
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.task.abort();
    }
}
