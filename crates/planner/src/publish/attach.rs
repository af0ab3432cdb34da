//! Which routes attach to which listeners.

use std::collections::{BTreeMap, BTreeSet};

use api::gateway_api::{GROUP, ParentReference};
use api::object::{ObjectKind, ObjectRef};
use api::server_name::ServerName;

use super::backend::{Resolved, resolve};
use super::listeners::{ListenerState, Listeners, Speaks};
use super::verdict::Verdict;
use super::view::{Key, PublishView, RouteForm};
use crate::finding::Finding;

/// Every route that names a Gateway or ListenerSet of ours, and where it is attached.
#[derive(Debug, Default)]
pub(super) struct Routes<'a> {
    pub(super) all: BTreeMap<&'a ObjectRef, RouteState<'a>>,
    /// By the index of the listener: the accepted routes, oldest first.
    pub(super) at: BTreeMap<usize, Vec<Attached<'a>>>,
}

/// A route.
#[derive(Debug)]
pub(super) struct RouteState<'a> {
    pub(super) form: &'a RouteForm,
    pub(super) parents: Vec<ParentState<'a>>,
    pub(super) resolved: Resolved,
}

/// What one of its parents thinks of a route.
#[derive(Debug)]
pub(super) struct ParentState<'a> {
    pub(super) reference: &'a ParentReference,
    pub(super) accepted: Verdict,
}

/// A route at a listener.
#[derive(Clone, Debug)]
pub(super) struct Attached<'a> {
    pub(super) route: &'a ObjectRef,
    /// For which names; never empty.
    pub(super) names: BTreeSet<ServerName>,
}

impl<'a> Routes<'a> {
    /// Attaches every route, and counts them at their listeners.
    pub(super) fn attach(
        view: &'a PublishView,
        listeners: &mut Listeners<'a>,
        findings: &mut Vec<Finding>,
    ) -> Self {
        let mut routes = Self::default();
        let mut order: Vec<_> = view.routes().iter().collect();
        order.sort_by_key(|(route, form)| {
            (form.meta.created, &route.namespace, &route.name, route.kind)
        });
        for (route, form) in order {
            let mut parents = Vec::new();
            let mut attached: BTreeMap<usize, BTreeSet<ServerName>> = BTreeMap::new();
            for reference in &form.parents {
                let Some(own) = listeners_of(listeners, route, reference) else { continue };
                let verdict = match attach(view, listeners, route, form, reference, &own) {
                    Ok(at) => {
                        let message = not_served(listeners, &at);
                        for (listener, names) in at {
                            attached.entry(listener).or_default().extend(names);
                        }
                        Verdict::yes("Accepted").with(message)
                    }
                    Err((reason, message)) => Verdict::no(reason, message),
                };
                parents.push(ParentState { reference, accepted: verdict });
            }
            if parents.is_empty() {
                continue;
            }
            findings.extend(form.annotated.findings.iter().cloned());
            for (listener, names) in attached {
                listeners.all[listener].attached += 1;
                routes.at.entry(listener).or_default().push(Attached { route, names });
            }
            let resolved = resolve(view, route, form, findings);
            routes.all.insert(route, RouteState { form, parents, resolved });
        }
        routes
    }
}

/// The listeners of the parent that a route names; `None` when it is none of ours.
fn listeners_of(
    listeners: &Listeners<'_>,
    route: &ObjectRef,
    reference: &ParentReference,
) -> Option<Vec<usize>> {
    if reference.group.as_deref().unwrap_or(GROUP) != GROUP {
        return None;
    }
    let namespace = reference.namespace.as_ref().or(route.namespace.as_ref());
    let key: Key = (namespace.cloned().unwrap_or_default(), reference.name.clone());
    let own = match reference.kind.as_deref().unwrap_or("Gateway") {
        "Gateway" => listeners.gateways.get(&key)?.own.clone(),
        "ListenerSet" => listeners.sets.get(&key)?.own.clone(),
        _ => return None,
    };
    Some(own.collect())
}

/// A listener, and the names that a route is for there.
type At = (usize, BTreeSet<ServerName>);

/// The listeners that a route attaches to by one reference, with the names it is for there.
fn attach(
    view: &PublishView,
    listeners: &Listeners<'_>,
    route: &ObjectRef,
    form: &RouteForm,
    reference: &ParentReference,
    own: &[usize],
) -> Result<Vec<At>, (&'static str, String)> {
    let listener = |index: &usize| &listeners.all[*index];
    let section = reference.section_name.as_ref().filter(|it| !it.is_empty());
    let meant = |it: &ListenerState<'_>| {
        let port = it.form.port.map(|it| i32::from(it.get()));
        section.is_none_or(|name| *name == it.form.name)
            && reference.port.is_none_or(|it| Some(it) == port)
    };
    let meant: Vec<_> = own.iter().copied().filter(|it| meant(listener(it))).collect();
    if meant.is_empty() {
        let name = section.map(|it| format!(" named {it}")).unwrap_or_default();
        let port = reference.port.map(|it| format!(" with port {it}")).unwrap_or_default();
        let parent = &reference.name;
        let message =
            format!("parent {parent} has no listener{name}{port}; name one of its listeners");
        return Err(("NoMatchingParent", message));
    }
    let namespace = route.namespace.as_deref().unwrap_or_default();
    let labels = view.labels(namespace);
    let allows = |it: &ListenerState<'_>| {
        let own = it.owner.namespace.as_deref().unwrap_or_default();
        it.kinds.contains(&route.kind) && it.form.from.allows(own, namespace, labels)
    };
    let allowed: Vec<_> = meant.into_iter().filter(|it| allows(listener(it))).collect();
    if allowed.is_empty() {
        let kind = route.kind;
        let message = format!(
            "no listener of parent {} takes a {kind} from namespace {namespace}; see allowedRoutes \
             there",
            reference.name
        );
        return Err(("NotAllowedByListeners", message));
    }
    let names = names(route, form);
    let matching: Vec<_> = allowed
        .into_iter()
        .filter_map(|index| {
            let own = listener(&index).name();
            let both: BTreeSet<_> = names.iter().filter_map(|it| it.intersection(own)).collect();
            (!both.is_empty()).then_some((index, both))
        })
        .collect();
    if matching.is_empty() {
        let names = form.hostnames.join(", ");
        let message = format!(
            "no listener of parent {} has a hostname that one of spec.hostnames ({names}) matches; \
             name hosts of a listener, or change the listener's hostname",
            reference.name
        );
        return Err(("NoMatchingListenerHostname", message));
    }
    if let Some(unsupported) = &form.unsupported {
        return Err(("UnsupportedValue", unsupported.clone()));
    }
    if form.annotated.wish.is_none() {
        return Err((
            "UnsupportedValue",
            "its annotations cannot be understood; its Events say which".to_owned(),
        ));
    }
    if matching.iter().all(|(index, names)| !serves(listener(index), names)) {
        return Err(("UnsupportedValue", not_served(listeners, &matching)));
    }
    Ok(matching)
}

/// Whether a listener can lead connections by a route that is for these names there: where names
/// stand in requests alone, it cannot.
pub(super) fn serves(listener: &ListenerState<'_>, names: &BTreeSet<ServerName>) -> bool {
    listener.speaks != Some(Speaks::Http)
        || (!listener.needs_host && names.contains(&ServerName::Any))
}

/// Which of these listeners lead nowhere by the route, and why; empty when all serve it.
fn not_served(listeners: &Listeners<'_>, at: &[At]) -> String {
    let at = at.iter().map(|(index, names)| (&listeners.all[*index], names));
    let without: Vec<_> =
        at.filter(|(it, names)| !serves(it, names)).map(|(it, _)| it.form.name.as_str()).collect();
    match without.is_empty() {
        true => String::new(),
        false => format!("not served by listener {}: {BY_HOST}", without.join(", ")),
    }
}

/// Why names do not lead anywhere where they stand in requests.
pub(super) const BY_HOST: &str = "only a look into each request could tell host names apart, and \
                                  connections of protocol HTTP are forwarded unread; use protocol \
                                  HTTPS, or leave out the hostnames";

/// The names that a route is for; what is no host name is for nobody.
fn names(route: &ObjectRef, form: &RouteForm) -> Vec<ServerName> {
    let named = matches!(route.kind, ObjectKind::TlsRoute | ObjectKind::HttpRoute);
    if !named || form.hostnames.is_empty() {
        return vec![ServerName::Any];
    }
    form.hostnames.iter().filter_map(|it| it.parse().ok()).collect()
}
