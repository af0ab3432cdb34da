//! One host port: which of its claims win, and where it leads.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use api::object::ObjectRef;
use api::port::{Port, Protocol};

use crate::cluster_view::ports::Claim;
use crate::cluster_view::wish::{Backends, Wish};
use crate::desired::{Exposure, Forward, ForwardKey, IpFamily, NodeSetName, Targets};

/// What must be known of a host to settle a port.
pub(crate) struct Ground<'a> {
    /// Its name.
    pub(crate) host: &'a str,
    /// Whether it has an external interface.
    pub(crate) external: bool,
    /// The TCP port through which we reach it ourselves, which is never forwarded.
    pub(crate) way_in: Option<Port>,
    /// Whether any node of a set takes traffic.
    pub(crate) has_targets: &'a dyn Fn(&NodeSetName) -> bool,
}

/// Why an object's claim on a port had no effect, or not the effect that was meant.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Trouble {
    /// Another object has the port.
    Taken(ObjectRef),
    /// It is for the external interface alone, and there is none.
    NoExternalInterface,
    /// We reach the host itself through the port.
    WayIn,
    /// No node that takes traffic has a ready endpoint, and an address of the Service's only
    /// family.
    NoReadyEndpoints(Option<IpFamily>),
    /// No node that takes traffic has an address of the Service's only family.
    NoNodeOfFamily(IpFamily),
    /// It shares the port with Pods of another namespace, such as this one.
    OtherNamespace(ObjectRef),
}

/// The two ways into a host. Without an external interface only the first is used.
const SIDES: usize = 2;

/// Decides one port.
///
/// Claims are taken in their order, each as a whole: one that is for everywhere and finds one way
/// in taken has no effect at all. Pods with the same allowed sources share a port, each on the
/// ways in that it is for, so that every way in spreads over exactly its own Pods. A claim without
/// targets keeps its port: it would be worse to send its clients to somebody else.
pub(crate) fn settle(
    ground: &Ground<'_>,
    protocol: Protocol,
    port: Port,
    claims: &[Claim],
    mut forward: impl FnMut(ForwardKey, Forward),
    mut trouble: impl FnMut(&Arc<Wish>, Trouble),
) {
    if protocol == Protocol::Tcp && Some(port) == ground.way_in {
        let concerned = claims.iter().filter(|it| it.wish.is_for(ground.host));
        return concerned.for_each(|it| trouble(&it.wish, Trouble::WayIn));
    }
    let mut answer =
        |exposure, members: &[&Claim], trouble: &mut dyn FnMut(&Arc<Wish>, _)| match answer(
            ground, members,
        ) {
            Ok(Some(it)) => forward(ForwardKey { protocol, port, exposure }, it),
            Ok(None) => {}
            Err((wish, it)) => trouble(wish, it),
        };
    // Nearly every port: one claim, and it is for everywhere.
    if let [claim] = claims
        && claim.wish.exposure == Exposure::Everywhere
        && claim.wish.is_for(ground.host)
    {
        return answer(Exposure::Everywhere, &[claim], &mut trouble);
    }
    let [internal, external] = &winners(ground, claims, &mut trouble);
    let same = internal.len() == external.len()
        && internal.iter().zip(external).all(|(a, b)| std::ptr::eq(*a, *b));
    if same || !ground.external {
        answer(Exposure::Everywhere, internal, &mut trouble);
    } else {
        answer(Exposure::Internal, internal, &mut trouble);
        answer(Exposure::External, external, &mut trouble);
    }
}

/// Which claims win each way into the host, best first.
fn winners<'a>(
    ground: &Ground<'_>,
    claims: &'a [Claim],
    trouble: &mut dyn FnMut(&Arc<Wish>, Trouble),
) -> [Vec<&'a Claim>; SIDES] {
    let mut sides: [Vec<&Claim>; SIDES] = [Vec::new(), Vec::new()];
    for claim in claims {
        let wish = &claim.wish;
        if !wish.is_for(ground.host) {
            continue;
        }
        let wanted = match (wish.exposure, ground.external) {
            (Exposure::Everywhere, true) => 0..2,
            (Exposure::Internal, true) | (Exposure::Everywhere | Exposure::Internal, false) => 0..1,
            (Exposure::External, true) => 1..2,
            (Exposure::External, false) => {
                trouble(wish, Trouble::NoExternalInterface);
                continue;
            }
        };
        let sides = &mut sides[wanted];
        let leaders = || sides.iter().filter_map(|it| it.first());
        if let Some(winner) = leaders().find(|it| !may_share(&it.wish, wish)) {
            trouble(wish, Trouble::Taken(winner.wish.owner.clone()));
            continue;
        }
        let foreign = leaders().find(|it| it.wish.owner.namespace != wish.owner.namespace);
        if let Some(leader) = foreign {
            trouble(wish, Trouble::OtherNamespace(leader.wish.owner.clone()));
        }
        for side in sides {
            side.push(claim);
        }
    }
    sides
}

/// Whether two objects may answer on one port together.
fn may_share(a: &Wish, b: &Wish) -> bool {
    a.is_pod() && b.is_pod() && a.sources == b.sources
}

/// Where a port leads that these claims won together, best first.
fn answer<'a>(
    ground: &Ground<'_>,
    members: &[&'a Claim],
) -> Result<Option<Forward>, (&'a Arc<Wish>, Trouble)> {
    let Some(&leader) = members.first() else { return Ok(None) };
    let wish = &leader.wish;
    let targets = match &wish.backends {
        Backends::Nodes(set) if (ground.has_targets)(set) => {
            Targets::Nodes { set: set.clone(), port: leader.target }
        }
        // That no node takes traffic at all is said once, of the host.
        Backends::Nodes(NodeSetName::All) => return Ok(None),
        Backends::Nodes(NodeSetName::OfFamily(family)) => {
            let any = (ground.has_targets)(&NodeSetName::All);
            return if any { Err((wish, Trouble::NoNodeOfFamily(*family))) } else { Ok(None) };
        }
        Backends::Nodes(NodeSetName::WithEndpoints { .. }) => {
            return Err((wish, Trouble::NoReadyEndpoints(wish.family)));
        }
        Backends::Pod(_) => Targets::Pods(members.iter().flat_map(|it| pod(it)).collect()),
    };
    Ok(Some(Forward {
        owner: wish.owner.clone(),
        targets,
        sources: wish.sources.clone(),
        affinity: wish.affinity,
    }))
}

/// The addresses of the Pod behind a claim.
fn pod(claim: &Claim) -> BTreeSet<SocketAddr> {
    match &claim.wish.backends {
        Backends::Pod(addresses) => {
            addresses.iter().map(|it| SocketAddr::new(*it, claim.target.get())).collect()
        }
        Backends::Nodes(_) => BTreeSet::new(),
    }
}
