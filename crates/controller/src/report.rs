//! What objects are told: the status of Hosts, what became of Services, findings.

use std::collections::{BTreeMap, BTreeSet};

use api::host::{Condition, HostStatus, NodeTarget};
use api::object::ObjectRef;
use cluster::report::{Report, ServiceReport};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use planner::cluster_view::ClusterView;
use planner::finding::{Finding, Severity};
use planner::status::{Outcome, announced, outcomes, service_addresses};

use crate::driver::Driver;

/// Gathers everything that is worth telling, from a complete view.
///
/// Only the leader speaks for Services and tells findings; every replica speaks for the Hosts that it
/// drives.
pub(crate) fn report(
    view: &ClusterView,
    drivers: &BTreeMap<String, Driver>,
    findings: &BTreeSet<Finding>,
    leader: bool,
) -> Report {
    let status = |(name, it): (&String, &Driver)| (name.clone(), host_status(view, name, it));
    Report {
        hosts: drivers.iter().map(status).collect(),
        services: leader.then(|| services(view, drivers)),
        findings: leader.then(|| findings.clone()),
    }
}

fn services(
    view: &ClusterView,
    drivers: &BTreeMap<String, Driver>,
) -> BTreeMap<ObjectRef, ServiceReport> {
    let facts = drivers.iter().filter_map(|(name, it)| Some((name, it.facts.as_ref()?)));
    let mut addresses = service_addresses(view, facts);
    let report = |(service, outcomes): (ObjectRef, Vec<Outcome>)| {
        let addresses = addresses.remove(&service);
        let forwarded = !outcomes.is_empty() && outcomes.iter().all(Outcome::is_complete);
        let partly = outcomes.iter().any(|it| it.forwarded > 0);
        let why_not = outcomes.iter().flat_map(|it| &it.why_not).map(|(reason, _)| *reason).next();
        let reason = match (forwarded, partly, why_not) {
            (true, ..) => "Forwarded",
            (false, true, _) => "PartlyForwarded",
            (false, false, Some(reason)) => reason,
            (false, false, None) => "NoHost",
        };
        let sentences: Vec<String> = outcomes.iter().map(ToString::to_string).collect();
        let message = match sentences.is_empty() {
            true => "no Host that this controller drives is meant for this Service; a Host that \
                     another controller drives tells in its own status what it does"
                .to_owned(),
            false => sentences.join("\n"),
        };
        (service, ServiceReport { forwarded, reason: reason.to_owned(), message, addresses })
    };
    outcomes(view, drivers.iter().map(|(name, it)| (name, it.desired())))
        .into_iter()
        .map(report)
        .collect()
}

fn host_status(view: &ClusterView, name: &str, driver: &Driver) -> HostStatus {
    let state = &driver.state;
    let generation = view.host_generation(name);
    let findings = &driver.desired().findings;
    let errors = findings.iter().filter(|it| it.severity == Severity::Error).count();
    let problem = state.last_error.clone();
    let applied = problem.is_none() && state.revision > 0;
    let conditions = [
        (Condition::Accepted, true, "Understood", "the object can be understood".to_owned()),
        (
            Condition::Reachable,
            driver.reachable,
            if driver.reachable { "Answered" } else { "NoAnswer" },
            problem.clone().unwrap_or_else(|| "the last attempt succeeded".to_owned()),
        ),
        (
            Condition::Applied,
            applied,
            if applied { "UpToDate" } else { "Behind" },
            problem
                .clone()
                .unwrap_or_else(|| format!("{} host ports are forwarded", state.forwards)),
        ),
        (
            Condition::NoFindings,
            findings.is_empty(),
            if findings.is_empty() { "AllUnderstood" } else { "SomeObjectsHaveProblems" },
            format!("{errors} errors and {} warnings", findings.len() - errors),
        ),
    ];
    let conditions = conditions.into_iter().map(|(kind, holds, reason, message)| meta::Condition {
        type_: kind.name().to_owned(),
        status: if holds { "True" } else { "False" }.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: generation,
        // The reporter knows; the same account twice is the same report.
        last_transition_time: meta::Time(Timestamp::UNIX_EPOCH),
    });
    let targets: Vec<NodeTarget> = view
        .active_nodes()
        .map(|(name, addresses)| NodeTarget {
            name: name.to_owned(),
            addresses: addresses.iter().map(ToString::to_string).collect(),
        })
        .collect();
    HostStatus {
        observed_generation: generation,
        conditions: conditions.collect(),
        applied_revision: (state.revision > 0).then(|| state.revision.to_string()),
        last_applied_time: state.last_applied.map(meta::Time),
        forwards: i64::try_from(state.forwards).ok(),
        addresses: addresses(view, name, driver),
        drift: i64::try_from(state.drift_repaired).ok(),
        last_error: problem,
        nodes: i64::try_from(targets.len()).ok(),
        node_targets: targets,
    }
}

/// Where clients reach the host. Another controller, which does not know the host itself, tells
/// Services so.
fn addresses(view: &ClusterView, name: &str, driver: &Driver) -> Vec<String> {
    let known = view.host(name).zip(driver.facts.as_ref());
    let addresses = known.map(|(settings, facts)| announced(settings, facts)).unwrap_or_default();
    addresses.iter().map(ToString::to_string).collect()
}
