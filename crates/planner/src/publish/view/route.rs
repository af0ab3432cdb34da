//! Reading TCPRoutes, UDPRoutes, TLSRoutes and HTTPRoutes.

use api::gateway_api::{
    BackendRef, CONTROLLER_NAME, HttpRoute, HttpRouteRule, ParentReference, RouteRule, RouteStatus,
    TcpRoute, TlsRoute, UdpRoute,
};
use api::object::ObjectKind;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::object::{Annotated, Meta};
use crate::object::reference;

/// What is kept of a route.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RouteForm {
    pub(crate) meta: Meta,
    pub(crate) parents: Vec<ParentReference>,
    /// Which names it is for, as written; empty for all.
    pub(crate) hostnames: Vec<String>,
    pub(crate) backends: Vec<BackendRef>,
    /// What it asks for that is not done here.
    pub(crate) unsupported: Option<String>,
    pub(crate) annotated: Annotated,
    /// Whether its status holds something of ours.
    pub(crate) told: bool,
}

pub(super) fn read_tcp(route: &TcpRoute, before: Option<&RouteForm>) -> RouteForm {
    let (parents, rules) = (&route.spec.parent_refs, &route.spec.rules);
    read(ObjectKind::TcpRoute, &route.metadata, parents, &[], rules, route.status.as_ref(), before)
}

pub(super) fn read_udp(route: &UdpRoute, before: Option<&RouteForm>) -> RouteForm {
    let (parents, rules) = (&route.spec.parent_refs, &route.spec.rules);
    read(ObjectKind::UdpRoute, &route.metadata, parents, &[], rules, route.status.as_ref(), before)
}

pub(super) fn read_tls(route: &TlsRoute, before: Option<&RouteForm>) -> RouteForm {
    let (kind, spec) = (ObjectKind::TlsRoute, &route.spec);
    let (names, status) = (&spec.hostnames, route.status.as_ref());
    read(kind, &route.metadata, &spec.parent_refs, names, &spec.rules, status, before)
}

pub(super) fn read_http(route: &HttpRoute, before: Option<&RouteForm>) -> RouteForm {
    let (kind, spec) = (ObjectKind::HttpRoute, &route.spec);
    let rules: Vec<_> = spec.rules.iter().map(|it| rule_of(&it.backend_refs)).collect();
    let (names, status) = (&spec.hostnames, route.status.as_ref());
    let form = read(kind, &route.metadata, &spec.parent_refs, names, &rules, status, before);
    let unsupported = spec.rules.iter().find_map(looks_into_requests);
    RouteForm { unsupported: form.unsupported.or(unsupported), ..form }
}

fn rule_of(backends: &[BackendRef]) -> RouteRule {
    RouteRule { name: None, backend_refs: backends.to_vec() }
}

fn read(
    kind: ObjectKind,
    metadata: &ObjectMeta,
    parents: &[ParentReference],
    hostnames: &[String],
    rules: &[RouteRule],
    status: Option<&RouteStatus>,
    before: Option<&RouteForm>,
) -> RouteForm {
    let object = reference(kind, metadata);
    let said = status.into_iter().flat_map(|it| &it.parents);
    RouteForm {
        meta: Meta::read(metadata),
        parents: parents.to_vec(),
        hostnames: hostnames.to_vec(),
        backends: rules.first().map(|it| it.backend_refs.clone()).unwrap_or_default(),
        unsupported: (rules.len() > 1)
            .then(|| "it has more than one rule, and connections can follow only one".to_owned()),
        annotated: Annotated::read(&object, metadata, Vec::new(), before.map(|it| &it.annotated)),
        told: said.into_iter().any(|it| it.controller_name == CONTROLLER_NAME),
    }
}

/// What in a rule needs a look into requests; connections are forwarded unread.
fn looks_into_requests(rule: &HttpRouteRule) -> Option<String> {
    let every_path = json!({ "type": "PathPrefix", "value": "/" });
    let every = |path: &Value| *path == every_path;
    let matches = rule
        .matches
        .iter()
        .any(|it| !it.rest.is_empty() || it.path.as_ref().is_some_and(|path| !every(path)));
    let filters =
        !rule.filters.is_empty() || rule.backend_refs.iter().any(|it| !it.filters.is_empty());
    let what = match (matches, filters, rule.rest.keys().find(|it| *it != "name")) {
        (true, _, _) => "matches".to_owned(),
        (_, true, _) => "filters".to_owned(),
        (_, _, Some(other)) => other.clone(),
        (_, _, None) => return None,
    };
    Some(format!("`{what}` needs a look into requests, and connections are forwarded unread"))
}
