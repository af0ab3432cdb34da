//! Which claim gets which port of which address of a gateway.
//!
//! Claims are placed one after another, best claim first (the older object, then by kind, namespace
//! and name), so that a claim never changes what a better one gets. A claim keeps the address that
//! its status tells as long as no better claim needs it, so that the end of one object moves no
//! other one.

mod cell;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::edge_gateway::EdgeGatewaySettings;
use api::object::ObjectRef;
use api::port::{Port, Protocol};
use api::server_name::ServerName;

use super::claim::{Claim, Item};
use super::view::PublishView;
use cell::{Cell, Reserved};

/// An item: the index of its claim, and its own.
pub(super) type ItemId = (usize, usize);

/// A place on a gateway: an address, or all of them.
pub(super) type Place = (Option<IpAddr>, Protocol, Port);

/// Who is at one place.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) item: ItemId,
    /// The names by which it shares the place; `None` when it has the whole of it.
    pub(super) names: Option<Vec<ServerName>>,
}

/// What all claims got.
#[derive(Debug, Default)]
pub(super) struct Placement {
    /// By the name of the EdgeGateway: who is where.
    pub(super) edges: BTreeMap<String, BTreeMap<Place, Vec<Entry>>>,
    /// By claim: what it did not get.
    pub(super) losses: Vec<Vec<Loss>>,
    /// By claim: the addresses that it asked for and that no gateway of it offers.
    pub(super) unusable: Vec<Vec<String>>,
}

/// A port, or one name at it, that a claim did not get on one gateway.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Loss {
    pub(super) item: usize,
    pub(super) edge: String,
    /// The name that is lost; `None` for the whole port.
    pub(super) name: Option<ServerName>,
    pub(super) why: Why,
}

/// Why something was not got.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Why {
    /// Somebody has it, who comes first.
    Taken(ObjectRef, Option<IpAddr>),
    /// Somebody shares the port who lets others in, or sets other limits.
    OtherLists(ObjectRef, Option<IpAddr>),
    /// No grant of the EdgeGateway allows it.
    NotGranted,
    /// The grants allow fewer ports than the namespace asks for.
    TooMany,
    /// It is the port by which agents dial the gateway.
    Tunnel,
}

/// Places every claim; they must be in order.
pub(super) fn place(view: &PublishView, claims: &[Claim<'_>]) -> Placement {
    let mut placement = Placement {
        losses: vec![Vec::new(); claims.len()],
        unusable: vec![Vec::new(); claims.len()],
        ..Placement::default()
    };
    let mut offered: BTreeMap<usize, BTreeSet<&str>> = BTreeMap::new();
    for (name, edge) in view.edges() {
        let Some(settings) = &edge.settings else { continue };
        let ground = Ground::new(name, settings, claims);
        let placed = ground.place(&mut placement.losses, &mut offered);
        placement.edges.insert(name.clone(), placed);
    }
    for (index, claim) in claims.iter().enumerate() {
        let offered = offered.remove(&index).unwrap_or_default();
        let unusable = claim.asked.iter().filter(|it| !offered.contains(*it));
        placement.unusable[index] = unusable.map(|it| (*it).to_owned()).collect();
    }
    for losses in &mut placement.losses {
        losses.sort();
        losses.dedup();
    }
    placement
}

/// One gateway, while claims are placed on it.
struct Ground<'a> {
    name: &'a str,
    settings: &'a EdgeGatewaySettings,
    claims: &'a [Claim<'a>],
    /// The addresses to choose from, family by family.
    families: Vec<Vec<Option<IpAddr>>>,
    /// What claims have or ask for by address, whether they will get it or not.
    reserved: BTreeMap<Place, Reserved>,
    taken: BTreeMap<Place, Cell>,
    /// How many ports a namespace has by one grant.
    used: BTreeMap<(usize, &'a str), u32>,
}

impl<'a> Ground<'a> {
    fn new(name: &'a str, settings: &'a EdgeGatewaySettings, claims: &'a [Claim<'a>]) -> Self {
        let addresses = settings.addresses.iter().map(|it| it.address);
        let (v4, v6): (Vec<_>, Vec<_>) = addresses.partition(IpAddr::is_ipv4);
        let families = [v4, v6].map(|it| it.into_iter().map(Some).collect::<Vec<_>>());
        let mut families: Vec<_> = families.into_iter().filter(|it| !it.is_empty()).collect();
        if families.is_empty() {
            families.push(vec![None]);
        }
        let mut ground = Self {
            name,
            settings,
            claims,
            families,
            reserved: BTreeMap::new(),
            taken: BTreeMap::new(),
            used: BTreeMap::new(),
        };
        ground.reserve();
        ground
    }

    /// Notes what claims have or ask for. With all addresses in one, there is nothing to choose.
    fn reserve(&mut self) {
        if self.settings.addresses.is_empty() {
            return;
        }
        for (index, claim) in self.claims.iter().enumerate() {
            if !claim.edges.contains(&self.name) {
                continue;
            }
            let current = claim.current.iter().map(String::as_str);
            let wanted = claim.asked.iter().copied().chain(current);
            let addresses: BTreeSet<_> = wanted.flat_map(|it| self.meant(it)).collect();
            for address in addresses {
                for it in &claim.items {
                    let reserved = self.reserved.entry((address, it.protocol, it.port));
                    reserved.or_default().insert(index, it.names.as_deref());
                }
            }
        }
    }

    /// The addresses that a text means here, by themselves or by what is announced for them.
    fn meant(&self, text: &str) -> Vec<Option<IpAddr>> {
        let address = text.parse::<IpAddr>().ok();
        if self.settings.addresses.is_empty() {
            let here = self.settings.endpoints.iter().any(|it| it.host.as_str() == text);
            return if here { vec![None] } else { Vec::new() };
        }
        let offered = self.settings.addresses.iter();
        offered
            .filter(|it| address == Some(it.address) || it.announced().eq_ignore_ascii_case(text))
            .map(|it| Some(it.address))
            .collect()
    }

    fn place(
        mut self,
        losses: &mut [Vec<Loss>],
        offered: &mut BTreeMap<usize, BTreeSet<&'a str>>,
    ) -> BTreeMap<Place, Vec<Entry>> {
        for (index, claim) in self.claims.iter().enumerate() {
            if !claim.edges.contains(&self.name) {
                continue;
            }
            let mut lost = Vec::new();
            let granted = self.granted(claim, &mut lost);
            let mut asked = BTreeSet::new();
            for text in &claim.asked {
                let meant = self.meant(text);
                if !meant.is_empty() {
                    offered.entry(index).or_default().insert(text);
                }
                asked.extend(meant);
            }
            let chosen = match claim.asked.is_empty() {
                true => self.choose(index, &granted),
                false => asked.into_iter().collect(),
            };
            for address in chosen {
                self.take(index, address, &granted, &mut lost);
            }
            losses[index].extend(lost.into_iter().map(|(item, name, why)| {
                let edge = self.name.to_owned();
                Loss { item, edge, name, why }
            }));
        }
        self.taken.into_iter().map(|(place, cell)| (place, cell.entries)).collect()
    }

    /// The items that the grants allow, with the names that they allow.
    fn granted(&mut self, claim: &'a Claim<'a>, lost: &mut Vec<Lost>) -> Vec<Granted> {
        let mut granted = Vec::new();
        for (index, item) in claim.items.iter().enumerate() {
            if self.settings.endpoints.iter().any(|it| it.port == item.port) {
                lost.push((index, None, Why::Tunnel));
                continue;
            }
            match &item.names {
                None => match self.grant(item, None) {
                    Ok(()) => granted.push((index, None)),
                    Err(why) => lost.push((index, None, why)),
                },
                Some(names) => {
                    let mut allowed = Vec::new();
                    for name in names {
                        match self.grant(item, Some(name)) {
                            Ok(()) => allowed.push(name.clone()),
                            Err(why) => lost.push((index, Some(name.clone()), why)),
                        }
                    }
                    if !allowed.is_empty() {
                        granted.push((index, Some(allowed)));
                    }
                }
            }
        }
        granted
    }

    fn grant(&mut self, item: &'a Item, name: Option<&ServerName>) -> Result<(), Why> {
        let Some(grants) = &self.settings.grants else { return Ok(()) };
        let namespace = item.owner.namespace.as_deref().unwrap_or_default();
        let mut why = Why::NotGranted;
        for (index, grant) in grants.iter().enumerate() {
            if !grant.is_for(namespace) || !grant.allows(item.protocol, item.port, name) {
                continue;
            }
            let used = self.used.entry((index, namespace)).or_default();
            if grant.max_ports.is_none_or(|most| *used < most) {
                *used += 1;
                return Ok(());
            }
            why = Why::TooMany;
        }
        Err(why)
    }

    /// The best address of each family for a claim: where it gets most, then the one that it has,
    /// then one that no other claim has, then one that it need not share, then the first.
    fn choose(&self, index: usize, granted: &[Granted]) -> Vec<Option<IpAddr>> {
        let claim = &self.claims[index];
        let current: BTreeSet<_> = claim.current.iter().flat_map(|it| self.meant(it)).collect();
        let cost = |address: Option<IpAddr>| {
            let (mut lost, mut disturbed, mut shared) = (0usize, false, false);
            for (item, names) in granted {
                let it = &claim.items[*item];
                let place = (address, it.protocol, it.port);
                lost += self.clashes(place, (index, it), names.as_deref()).len();
                shared |= claim.alone && self.taken.contains_key(&place);
                disturbed |= self.reserved.get(&place).is_some_and(|reserved| match claim.alone {
                    true => reserved.any_after(index),
                    false => reserved.clashes_after(index, names.as_deref()),
                });
            }
            (lost, !current.contains(&address), disturbed, shared)
        };
        let best = |family: &Vec<Option<IpAddr>>| match family.as_slice() {
            [only] => Some(*only),
            // The first of equals.
            several => several.iter().copied().min_by_key(|it| cost(*it)),
        };
        self.families.iter().filter_map(best).collect()
    }

    /// Takes what a claim gets at one address.
    fn take(
        &mut self,
        index: usize,
        address: Option<IpAddr>,
        granted: &[Granted],
        lost: &mut Vec<Lost>,
    ) {
        let claim = &self.claims[index];
        for (item, names) in granted {
            let it = &claim.items[*item];
            let place = (address, it.protocol, it.port);
            let clashes = self.clashes(place, (index, it), names.as_deref());
            let lost_names: BTreeSet<_> =
                clashes.iter().filter_map(|(name, _)| name.clone()).collect();
            let whole = clashes.iter().any(|(name, _)| name.is_none());
            lost.extend(clashes.into_iter().map(|(name, why)| (*item, name, why)));
            let names = names.as_ref().map(|it| {
                it.iter().filter(|it| !lost_names.contains(it)).cloned().collect::<Vec<_>>()
            });
            if !whole && names.as_ref().is_none_or(|it| !it.is_empty()) {
                let entry = Entry { item: (index, *item), names };
                self.taken.entry(place).or_default().insert(entry, it);
            }
        }
    }

    /// What an item cannot have besides those who are there: names, or the whole port.
    fn clashes(
        &self,
        place: Place,
        (index, item): (usize, &Item),
        names: Option<&[ServerName]>,
    ) -> Vec<(Option<ServerName>, Why)> {
        let Some(cell) = self.taken.get(&place) else { return Vec::new() };
        let item_of = |(claim, item): ItemId| &self.claims[claim].items[item];
        let Some(first) = cell.entries.first() else { return Vec::new() };
        let (best, address) = (item_of(first.item), place.0);
        let names = match (names, &first.names) {
            (Some(names), Some(_)) => names,
            // Listeners of one Gateway, which has made sure that they can be told apart.
            (None, None) if first.item.0 == index => &[],
            (_, _) => return vec![(None, Why::Taken(best.owner.clone(), address))],
        };
        if item.allow_from != best.allow_from || item.limits != best.limits {
            return vec![(None, Why::OtherLists(best.owner.clone(), address))];
        }
        let taken = |name: &ServerName| {
            let holder = item_of(cell.holder(name, index)?);
            Some((Some(name.clone()), Why::Taken(holder.owner.clone(), address)))
        };
        names.iter().filter_map(taken).collect()
    }
}

/// The index of an item, and the names that are granted.
type Granted = (usize, Option<Vec<ServerName>>);

/// The index of an item, the name that is lost, and why.
type Lost = (usize, Option<ServerName>, Why);
