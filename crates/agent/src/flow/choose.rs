//! Who answers a flow. No clock, no sockets; the caller brings the randomness.

use std::net::{IpAddr, SocketAddr};

use planner::publish::{Alternative, Backend, ClientAddress, Endpoint, Target};
use tunnel_proto::message::Reach;

/// What a flow gets.
#[derive(Debug, PartialEq)]
pub(crate) enum Choice<'a> {
    /// These endpoints, to be tried in this order; never empty.
    Endpoints {
        /// What they are endpoints of.
        alternative: &'a Alternative,
        /// Where they listen.
        endpoints: Vec<SocketAddr>,
    },
    /// By weight, something that is invalid: another agent would say the same.
    Invalid(&'a str),
    /// Nothing that this agent can reach now.
    None,
}

/// Chooses for one flow. `random` is uniform over all values; both halves are used.
pub(crate) fn choose<'a>(
    backend: &'a Backend,
    node: Option<&str>,
    visitor: IpAddr,
    random: u64,
) -> Choice<'a> {
    let Some(alternative) = by_weight(&backend.alternatives, random >> 32) else {
        return Choice::None;
    };
    let endpoints = match &alternative.target {
        Target::Invalid(why) => return Choice::Invalid(why),
        Target::OwnHost(address) => vec![*address],
        Target::Endpoints(endpoints) => {
            let (mut local, mut remote) = usable(endpoints, alternative, node);
            if !alternative.prefer_local {
                // One group, in which nobody has a better place.
                local.append(&mut remote);
                local.sort_unstable();
            }
            order(&mut local, alternative.affinity, visitor, random);
            order(&mut remote, alternative.affinity, visitor, random);
            local.append(&mut remote);
            local
        }
    };
    if endpoints.is_empty() { Choice::None } else { Choice::Endpoints { alternative, endpoints } }
}

fn order(group: &mut [SocketAddr], affinity: bool, visitor: IpAddr, random: u64) {
    if affinity {
        // The highest score wins (rendezvous hashing): every agent sends a visitor to the same
        // endpoint, and an endpoint that comes or goes moves nobody else's visitors.
        group.sort_by_key(|it| std::cmp::Reverse(score(visitor, *it)));
    } else if let Some(start) = (random & 0xffff_ffff).checked_rem(group.len() as u64) {
        group.rotate_left(usize::try_from(start).unwrap_or(0));
    }
}

/// How well an agent on `node` can serve a backend.
///
/// `Local` only where it matters that the endpoint is on the agent's own node; elsewhere every
/// agent is as good as any other.
pub(crate) fn reach(backend: &Backend, node: Option<&str>) -> Reach {
    let alternatives = backend.alternatives.iter().filter(|it| it.weight > 0);
    let reach = alternatives.map(|it| match &it.target {
        Target::Invalid(_) => Reach::None,
        Target::OwnHost(_) => Reach::Remote,
        Target::Endpoints(endpoints) => {
            let (local, remote) = usable(endpoints, it, node);
            let matters = it.prefer_local || it.client_address == ClientAddress::Transparent;
            match (local.is_empty(), remote.is_empty()) {
                (true, true) => Reach::None,
                (false, _) if matters => Reach::Local,
                (_, _) => Reach::Remote,
            }
        }
    });
    reach.max().unwrap_or(Reach::None)
}

/// Whether one of the backend's alternatives leads to this endpoint and it can still take flows.
pub(crate) fn still_serves(backend: &Backend, node: Option<&str>, endpoint: SocketAddr) -> bool {
    backend.alternatives.iter().filter(|it| it.weight > 0).any(|it| match &it.target {
        Target::Invalid(_) => false,
        Target::OwnHost(address) => *address == endpoint,
        Target::Endpoints(endpoints) => {
            let (local, remote) = usable(endpoints, it, node);
            local.contains(&endpoint) || remote.contains(&endpoint)
        }
    })
}

/// The endpoints that take flows: those on the agent's own node, and the others.
fn usable(
    endpoints: &[Endpoint],
    alternative: &Alternative,
    node: Option<&str>,
) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
    // What is on its way out serves as long as nothing else does.
    let any_ready = endpoints.iter().any(|it| it.ready);
    let usable = endpoints.iter().filter(|it| it.ready || !any_ready);
    let (local, remote): (Vec<_>, Vec<_>) = usable.partition(|it| it.node.as_deref() == node);
    let addresses =
        |group: Vec<&Endpoint>| group.into_iter().map(|it| it.address).collect::<Vec<_>>();
    let (local, remote) = (addresses(local), addresses(remote));
    match alternative.client_address {
        // Only what answers through this machine can be shown the visitor's address.
        ClientAddress::Transparent => (local, Vec::new()),
        ClientAddress::Hidden | ClientAddress::ProxyV1 | ClientAddress::ProxyV2 => (local, remote),
    }
}

fn by_weight(alternatives: &[Alternative], random: u64) -> Option<&Alternative> {
    let total: u64 = alternatives.iter().map(|it| u64::from(it.weight)).sum();
    if total == 0 {
        return None;
    }
    // `random` has 32 bits: a share is right to one in four thousand million.
    let mut at = (random * total) >> 32;
    alternatives.iter().find(|it| {
        let weight = u64::from(it.weight);
        let here = at < weight;
        at = at.saturating_sub(weight);
        here
    })
}

/// FNV-1a over both addresses: the same on every agent and in every version.
fn score(visitor: IpAddr, endpoint: SocketAddr) -> u64 {
    let text = format!("{visitor} {endpoint}");
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // The last bytes hardly reach the upper bits, which decide: mix once more (murmur3's end).
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tunnel_proto::message::Protocol;

    use super::*;

    const VISITOR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 7));

    #[test]
    fn flows_spread_evenly_over_ready_endpoints() {
        let backend = backend(vec![to(&["n1", "n1", "n2", "n3"])]);
        let mut counts = BTreeMap::<_, u32>::new();
        for flow in 0..4000 {
            *counts.entry(first(&backend, Some("n1"), flow)).or_default() += 1;
        }
        assert_eq!(counts.len(), 4);
        assert!(counts.values().all(|it| (800..1200).contains(it)), "{counts:?}");
    }

    #[test]
    fn an_endpoint_of_the_own_node_is_preferred_where_asked() {
        let local = Alternative { prefer_local: true, ..to(&["n2", "n1", "n3"]) };
        let backend = backend(vec![local]);
        for flow in 0..50 {
            assert_eq!(first(&backend, Some("n1"), flow), endpoint(1));
            let Choice::Endpoints { endpoints, .. } =
                choose(&backend, Some("n1"), VISITOR, random(flow))
            else {
                panic!("there are endpoints")
            };
            assert_eq!(endpoints.len(), 3, "the others are there for when it fails");
        }
        assert_eq!(reach(&backend, Some("n1")), Reach::Local);
        assert_eq!(reach(&backend, Some("n9")), Reach::Remote);
    }

    #[test]
    fn what_is_on_its_way_out_serves_only_while_nothing_else_does() {
        let mut alternative = to(&["n1", "n2"]);
        let Target::Endpoints(endpoints) = &mut alternative.target else { unreachable!() };
        endpoints[0].ready = false;
        let one_ready = backend(vec![alternative.clone()]);
        assert!((0..50).all(|flow| first(&one_ready, None, flow) == endpoint(1)));
        assert!(!still_serves(&one_ready, None, endpoint(0)));

        let Target::Endpoints(endpoints) = &mut alternative.target else { unreachable!() };
        endpoints[1].ready = false;
        let none_ready = backend(vec![alternative]);
        assert!(still_serves(&none_ready, None, endpoint(0)));
        assert_eq!(reach(&none_ready, None), Reach::Remote);
    }

    #[test]
    fn weights_are_kept_and_the_share_of_what_is_invalid_is_refused() {
        let mut invalid = to(&[]);
        invalid.target = Target::Invalid("no such Service".to_owned());
        invalid.weight = 1;
        let mut heavy = to(&["n1"]);
        heavy.weight = 3;
        let backend = backend(vec![invalid, heavy]);
        let refused = (0..4000)
            .filter(|flow| {
                matches!(choose(&backend, None, VISITOR, random(*flow)), Choice::Invalid(_))
            })
            .count();
        assert!((900..1100).contains(&refused), "{refused}");
    }

    #[test]
    fn nothing_is_chosen_without_weight_or_endpoints() {
        let mut weightless = to(&["n1"]);
        weightless.weight = 0;
        for backend in [backend(vec![]), backend(vec![weightless]), backend(vec![to(&[])])] {
            assert_eq!(choose(&backend, None, VISITOR, random(1)), Choice::None);
            assert_eq!(reach(&backend, None), Reach::None);
        }
    }

    #[test]
    fn a_visitor_comes_back_to_the_same_endpoint_where_asked() {
        let sticky = Alternative { affinity: true, ..to(&["n1", "n2", "n3", "n4"]) };
        let all = backend(vec![sticky.clone()]);
        let mut seen = BTreeMap::<_, u32>::new();
        let mut moved = 0;
        for visitor in 0..=255_u8 {
            let visitor = IpAddr::from([203, 0, 113, visitor]);
            let chosen = |backend: &Backend, flow| match choose(backend, None, visitor, flow) {
                Choice::Endpoints { endpoints, .. } => endpoints[0],
                Choice::Invalid(_) | Choice::None => panic!("there are endpoints"),
            };
            let first = chosen(&all, random(1));
            assert!((2..20).all(|flow| chosen(&all, random(flow)) == first));
            *seen.entry(first).or_default() += 1;
            // Without one endpoint, only its own visitors move.
            let mut fewer = sticky.clone();
            let Target::Endpoints(endpoints) = &mut fewer.target else { unreachable!() };
            endpoints.remove(0);
            let then = chosen(&backend(vec![fewer]), random(1));
            moved += u32::from(then != first);
        }
        assert_eq!(seen.len(), 4, "{seen:?}");
        assert_eq!(moved, seen[&endpoint(0)]);
    }

    #[test]
    fn a_transparent_backend_is_served_on_its_own_node_alone() {
        let transparent =
            Alternative { client_address: ClientAddress::Transparent, ..to(&["n1", "n2"]) };
        let backend = backend(vec![transparent]);
        assert_eq!(reach(&backend, Some("n1")), Reach::Local);
        assert_eq!(reach(&backend, Some("n3")), Reach::None);
        assert_eq!(choose(&backend, Some("n3"), VISITOR, random(1)), Choice::None);
        assert!((0..20).all(|flow| first(&backend, Some("n2"), flow) == endpoint(1)));
    }

    fn backend(alternatives: Vec<Alternative>) -> Backend {
        Backend { protocol: Protocol::Tcp, alternatives, tls: None }
    }

    /// Ready endpoints on these nodes.
    fn to(nodes: &[&str]) -> Alternative {
        let endpoints = (0_u8..).zip(nodes).map(|(number, node)| Endpoint {
            address: endpoint(number),
            node: Some((*node).to_owned()),
            ready: true,
        });
        Alternative {
            weight: 1,
            target: Target::Endpoints(endpoints.collect()),
            client_address: ClientAddress::Hidden,
            prefer_local: false,
            affinity: false,
        }
    }

    fn endpoint(number: u8) -> SocketAddr {
        ([10, 1, 0, number], 8080).into()
    }

    fn first(backend: &Backend, node: Option<&str>, flow: u64) -> SocketAddr {
        match choose(backend, node, VISITOR, random(flow)) {
            Choice::Endpoints { endpoints, .. } => endpoints[0],
            Choice::Invalid(_) | Choice::None => panic!("there are endpoints"),
        }
    }

    /// Spreads small numbers over all values (splitmix64).
    fn random(seed: u64) -> u64 {
        let mut value = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }
}
