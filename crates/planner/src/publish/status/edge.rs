//! The status of EdgeGateways.

use std::collections::BTreeMap;

use api::edge_gateway::{
    AgentStatus, BytesStatus, Condition as EdgeCondition, EdgeGatewayStatus, QuotaStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tunnel_proto::message::{PortState, PublishedPort, QuotaReport, Report, SessionReport};

use super::{GatewayObserved, StatusPatch, condition, quota};
use crate::publish::attachment::EdgeAttachment;
use crate::publish::verdict::Verdict;

pub(super) fn patch(
    name: &str,
    edge: &EdgeAttachment,
    ports: &[PublishedPort],
    observed: Option<&GatewayObserved>,
) -> StatusPatch {
    let nothing = GatewayObserved::default();
    let observed = observed.unwrap_or(&nothing);
    let report = observed.report.as_ref();
    let now = report.filter(|_| observed.connected);
    let agents = now.map_or_else(Vec::new, |it| agents(it, observed.reported_at));
    let status = EdgeGatewayStatus {
        observed_generation: edge.generation,
        conditions: conditions(edge, ports, observed),
        connected_agents: Some(count(agents.len())),
        agents,
        published_ports: now
            .map(|it| count(it.ports.iter().filter(|it| it.state == PortState::Listening).count())),
        bytes: report.map(|it| BytesStatus {
            received: bytes(it.ports.iter().map(|it| it.received)),
            sent: bytes(it.ports.iter().map(|it| it.sent)),
        }),
        quota: report.and_then(|it| it.quota).map(traffic),
        version: observed.version.clone(),
    };
    StatusPatch::EdgeGateway { name: name.to_owned(), status }
}

fn conditions(
    edge: &EdgeAttachment,
    ports: &[PublishedPort],
    observed: &GatewayObserved,
) -> Vec<Condition> {
    let accepted = match edge.problems.is_empty() {
        true => Verdict::yes("Accepted"),
        false => Verdict::no("InvalidValue", edge.problems.join("; ")),
    };
    let error = observed.last_error.as_deref();
    let connected = match observed.connected {
        true => Verdict::yes("Connected"),
        false => {
            let message = error.map(|it| format!("no agent is connected: {it}"));
            let message = message.unwrap_or_else(|| "no agent is connected".to_owned());
            Verdict::no("NotConnected", message)
        }
    };
    let adopted = match (observed.connected, observed.adopted) {
        (true, _) | (false, Some(true)) => Some(Verdict::yes("Adopted")),
        (false, Some(false)) => Some(Verdict::no(
            "NotAdopted",
            error.unwrap_or("it holds no certificate of this cluster"),
        )),
        (false, None) => None,
    };
    let (listening, wrong) = wanted(ports, observed.report.as_ref());
    let available = match observed.connected {
        false => connected.clone(),
        true if listening || ports.is_empty() => Verdict::yes("Available"),
        true => Verdict::no("NothingPublished", wrong.join("; ")),
    };
    let ready = match (&accepted, &connected) {
        (accepted, _) if !accepted.is_true => {
            Verdict::no(accepted.reason, "the object cannot be understood; see Accepted")
        }
        (_, connected) if !connected.is_true => connected.clone(),
        _ if wrong.is_empty() => Verdict::yes("Ready"),
        _ => Verdict::no("PortsMissing", wrong.join("; ")),
    };
    let reachable = observed.reachable.as_ref();
    let generation = edge.generation;
    let known = |it: EdgeCondition, verdict: &Verdict| condition(it.name(), generation, verdict);
    let unknown = |it: EdgeCondition, message: &str| Condition {
        status: "Unknown".to_owned(),
        ..condition(it.name(), generation, &Verdict::no("Unknown", message))
    };
    let mut conditions = vec![
        known(EdgeCondition::Accepted, &accepted),
        match &adopted {
            Some(it) => known(EdgeCondition::Adopted, it),
            None => unknown(EdgeCondition::Adopted, error.unwrap_or("it was never reached")),
        },
        known(EdgeCondition::Connected, &connected),
        known(EdgeCondition::Available, &available),
        known(EdgeCondition::Ready, &ready),
        match reachable {
            Some(it) => Condition {
                reason: it.reason.clone(),
                ..known(
                    EdgeCondition::Reachable,
                    &Verdict { is_true: it.reachable, reason: "", message: it.message.clone() },
                )
            },
            None => unknown(EdgeCondition::Reachable, "nobody tried its public ports"),
        },
    ];
    let quota = observed.report.as_ref().and_then(|it| it.quota);
    conditions.extend(quota.map(|it| known(EdgeCondition::WithinQuota, &quota::verdict(&it))));
    conditions
}

/// Whether any of the ports is listened on, and what is wrong with the others.
fn wanted(ports: &[PublishedPort], report: Option<&Report>) -> (bool, Vec<String>) {
    let reported = report.into_iter().flat_map(|it| &it.ports);
    let states: BTreeMap<_, _> =
        reported.map(|it| ((it.address, it.protocol, it.port), &it.state)).collect();
    let (mut listening, mut wrong) = (false, Vec::new());
    for port in ports {
        let why = match states.get(&(port.address, port.protocol, port.port)) {
            Some(PortState::Listening) => {
                listening = true;
                continue;
            }
            None => "not reported yet".to_owned(),
            Some(PortState::NotGranted(why)) => format!("not granted: {why}"),
            Some(PortState::InUse(who)) => format!("in use: {who}"),
            Some(PortState::Failed(why)) => why.clone(),
        };
        wrong.push(format!("port {} of {}: {why}", port.port, port.owner));
    }
    (listening, wrong)
}

/// The agents, in the order of their names; of several sessions of one agent the youngest.
fn agents(report: &Report, at: Option<Timestamp>) -> Vec<AgentStatus> {
    let mut youngest: BTreeMap<&str, &SessionReport> = BTreeMap::new();
    for session in &report.sessions {
        let known = youngest.entry(&session.agent).or_insert(session);
        if session.age_seconds < known.age_seconds {
            *known = session;
        }
    }
    let agent = |it: &SessionReport| AgentStatus {
        name: it.agent.clone(),
        node: it.node.clone(),
        carrier: it.carrier.clone(),
        round_trip_microseconds: Some(signed(it.round_trip_us)).filter(|it| *it > 0),
        flows: signed(it.flows),
        since: at.and_then(|at| since(at, it.age_seconds)),
    };
    youngest.into_values().map(agent).collect()
}

/// When something began that is so old, to the minute: an age is told in whole seconds, and what
/// is computed from it would change with every report.
fn since(at: Timestamp, age: u64) -> Option<Time> {
    let began = at.checked_sub(SignedDuration::from_secs(signed(age))).ok()?;
    Timestamp::from_second(began.as_second() - began.as_second().rem_euclid(60)).ok().map(Time)
}

fn traffic(quota: QuotaReport) -> QuotaStatus {
    QuotaStatus {
        used_bytes: signed(quota.used),
        limit_bytes: signed(quota.limit),
        resets_at: Timestamp::from_second(signed(quota.resets_at)).ok().map(Time),
    }
}

fn bytes(counters: impl Iterator<Item = u64>) -> i64 {
    signed(counters.fold(0, u64::saturating_add))
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
