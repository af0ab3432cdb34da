//! What became of each object, kept for its status.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::gateway_api::ParentReference;
use api::object::{ObjectKind, ObjectRef};
use api::port::{Port, Protocol};

use super::attach::Routes;
use super::claim::Claim;
use super::listeners::{ListenerState, Listeners, accept_class};
use super::place::{Loss, Placement};
use super::report;
use super::services::ServiceState;
use super::verdict::Verdict;
use super::view::{PublishView, Support, object};

/// What became of each object, as far as the objects decide. Read by
/// [`statuses`](super::statuses).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attachments {
    pub(super) support: Support,
    pub(super) bundle: Option<String>,
    pub(super) classes: Vec<ClassAttachment>,
    pub(super) gateways: Vec<GatewayAttachment>,
    pub(super) sets: Vec<SetAttachment>,
    pub(super) routes: Vec<RouteAttachment>,
    pub(super) services: Vec<ServiceAttachment>,
    pub(super) edges: BTreeMap<String, EdgeAttachment>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct ClassAttachment {
    pub(super) name: String,
    pub(super) generation: Option<i64>,
    pub(super) accepted: Verdict,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct GatewayAttachment {
    pub(super) object: ObjectRef,
    pub(super) generation: Option<i64>,
    pub(super) accepted: Verdict,
    pub(super) listeners: Vec<ListenerAttachment>,
    pub(super) attached_sets: i32,
    /// The addresses that it asks for and that nobody offers.
    pub(super) unusable: Vec<String>,
    /// Whether there is any EdgeGateway for it.
    pub(super) has_edges: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct SetAttachment {
    pub(super) object: ObjectRef,
    pub(super) generation: Option<i64>,
    pub(super) accepted: Verdict,
    pub(super) listeners: Vec<ListenerAttachment>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct ListenerAttachment {
    pub(super) name: String,
    pub(super) kinds: Vec<ObjectKind>,
    pub(super) attached: i32,
    pub(super) accepted: Verdict,
    pub(super) resolved: Verdict,
    pub(super) conflict: Option<&'static str>,
    pub(super) lacks_certificate: bool,
    pub(super) needs_host: bool,
    pub(super) got: Got,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct RouteAttachment {
    pub(super) object: ObjectRef,
    pub(super) generation: Option<i64>,
    pub(super) parents: Vec<(ParentReference, Verdict)>,
    pub(super) resolved: Verdict,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct ServiceAttachment {
    pub(super) object: ObjectRef,
    pub(super) generation: Option<i64>,
    /// Whether `status.loadBalancer` of it is ours.
    pub(super) of_our_class: bool,
    /// What it got; `None` when it asks for nothing any more.
    pub(super) asks: Option<ServiceGot>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct ServiceGot {
    /// Whether it can be understood, or could once.
    pub(super) understood: bool,
    pub(super) got: Got,
    /// Whether there is any EdgeGateway for it.
    pub(super) has_edges: bool,
    /// What else is wrong with it: reasons and sentences.
    pub(super) wrong: Vec<(&'static str, String)>,
    /// The addresses that it asks for and that nobody offers.
    pub(super) unusable: Vec<String>,
}

/// What an object got of what it claimed.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Got {
    pub(super) places: Vec<GotPlace>,
    /// Why it did not get more: reasons and sentences.
    pub(super) losses: Vec<(&'static str, String)>,
}

/// A place on a gateway.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct GotPlace {
    pub(super) edge: String,
    pub(super) address: Option<IpAddr>,
    pub(super) protocol: Protocol,
    pub(super) port: Port,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct EdgeAttachment {
    pub(super) generation: Option<i64>,
    /// What is wrong with it.
    pub(super) problems: Vec<String>,
    /// What visitors should dial to reach each address.
    pub(super) announced: BTreeMap<Option<IpAddr>, Vec<String>>,
    /// How many ports are asked of it.
    pub(super) ports: usize,
    /// How much its object allows it to transfer in a month.
    pub(super) bytes_per_month: Option<u64>,
}

/// Gathers what became of each object.
pub(super) fn gather(
    view: &PublishView,
    listeners: &Listeners<'_>,
    routes: &Routes<'_>,
    services: &BTreeMap<ObjectRef, ServiceState<'_>>,
    claims: &[Claim<'_>],
    placement: &Placement,
) -> Attachments {
    let results = Results::of(claims, placement);
    Attachments {
        support: view.support(),
        bundle: view.bundle().map(str::to_owned),
        classes: classes(view),
        gateways: gateways(listeners, &results),
        sets: sets(listeners, &results),
        routes: of_routes(view, routes),
        services: of_services(view, services, &results),
        edges: edges(view, placement),
    }
}

/// What claims got, by owner and by listener.
struct Results {
    /// By the owner of the claim: everything of it, and the addresses that nobody offers.
    whole: BTreeMap<ObjectRef, (Got, Vec<String>)>,
    /// By the index of the listener.
    listeners: BTreeMap<usize, Got>,
}

impl Results {
    fn of(claims: &[Claim<'_>], placement: &Placement) -> Self {
        let mut results = Self { whole: BTreeMap::new(), listeners: BTreeMap::new() };
        for (index, claim) in claims.iter().enumerate() {
            let unusable = placement.unusable[index].clone();
            results.whole.insert(claim.owner.clone(), (Got::default(), unusable));
            for loss in &placement.losses[index] {
                let sentence = sentence(&claim.items[loss.item], loss);
                results.each(claim, loss.item, |got| {
                    got.losses.push((report::reason(&loss.why), sentence.clone()));
                });
            }
        }
        for (edge, places) in &placement.edges {
            for (&(address, protocol, port), entries) in places {
                for entry in entries {
                    let (claim, item) = entry.item;
                    let place = GotPlace { edge: edge.clone(), address, protocol, port };
                    results.each(&claims[claim], item, |got| got.places.push(place.clone()));
                }
            }
        }
        results
    }

    fn each(&mut self, claim: &Claim<'_>, item: usize, change: impl Fn(&mut Got)) {
        if let Some((got, _)) = self.whole.get_mut(&claim.owner) {
            change(got);
        }
        if let Some(listener) = claim.items[item].listener {
            change(self.listeners.entry(listener).or_default());
        }
    }
}

fn sentence(item: &super::claim::Item, loss: &Loss) -> String {
    let (problem, _) = report::explain(&loss.edge, &loss.why);
    let (protocol, port) = (item.protocol, item.port);
    match &loss.name {
        Some(name) => format!("{port}/{protocol} for {name}: {problem}"),
        None => format!("{port}/{protocol}: {problem}"),
    }
}

fn classes(view: &PublishView) -> Vec<ClassAttachment> {
    let class = |(name, class): (&String, _)| {
        let class: &super::view::Class = class;
        let (accepted, _) = accept_class(view, class);
        ClassAttachment { name: name.clone(), generation: class.meta.generation, accepted }
    };
    view.classes().iter().map(class).collect()
}

fn gateways(listeners: &Listeners<'_>, results: &Results) -> Vec<GatewayAttachment> {
    let gateway = |(key, state): (&&_, &super::listeners::GatewayState<'_>)| {
        let object = object(ObjectKind::Gateway, key);
        let unusable = results.whole.get(&object).map(|it| it.1.clone()).unwrap_or_default();
        GatewayAttachment {
            object,
            generation: state.form.meta.generation,
            accepted: state.accepted.clone(),
            listeners: state
                .own
                .clone()
                .map(|it| listener(it, &listeners.all[it], results))
                .collect(),
            attached_sets: state.attached_sets,
            unusable,
            has_edges: !state.edges.is_empty(),
        }
    };
    listeners.gateways.iter().map(gateway).collect()
}

fn sets(listeners: &Listeners<'_>, results: &Results) -> Vec<SetAttachment> {
    let set = |(key, state): (&&_, &super::listeners::SetState<'_>)| SetAttachment {
        object: object(ObjectKind::ListenerSet, key),
        generation: state.form.meta.generation,
        accepted: state.accepted.clone(),
        listeners: state.own.clone().map(|it| listener(it, &listeners.all[it], results)).collect(),
    };
    listeners.sets.iter().map(set).collect()
}

fn listener(index: usize, state: &ListenerState<'_>, results: &Results) -> ListenerAttachment {
    ListenerAttachment {
        name: state.form.name.clone(),
        kinds: state.kinds.clone(),
        attached: state.attached,
        accepted: state.accepted.clone(),
        resolved: state.resolved.clone(),
        conflict: state.conflict,
        lacks_certificate: state.lacks_certificate,
        needs_host: state.needs_host,
        got: results.listeners.get(&index).cloned().unwrap_or_default(),
    }
}

fn of_routes(view: &PublishView, routes: &Routes<'_>) -> Vec<RouteAttachment> {
    let forgotten =
        view.routes().iter().filter(|(it, form)| form.told && !routes.all.contains_key(it));
    let forgotten = forgotten.map(|(route, form)| RouteAttachment {
        object: route.clone(),
        generation: form.meta.generation,
        parents: Vec::new(),
        resolved: Verdict::yes("ResolvedRefs"),
    });
    let ours = routes.all.iter().map(|(route, state)| RouteAttachment {
        object: (*route).clone(),
        generation: state.form.meta.generation,
        parents: state
            .parents
            .iter()
            .map(|it| (it.reference.clone(), it.accepted.clone()))
            .collect(),
        resolved: state.resolved.verdict.clone(),
    });
    let mut all: Vec<_> = ours.chain(forgotten).collect();
    all.sort_by(|a, b| a.object.cmp(&b.object));
    all
}

fn of_services(
    view: &PublishView,
    services: &BTreeMap<ObjectRef, ServiceState<'_>>,
    results: &Results,
) -> Vec<ServiceAttachment> {
    let forgotten = view.services().iter().filter(|(_, form)| form.told);
    let forgotten = forgotten.map(|(key, form)| (object(ObjectKind::Service, key), form));
    let forgotten = forgotten.filter(|(it, _)| !services.contains_key(it)).map(|(object, form)| {
        let generation = form.meta.generation;
        ServiceAttachment { object, generation, of_our_class: false, asks: None }
    });
    let ours = services.iter().map(|(object, state)| {
        let (got, unusable) = results.whole.get(object).cloned().unwrap_or_default();
        let errors =
            state.findings.iter().filter(|it| it.severity == crate::finding::Severity::Error);
        let wrong =
            errors.map(|it| (it.reason, format!("{}: {}: {}", it.field, it.value, it.problem)));
        ServiceAttachment {
            object: object.clone(),
            generation: state.form.meta.generation,
            of_our_class: state.form.of_our_class,
            asks: Some(ServiceGot {
                understood: state.understood,
                got,
                has_edges: state.has_edges,
                wrong: wrong.collect(),
                unusable,
            }),
        }
    });
    let mut all: Vec<_> = ours.chain(forgotten).collect();
    all.sort_by(|a, b| a.object.cmp(&b.object));
    all
}

fn edges(view: &PublishView, placement: &Placement) -> BTreeMap<String, EdgeAttachment> {
    let edge = |(name, edge): (&String, &super::view::Edge)| {
        let settings = edge.settings.as_deref();
        let addresses = settings.into_iter().flat_map(|it| &it.addresses);
        let mut announced: BTreeMap<_, _> =
            addresses.map(|it| (Some(it.address), vec![it.announced()])).collect();
        let endpoints = settings.into_iter().flat_map(|it| &it.endpoints);
        let mut hosts: Vec<_> = endpoints.map(|it| it.host.to_string()).collect();
        hosts.dedup();
        announced.insert(None, hosts);
        let attachment = EdgeAttachment {
            generation: edge.meta.generation,
            problems: edge.problems.iter().map(ToString::to_string).collect(),
            announced,
            ports: placement.edges.get(name).map_or(0, BTreeMap::len),
            bytes_per_month: settings.and_then(|it| it.quota).map(|it| it.bytes_per_month),
        };
        (name.clone(), attachment)
    };
    view.edges().iter().map(edge).collect()
}
