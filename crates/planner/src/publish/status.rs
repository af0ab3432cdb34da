//! What to write into the statuses of objects.

mod edge;
mod gateway_api;
mod live;
mod quota;
mod service;

use std::collections::BTreeMap;

use api::edge_gateway::EdgeGatewayStatus;
use api::gateway_api::{GatewayClassStatus, GatewayStatus, ListenerSetStatus, RouteParentStatus};
use api::object::{ObjectKind, ObjectRef};
use k8s_openapi::api::core::v1::LoadBalancerIngress;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use tunnel_proto::message::Report;

use super::publication::Publication;
use super::verdict::Verdict;
use live::Live;
pub use quota::quota_finding;

/// What is known of one gateway, by its name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GatewayObserved {
    /// Whether at least one agent has a session with it now, as far as is known.
    pub connected: bool,
    /// Its newest report; kept while it is not connected, for what it counted.
    pub report: Option<Report>,
    /// When that report came, for times that it tells as ages.
    pub reported_at: Option<Timestamp>,
    /// Whether it holds a certificate of this cluster; `None` when nobody knows.
    pub adopted: Option<bool>,
    /// Whether its public ports answer; `None` when nobody tried.
    pub reachable: Option<Reachability>,
    /// The version of its program.
    pub version: Option<String>,
    /// Why it is not connected, for people.
    pub last_error: Option<String>,
}

/// Whether the public ports of a gateway answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reachability {
    /// Whether they do.
    pub reachable: bool,
    /// The hop that fails, as one word in UpperCamelCase.
    pub reason: String,
    /// What was tried and what came of it, for people.
    pub message: String,
}

/// What the status of one object shall say.
///
/// `lastTransitionTime` of conditions is the beginning of 1970 throughout; see [`keep_times`].
/// Conditions of other types, and what other controllers say about routes, must be left as they
/// are.
#[derive(Clone, Debug, PartialEq)]
pub enum StatusPatch {
    /// Of a GatewayClass of ours.
    GatewayClass {
        /// Its name.
        name: String,
        /// All of it.
        status: GatewayClassStatus,
    },
    /// Of a Gateway of ours.
    Gateway {
        /// The object.
        object: ObjectRef,
        /// All of it.
        status: GatewayStatus,
    },
    /// Of a ListenerSet of a Gateway of ours.
    ListenerSet {
        /// The object.
        object: ObjectRef,
        /// All of it.
        status: ListenerSetStatus,
    },
    /// Of a route that names a Gateway of ours, or that did.
    Route {
        /// The object, of kind `TCPRoute`, `UDPRoute`, `TLSRoute` or `HTTPRoute`.
        object: ObjectRef,
        /// Every entry with our name; entries with our name that are not here are removed.
        parents: Vec<RouteParentStatus>,
    },
    /// Of a Service that asks to be published, or that did.
    Service {
        /// The object.
        object: ObjectRef,
        /// `status.loadBalancer.ingress`, for Services of our class; `None` leaves it as it is.
        ingress: Option<Vec<LoadBalancerIngress>>,
        /// Our condition; `None` removes it.
        condition: Option<Condition>,
    },
    /// Of an EdgeGateway.
    EdgeGateway {
        /// Its name.
        name: String,
        /// All of it.
        status: EdgeGatewayStatus,
    },
}

impl StatusPatch {
    /// The object whose status it is.
    #[must_use]
    pub fn object(&self) -> ObjectRef {
        match self {
            Self::GatewayClass { name, .. } => ObjectRef::cluster(ObjectKind::GatewayClass, name),
            Self::EdgeGateway { name, .. } => ObjectRef::cluster(ObjectKind::EdgeGateway, name),
            Self::Gateway { object, .. }
            | Self::ListenerSet { object, .. }
            | Self::Route { object, .. }
            | Self::Service { object, .. } => object.clone(),
        }
    }
}

/// Gives conditions their times: that of the condition that is there if its status is the same,
/// `now` otherwise.
pub fn keep_times(conditions: &mut [Condition], there: &[Condition], now: Timestamp) {
    for condition in conditions {
        let same =
            there.iter().find(|it| it.type_ == condition.type_ && it.status == condition.status);
        condition.last_transition_time =
            same.map_or(Time(now), |it| it.last_transition_time.clone());
    }
}

/// What the statuses of all objects shall say; in the order of the kinds, then of the objects.
///
/// `observed` is what is known of gateways, by name; one that is missing counts as not connected.
#[must_use]
pub fn statuses(
    publication: &Publication,
    observed: &BTreeMap<String, GatewayObserved>,
) -> Vec<StatusPatch> {
    let attachments = &publication.attachments;
    let live = Live::new(attachments, observed);
    let mut patches = Vec::new();
    for it in &attachments.services {
        patches.push(service::patch(it, &live));
    }
    for it in &attachments.classes {
        patches.push(gateway_api::class(it, attachments));
    }
    for it in &attachments.gateways {
        patches.push(gateway_api::gateway(it, &live));
    }
    for it in &attachments.sets {
        patches.push(gateway_api::listener_set(it, &live));
    }
    for it in &attachments.routes {
        patches.push(gateway_api::route(it));
    }
    for (name, it) in &attachments.edges {
        let ports = publication.gateways.get(name).map_or(&[][..], |it| it.as_slice());
        patches.push(edge::patch(name, it, ports, observed.get(name)));
    }
    patches
}

/// A condition without its time.
fn condition(type_: &str, generation: Option<i64>, verdict: &Verdict) -> Condition {
    Condition {
        type_: type_.to_owned(),
        status: if verdict.is_true { "True" } else { "False" }.to_owned(),
        reason: verdict.reason.to_owned(),
        message: shortened(&verdict.message),
        observed_generation: generation,
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
    }
}

/// The API server refuses messages of more than 32768 characters; nobody reads half as much.
fn shortened(message: &str) -> String {
    const LONGEST: usize = 2_000;
    match message.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message.to_owned(),
    }
}
