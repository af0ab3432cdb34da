//! Which public port leads where: what users ask of gateways to what each gateway listens on, who
//! answers, and what to tell everybody about it.
//!
//! Users ask in three ways: the Gateway API, Services of class `portcullis.dev/gateway`, and
//! annotations on Services. All become one [`Publication`]: for each EdgeGateway the ports that it
//! shall listen on, and for each backend key who answers. Gateways hear of ports and keys alone;
//! agents know what keys stand for. Every agent makes the same publication of the same objects.
//!
//! Nothing is decided here that depends on what gateways report; that only changes
//! [`statuses`].

mod attach;
mod attachment;
mod backend;
mod claim;
mod listeners;
mod out_of_reach;
mod place;
mod publication;
mod report;
mod services;
mod status;
mod table;
mod verdict;
mod view;

use std::collections::BTreeSet;

pub use attachment::Attachments;
pub use publication::{Alternative, Backend, ClientAddress, Endpoint, Publication, Target, TlsEnd};
pub use status::{GatewayObserved, Reachability, StatusPatch, keep_times, quota_finding, statuses};
pub use view::{PublishView, Support};

/// The type of the condition that tells whether a Service is published.
pub const PUBLISHED: &str = "portcullis.dev/Published";

/// Decides what every gateway shall listen on, and who answers.
///
/// The answer depends on nothing but the objects; the order in which they came does not matter,
/// except that an object which cannot be understood keeps its last good state. The view should be
/// [complete](PublishView::is_complete): what is missing from it is not published.
#[must_use]
pub fn plan(view: &PublishView) -> Publication {
    let mut findings = Vec::new();
    for edge in view.edges().values() {
        findings.extend(edge.findings.iter().cloned());
    }
    let mut listeners = listeners::Listeners::of(view, &mut findings);
    let routes = attach::Routes::attach(view, &mut listeners, &mut findings);
    let mut publication = Publication::default();
    let backends = &mut publication.backends;
    let mut services = services::of_services(view, backends);
    let mut claims = claim::of_gateways(view, &listeners, &routes, backends);
    claims.extend(services.values_mut().filter_map(|it| it.claim.take()));
    claims.sort_by(|a, b| a.rank().cmp(&b.rank()));
    let placement = place::place(view, &claims);
    findings.extend(services.values().flat_map(|it| it.findings.iter().cloned()));
    findings.extend(report::losses(&claims, &placement));
    publication.attachments =
        attachment::gather(view, &listeners, &routes, &services, &claims, &placement);
    for (name, places) in &placement.edges {
        publication.gateways.insert(name.clone(), table::ports(places, &claims));
    }
    publication.keep_only_led_to();
    publication.findings = findings.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
    publication
}
