//! What Gateways and Services claim of the addresses of gateways.

use std::collections::BTreeMap;

use api::annotation::PublishWish;
use api::object::{ObjectKind, ObjectRef};
use api::port::{Port, Protocol};
use api::server_name::ServerName;
use api::source_range::SourceRanges;
use tunnel_proto::message::{Limits, Range};

use super::attach::{Routes, serves};
use super::backend::{client_address, on_the_wire, transport, wanted_at};
use super::listeners::{GatewayState, ListenerState, Listeners, Speaks};
use super::publication::{Backend, ClientAddress, TlsEnd};
use super::view::{Key, PublishView, object};

/// Everything that one Gateway, with its ListenerSets, or one Service claims.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    pub(super) owner: ObjectRef,
    /// Creation time in seconds since 1970.
    pub(super) created: i64,
    /// On which EdgeGateways.
    pub(super) edges: Vec<&'a str>,
    /// The addresses that it wants; empty for any.
    pub(super) asked: Vec<&'a str>,
    /// The addresses that it has, as its status tells.
    pub(super) current: &'a [String],
    /// Whether it would rather have an address of its own than share ports by server name.
    pub(super) alone: bool,
    pub(super) items: Vec<Item>,
}

impl Claim<'_> {
    /// The order in which conflicts are decided: the smaller one wins.
    pub(super) fn rank(&self) -> (i64, &ObjectRef) {
        (self.created, &self.owner)
    }
}

/// One port that somebody claims.
#[derive(Debug)]
pub(super) struct Item {
    /// Whose it is: the Gateway, the ListenerSet or the Service.
    pub(super) owner: ObjectRef,
    /// The listener, by its index among all.
    pub(super) listener: Option<usize>,
    /// What a finding about it should name.
    pub(super) field: &'static str,
    /// Whose it is, for people.
    pub(super) label: String,
    pub(super) protocol: Protocol,
    pub(super) port: Port,
    /// The server names by which it is shared with others; `None` for the whole port.
    pub(super) names: Option<Vec<ServerName>>,
    /// Where the names lead, by backend key; the whole port leads where every name does.
    pub(super) routes: BTreeMap<ServerName, String>,
    pub(super) allow_from: Vec<Range>,
    pub(super) limits: Limits,
}

/// The claims of every accepted Gateway. What their routes lead to is added to `backends`.
pub(super) fn of_gateways<'a>(
    view: &'a PublishView,
    listeners: &Listeners<'a>,
    routes: &Routes<'a>,
    backends: &mut BTreeMap<String, Backend>,
) -> Vec<Claim<'a>> {
    let accepted = listeners.gateways.iter().filter(|(_, it)| it.accepted.is_true);
    let mut claims = Vec::new();
    for (gateway, state) in accepted {
        let sets = listeners
            .sets
            .iter()
            .filter(|(_, it)| it.accepted.is_true && it.form.parent.as_ref() == Some(*gateway));
        let of_sets = sets.flat_map(|(_, it)| it.own.clone());
        let items = state.own.clone().chain(of_sets).filter_map(|index| {
            let listener = &listeners.all[index];
            let (speaks, port) = listener.opens()?;
            let sharing = Sharing::of(view, state, listener);
            let place = Leading { listener, index, speaks, port, sharing: &sharing };
            let routes = place.lead(view, routes, backends);
            Some(item(listener, index, speaks, port, sharing, routes))
        });
        claims.push(Claim {
            owner: object(ObjectKind::Gateway, gateway),
            created: state.form.meta.created,
            edges: state.edges.clone(),
            asked: state.asked.clone(),
            current: &state.form.current,
            alone: true,
            items: items.collect(),
        });
    }
    claims
}

/// What the annotations of a Gateway and of its ListenerSet say about one listener; those of the
/// ListenerSet count.
struct Sharing<'a> {
    own: Option<&'a PublishWish>,
    gateway: Option<&'a PublishWish>,
}

impl<'a> Sharing<'a> {
    fn of(view: &'a PublishView, gateway: &GatewayState<'a>, listener: &ListenerState<'a>) -> Self {
        let key: Key =
            (listener.owner.namespace.clone().unwrap_or_default(), listener.owner.name.clone());
        let set = (listener.owner.kind == ObjectKind::ListenerSet)
            .then(|| view.sets().get(&key))
            .flatten();
        Self {
            own: set.and_then(|it| it.annotated.wish.as_deref()),
            gateway: gateway.form.annotated.wish.as_deref(),
        }
    }

    fn first<T>(&self, read: impl Fn(&'a PublishWish) -> Option<T>) -> Option<T> {
        self.own.and_then(&read).or_else(|| self.gateway.and_then(&read))
    }
}

fn item(
    listener: &ListenerState<'_>,
    index: usize,
    speaks: Speaks,
    port: Port,
    sharing: Sharing<'_>,
    routes: BTreeMap<ServerName, String>,
) -> Item {
    let shared = match speaks {
        Speaks::Passthrough | Speaks::Terminate | Speaks::Https => true,
        Speaks::Tcp | Speaks::Udp | Speaks::Http => false,
    };
    Item {
        owner: listener.owner.clone(),
        listener: Some(index),
        field: "spec.listeners",
        label: format!("{} listener {}", listener.owner, listener.form.name),
        protocol: speaks.transport(),
        port,
        names: shared.then(|| vec![listener.name().clone()]),
        routes,
        allow_from: ranges(sharing.first(|it| it.sources.as_ref())),
        limits: Limits {
            new_per_second: sharing.first(|it| it.max_new_per_second).map_or(0, |it| it.get()),
            open: sharing.first(|it| it.max_open).map_or(0, |it| it.get()),
        },
    }
}

/// A listener that leads visitors somewhere.
struct Leading<'a, 'b> {
    listener: &'b ListenerState<'a>,
    index: usize,
    speaks: Speaks,
    port: Port,
    sharing: &'b Sharing<'a>,
}

impl Leading<'_, '_> {
    /// Where it leads: by name to the oldest route for it; without names to the oldest route.
    fn lead(
        &self,
        view: &PublishView,
        routes: &Routes<'_>,
        backends: &mut BTreeMap<String, Backend>,
    ) -> BTreeMap<ServerName, String> {
        let attached = routes.at.get(&self.index).map_or(&[][..], |it| it.as_slice());
        let serving = attached.iter().filter(|it| serves(self.listener, &it.names));
        let most = match self.speaks {
            Speaks::Passthrough | Speaks::Terminate | Speaks::Https => usize::MAX,
            Speaks::Tcp | Speaks::Udp | Speaks::Http => 1,
        };
        let tls = self.tls();
        let mut leads = BTreeMap::new();
        for it in serving.take(most) {
            let Some(state) = routes.all.get(it.route) else { continue };
            let own = view.routes().get(it.route).and_then(|it| it.annotated.wish.as_deref());
            let of_listener = || self.sharing.first(|it| wanted_at(Some(it), self.port));
            let wanted = wanted_at(own, self.port).or_else(of_listener);
            let imposed = client_address(wanted, transport(it.route.kind));
            let mut key = keyed(format!("{}/0", it.route), imposed, false);
            if let Some(tls) = &tls {
                key.push_str(&named(tls));
            }
            let backend = || {
                let mut alternatives = state.resolved.alternatives.clone();
                if imposed != ClientAddress::Hidden {
                    alternatives.iter_mut().for_each(|it| it.client_address = imposed);
                }
                let protocol = on_the_wire(transport(it.route.kind));
                Backend { protocol, alternatives, tls: tls.clone() }
            };
            backends.entry(key.clone()).or_insert_with(backend);
            for name in &it.names {
                leads.entry(name.clone()).or_insert_with(|| key.clone());
            }
        }
        leads
    }

    /// How TLS ends at it; `None` where it does not.
    fn tls(&self) -> Option<TlsEnd> {
        let http = match self.speaks {
            Speaks::Tcp | Speaks::Udp | Speaks::Passthrough | Speaks::Http => return None,
            Speaks::Terminate => false,
            Speaks::Https => true,
        };
        let own = self.listener.owner.namespace.as_deref().unwrap_or_default();
        let certificates = self.listener.form.certificates.iter().map(|it| {
            let namespace = it.namespace.as_deref().unwrap_or(own);
            ObjectRef::namespaced(ObjectKind::Secret, namespace, &it.name)
        });
        Some(TlsEnd { certificates: certificates.collect(), http })
    }
}

/// What a backend key says of how TLS ends.
fn named(tls: &TlsEnd) -> String {
    let secret =
        |it: &ObjectRef| format!("{}/{}", it.namespace.as_deref().unwrap_or_default(), it.name);
    let secrets: Vec<_> = tls.certificates.iter().map(secret).collect();
    format!("+{}:{}", if tls.http { "https" } else { "tls" }, secrets.join(","))
}

/// A backend key with everything in it that changes how connections are made: so that a gateway
/// and an agent that are not equally up to date never mean different things by one key.
pub(super) fn keyed(mut key: String, client_address: ClientAddress, on_host: bool) -> String {
    if on_host {
        key.push_str("+host");
    }
    if client_address != ClientAddress::Hidden {
        key.push('+');
        key.push_str(client_address.name());
    }
    key
}

/// Source ranges as gateways have them; none means everyone.
pub(super) fn ranges(sources: Option<&SourceRanges>) -> Vec<Range> {
    let ranges = sources.into_iter().flat_map(SourceRanges::iter);
    ranges.map(|it| Range { address: it.addr(), prefix: it.prefix_len() }).collect()
}
