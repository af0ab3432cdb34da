//! A ruleset that follows its forwarding is at every moment what would be rendered and planned anew.

use std::collections::BTreeSet;
use std::net::IpAddr;

use firewall::{Backend, StandingRuleset, conntrack};
use planner::desired::{Forwarding, Options, PortForwards};
use proptest::prelude::*;

use crate::laws::{BACKENDS, forwarding};

/// What happens to a host.
#[derive(Clone, Debug)]
enum Event {
    /// All host ports of the second forwarding come into the first.
    Ports(Forwarding),
    /// Another forwarding.
    Whole(Forwarding),
    /// The host is brought to the ruleset.
    Reach,
    /// Somebody has changed the host, which is read again.
    Disturb(Forwarding),
    /// This owner cannot be read, or everything can be.
    Keep(bool),
}

proptest! {
    #[test]
    fn following_is_rendering_and_planning_anew(
        begin in mostly_apart(),
        events in prop::collection::vec(event(), 1..12),
    ) {
        for backend in BACKENDS {
            follow(backend, &begin, &events)?;
        }
    }
}

fn follow(backend: Backend, begin: &Forwarding, events: &[Event]) -> Result<(), TestCaseError> {
    let (mut wished, mut keep) = (begin.clone(), BTreeSet::new());
    let mut standing = StandingRuleset::new(backend, begin.clone());
    prop_assert!(standing.plan().is_none(), "nobody knows what the host has");
    let mut host = backend.render(&Forwarding::default()).as_observed();
    standing.observe(host.clone());
    for event in events {
        match event {
            Event::Ports(from) => {
                let ports = ports(&wished, from);
                wished.replace(ports.clone());
                standing.replace_ports(ports);
            }
            Event::Whole(forwarding) => {
                wished = forwarding.clone();
                standing.replace(forwarding.clone());
            }
            Event::Reach => {
                let Some(plan) = standing.plan() else { continue };
                plan.apply_to(&mut host);
                standing.confirm(&plan);
                prop_assert_eq!(standing.observed(), Some(&host));
            }
            Event::Disturb(forwarding) => {
                host = backend.render(forwarding).as_observed();
                standing.doubt();
                prop_assert!(standing.plan().is_none());
                standing.observe(host.clone());
            }
            Event::Keep(some) => {
                let owners = wished.forwards.values().map(|it| it.owner.clone());
                keep = owners.take(usize::from(*some)).collect();
                standing.keep(keep.clone(), false);
            }
        }
        prop_assert_eq!(standing.forwarding(), &wished);
        let anew = backend.plan(&backend.render(&wished), &host, &keep);
        let plan = standing.plan().expect("the host was read");
        prop_assert_eq!(&plan, &anew, "after {:?}", event);
        let mut after = host.clone();
        plan.apply_to(&mut after);
        prop_assert_eq!(
            standing.stale_flows(&plan, &addresses()),
            conntrack::stale(&host, &after, &addresses())
        );
    }
    Ok(())
}

/// The host ports of `from`, and one that goes away.
fn ports(wished: &Forwarding, from: &Forwarding) -> PortForwards {
    let mut ports = PortForwards::new();
    if let Some(key) = wished.forwards.keys().next() {
        ports.insert((key.protocol, key.port), Vec::new());
    }
    for key in from.forwards.keys() {
        let forwards = from.at(key.protocol, key.port).map(|(key, it)| (key, it.clone()));
        ports.insert((key.protocol, key.port), forwards.collect());
    }
    ports
}

fn addresses() -> BTreeSet<IpAddr> {
    ["192.0.2.1", "2001:db8::1"].map(|it| it.parse().expect("an address")).into()
}

/// Most have none of the options that tie host ports together.
fn mostly_apart() -> impl Strategy<Value = Forwarding> {
    (forwarding(), 0..4).prop_map(|(forwarding, tied)| match tied {
        0 => forwarding,
        _ => Forwarding { options: Options::default(), ..forwarding },
    })
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => forwarding().prop_map(Event::Ports),
        1 => mostly_apart().prop_map(Event::Whole),
        4 => Just(Event::Reach),
        1 => forwarding().prop_map(Event::Disturb),
        1 => any::<bool>().prop_map(Event::Keep),
    ]
}
