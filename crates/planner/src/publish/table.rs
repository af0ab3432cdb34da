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
        None => first.routes.values().next().cloned().map_or(Route::Nowhere, Route::Backend),
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

/// Where each name leads.
///
/// A name belongs to whoever claims the most specific name that covers it, and only what that one
/// says about it counts: a Gateway's listener for `*.example.com` is not bypassed by a route of a
/// listener for every name (Gateway API, "listener isolation"). Where a claim would let through a
/// name that a less specific one leads somewhere, it is led nowhere.
fn by_name(items: &[Sharer<'_>]) -> Route {
    let claimed: BTreeSet<&ServerName> =
        items.iter().flat_map(|(_, names)| names.iter().copied().flatten()).collect();
    // `BTreeSet` has the most specific first.
    let claimant = |name: &ServerName| claimed.iter().find(|it| it.covers(name)).copied();
    let mut table: BTreeMap<&ServerName, &str> = BTreeMap::new();
    for (item, names) in items {
        for (name, key) in &item.routes {
            let own = claimant(name);
            if names.is_some_and(|it| it.iter().any(|it| Some(it) == own)) {
                table.entry(name).or_insert(key);
            }
        }
    }
    let led: Vec<_> = table.keys().copied().collect();
    for claim in claimed {
        let let_through = led.iter().any(|it| *it != claim && it.covers(claim));
        if let_through {
            table.entry(claim).or_insert(Publication::NOBODY);
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
