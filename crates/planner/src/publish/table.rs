//! Who is where on a gateway, as the ports that it shall listen on.

use std::collections::{BTreeMap, BTreeSet};

use api::server_name::ServerName;
use tunnel_proto::message::{NamedBackend, PublishedPort, Route};

use super::backend::on_the_wire;
use super::claim::{Claim, Item};
use super::place::{Entry, Place};
use super::publication::Publication;

/// How many owners a port names before the rest is counted.
const NAMED_OWNERS: usize = 4;

/// The ports that a gateway shall listen on, in the order that it wants.
pub(super) fn ports(
    places: &BTreeMap<Place, Vec<Entry>>,
    claims: &[Claim<'_>],
) -> Vec<PublishedPort> {
    let ports = places.iter().filter_map(|(place, entries)| port(place, entries, claims));
    let mut ports: Vec<_> = ports.collect();
    ports.sort_by_key(|it| (it.address, it.protocol, it.port));
    ports
}

fn port(
    &(address, protocol, port): &Place,
    entries: &[Entry],
    claims: &[Claim<'_>],
) -> Option<PublishedPort> {
    let items: Vec<_> = entries
        .iter()
        .map(|it| (&claims[it.item.0].items[it.item.1], it.names.as_deref()))
        .collect();
    let (first, names) = items.first()?;
    let route = match names {
        None => {
            let leads = items.iter().find_map(|(it, _)| it.routes.values().next());
            leads.cloned().map_or(Route::Nowhere, Route::Backend)
        }
        Some(_) => by_name(&items),
    };
    Some(PublishedPort {
        address,
        port: port.get(),
        protocol: on_the_wire(protocol),
        owner: owner(&items),
        route,
        allow_from: first.allow_from.clone(),
        limits: first.limits,
        idle_seconds: 0,
    })
}

type Sharer<'a> = (&'a Item, Option<&'a [ServerName]>);

fn owner(items: &[Sharer<'_>]) -> String {
    let labels: BTreeSet<_> = items.iter().map(|(it, _)| it.label.as_str()).collect();
    let more = labels.len().saturating_sub(NAMED_OWNERS);
    let mut text = labels.into_iter().take(NAMED_OWNERS).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

/// Where each name leads. Items come best claim first, and so it is decided whose a name is that
/// several lead somewhere.
///
/// Among listeners, a name belongs to the one with the most specific hostname that covers it, and
/// only what that one says about it counts: a listener for `*.example.com` is not bypassed by a
/// route of a listener for every name (Gateway API, "listener isolation"). Where a hostname would
/// let through a name that a less specific one leads somewhere, it is led nowhere. The names of a
/// Service are its own alone.
fn by_name(items: &[Sharer<'_>]) -> Route {
    let listeners = items.iter().filter(|(it, _)| it.listener.is_some());
    // The most specific comes first.
    let hostnames: BTreeSet<&ServerName> =
        listeners.flat_map(|(_, names)| names.iter().copied().flatten()).collect();
    let most_specific = |name: &ServerName| hostnames.iter().find(|it| it.covers(name)).copied();
    let mut table: BTreeMap<&ServerName, &str> = BTreeMap::new();
    let mut by_listeners = Vec::new();
    for (item, names) in items {
        let names = names.unwrap_or_default();
        for (name, key) in &item.routes {
            let own = match item.listener {
                Some(_) => most_specific(name).is_some_and(|it| names.contains(it)),
                None => names.contains(name),
            };
            if !own {
                continue;
            }
            table.entry(name).or_insert(key);
            if item.listener.is_some() {
                by_listeners.push(name);
            }
        }
    }
    for hostname in hostnames {
        let let_through = by_listeners.iter().any(|it| *it != hostname && it.covers(hostname));
        if let_through {
            table.entry(hostname).or_insert(Publication::NOBODY);
        }
    }
    if table.is_empty() {
        return Route::Nowhere;
    }
    let named = |(name, key): (&ServerName, &str)| NamedBackend {
        name: name.to_key(),
        backend: key.to_owned(),
    };
    Route::ServerName(table.into_iter().map(named).collect())
}
