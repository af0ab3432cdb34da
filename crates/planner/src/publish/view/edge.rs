//! Reading EdgeGateways.

use std::sync::Arc;

use api::edge_gateway::{EdgeGateway, EdgeGatewaySettings};
use api::object::{ObjectKind, ObjectRef};
use api::problem::Problem;

use super::object::{Meta, finding};
use crate::finding::Finding;

/// What is kept of an EdgeGateway.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Edge {
    pub(crate) meta: Meta,
    /// When it could last be understood; `None` when it never could.
    pub(crate) settings: Option<Arc<EdgeGatewaySettings>>,
    /// What is wrong with it now.
    pub(crate) problems: Vec<Problem>,
    pub(crate) findings: Vec<Finding>,
}

pub(super) fn read(edge: &EdgeGateway, before: Option<&Edge>) -> Edge {
    let name = edge.metadata.name.as_deref().unwrap_or_default();
    let object = ObjectRef::cluster(ObjectKind::EdgeGateway, name);
    let (settings, problems) = match edge.settings() {
        Ok(settings) => (Some(Arc::new(settings)), Vec::new()),
        Err(problems) => (before.and_then(|it| it.settings.clone()), problems),
    };
    let consequence = match &settings {
        Some(_) => "; its last good state stays in effect",
        None => "; nothing is published on it",
    };
    let findings = problems.iter().map(|it| finding(&object, it.clone(), consequence)).collect();
    Edge { meta: Meta::read(&edge.metadata), settings, problems, findings }
}
