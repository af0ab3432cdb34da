//! Which host port leads where: cluster view and host view to the forwarding of one host.
//!
//! The whole answer is [`forward_plan`]; [`StandingPlan`] gives the same answer and keeps it, so
//! that one changed object costs only its own ports.

mod report;
mod settle;
mod standing;

use std::collections::BTreeSet;

use api::object::{ObjectKind, ObjectRef};

use crate::cluster_view::ClusterView;
use crate::desired::Forwarding;
use crate::finding::Finding;
use crate::host_view::HostView;

pub(crate) use settle::{Ground, settle};
pub use standing::{Changed, StandingPlan};
pub(crate) use standing::{enter, is_open, way_in};

/// What one host should do, and what to tell its users.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HostDesired {
    /// What the host should forward.
    pub forwarding: Forwarding,
    /// What is wrong, as far as it concerns this host; in order, none twice.
    pub findings: Vec<Finding>,
    /// Objects that cannot be understood now and that have no last good state here. What the host
    /// still forwards for them must stay.
    pub unreadable: BTreeSet<ObjectRef>,
}

/// Why there is no plan for a host. Nothing may be changed on it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NoPlan {
    /// Some kinds were never listed completely, so that what is missing may well exist.
    #[error("the cluster is not completely known yet: no list of {}", kinds(missing))]
    Incomplete {
        /// The kinds.
        missing: Vec<ObjectKind>,
    },
    /// No Host object has this name.
    #[error("there is no Host named `{name}`; the Hosts are: {}", names(known))]
    UnknownHost {
        /// The name.
        name: String,
        /// The names of all Hosts.
        known: Vec<String>,
    },
    /// The Host object cannot be understood, and never could.
    #[error("Host {name} cannot be understood: {}", problems(findings))]
    UnusableHost {
        /// The name.
        name: String,
        /// What is wrong with it.
        findings: Vec<Finding>,
    },
}

fn kinds(kinds: &[ObjectKind]) -> String {
    kinds.iter().map(|it| format!("{it}s")).collect::<Vec<_>>().join(", ")
}

fn names(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn problems(findings: &[Finding]) -> String {
    findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Decides what one host should forward.
///
/// The answer depends on nothing but the arguments; the order in which the view's changes came
/// does not matter, except that an object which cannot be understood keeps its last good state.
///
/// # Errors
///
/// Fails when the view is incomplete, or when there is no Host of this name that ever could be
/// understood. Whatever else users got wrong is in the findings.
pub fn forward_plan(
    view: &ClusterView,
    host: &str,
    facts: &HostView,
) -> Result<HostDesired, NoPlan> {
    let mut plan = StandingPlan::new(host);
    plan.update(view, facts)?;
    Ok(plan.into_desired())
}
