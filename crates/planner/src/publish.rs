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

mod publication;
mod status;
mod view;

pub use publication::{
    Alternative, Attachments, Backend, ClientAddress, Endpoint, Publication, Target,
};
pub use status::{GatewayObserved, Reachability, StatusPatch, keep_times, statuses};
pub use view::{PublishView, Support};

/// Decides what every gateway shall listen on, and who answers.
///
/// The answer depends on nothing but the objects; the order in which they came does not matter,
/// except that an object which cannot be understood keeps its last good state. The view should be
/// [complete](PublishView::is_complete): what is missing from it is not published.
#[must_use]
pub fn plan(_view: &PublishView) -> Publication {
    Publication::default()
}
