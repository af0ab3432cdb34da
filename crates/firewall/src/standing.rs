//! A ruleset that follows its forwarding, beside what the host was observed to have.
//!
//! Ten thousand host ports of which one changes are neither rendered nor compared again: where
//! the two were equal, and neither has changed since, they are equal still. That is remembered
//! only as long as it is certain.

use std::collections::BTreeSet;
use std::net::IpAddr;

use api::object::ObjectRef;
use command::Command;
use planner::desired::{Forwarding, PortForwards};

use crate::backend::{Backend, Observed, Plan, Ruleset, plan_within};
use crate::conntrack;
use crate::nftables::render::{ports_are_apart, render_ports};
use crate::nftables::scope::{Scope, Touched};

/// The ruleset that one host should have, and what it was observed to have.
///
/// [`plan`](Self::plan) gives exactly what [`Backend::plan`] gives for both. What it costs depends
/// on what changed since they were last equal: a few host ports cost no more than themselves.
/// Everything is compared after a new observation, while anything is kept, and with options that
/// tie host ports together; with iptables always.
#[derive(Clone, Debug)]
pub struct StandingRuleset {
    backend: Backend,
    forwarding: Forwarding,
    ruleset: Ruleset,
    keep: BTreeSet<ObjectRef>,
    keep_all: bool,
    observed: Option<Observed>,
    /// Where `ruleset` and `observed` may differ.
    scope: Scope,
}

impl StandingRuleset {
    /// A ruleset that does what `forwarding` says, of a host that was not observed yet.
    #[must_use]
    pub fn new(backend: Backend, forwarding: Forwarding) -> Self {
        let ruleset = backend.render(&forwarding);
        let (keep, keep_all) = (BTreeSet::new(), false);
        let (observed, scope) = (None, Scope::Everywhere);
        Self { backend, forwarding, ruleset, keep, keep_all, observed, scope }
    }

    /// What the host should forward.
    #[must_use]
    pub fn forwarding(&self) -> &Forwarding {
        &self.forwarding
    }

    /// Takes another forwarding in the place of the present one.
    pub fn replace(&mut self, forwarding: Forwarding) {
        self.forwarding = forwarding;
        self.render();
    }

    /// Takes other forwards for some host ports; all else stays as it is.
    pub fn replace_ports(&mut self, ports: PortForwards) {
        let keys: BTreeSet<_> = ports.keys().copied().collect();
        self.forwarding.replace(ports);
        match &mut self.ruleset.nftables {
            Some(table) if ports_are_apart(&self.forwarding) => {
                let mut touched = Touched::default();
                render_ports(table, &self.forwarding, &keys, &mut touched);
                self.scope.extend(touched);
            }
            Some(_) | None => self.render(),
        }
    }

    /// Names the owners for which whatever the host still forwards stays, unless another object
    /// wants the host port; with `all`, that is everyone.
    pub fn keep(&mut self, owners: BTreeSet<ObjectRef>, all: bool) {
        if (&self.keep, self.keep_all) != (&owners, all) {
            (self.keep, self.keep_all) = (owners, all);
            self.scope = Scope::Everywhere;
        }
    }

    /// What the host has: what was read, and what was confirmed since.
    #[must_use]
    pub fn observed(&self) -> Option<&Observed> {
        self.observed.as_ref()
    }

    /// Takes what was read from the host.
    pub fn observe(&mut self, observed: Observed) {
        self.observed = Some(observed);
        self.scope = Scope::Everywhere;
    }

    /// Forgets what the host has, as somebody may have changed it.
    pub fn doubt(&mut self) {
        self.observed = None;
        self.scope = Scope::Everywhere;
    }

    /// Returns what brings the host to the ruleset; [`None`] while nobody knows what it has.
    #[must_use]
    pub fn plan(&self) -> Option<Plan> {
        let observed = self.observed.as_ref()?;
        if self.keeps_nothing() {
            return Some(plan_within(&self.ruleset, observed, &self.scope));
        }
        let mut keep = self.keep.clone();
        if self.keep_all {
            keep.extend(observed.owners());
        }
        Some(self.backend.plan(&self.ruleset, observed, &keep))
    }

    /// Returns the commands of [`conntrack::stale`] for a plan that was made last and that is not
    /// [confirmed](Self::confirm) yet.
    #[must_use]
    pub fn stale_flows(&self, plan: &Plan, addresses: &BTreeSet<IpAddr>) -> Vec<Command> {
        let before = match &self.observed {
            Some(before) if !plan.is_empty() => before,
            Some(_) | None => return Vec::new(),
        };
        match &self.scope {
            Scope::Everywhere => {
                let mut after = before.clone();
                plan.apply_to(&mut after);
                conntrack::stale(before, &after, addresses)
            }
            Scope::Within(touched) => {
                let tables = (before.nftables.as_ref(), self.ruleset.nftables.as_ref());
                conntrack::stale_at(tables.0, tables.1, &touched.ports, addresses)
            }
        }
    }

    /// Notes that the host has taken the plan that was made last, wholly.
    pub fn confirm(&mut self, plan: &Plan) {
        let Some(observed) = &mut self.observed else { return };
        plan.apply_to(observed);
        if self.keeps_nothing() {
            self.scope = Scope::Within(Touched::default());
        }
    }

    fn keeps_nothing(&self) -> bool {
        self.keep.is_empty() && !self.keep_all
    }

    fn render(&mut self) {
        self.ruleset = self.backend.render(&self.forwarding);
        self.scope = Scope::Everywhere;
    }
}
