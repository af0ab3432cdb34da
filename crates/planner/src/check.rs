//! What must be true of any desired state, whatever the input was.
//!
//! Planning keeps these promises by construction; tests and debug builds hold it to them, and
//! whoever gets a desired state from elsewhere can check it before use.

use std::fmt;

use crate::desired::{
    Destinations, Exposure, ForwardKey, Forwarding, IpFamily, NodeSetName, Targets,
};

/// A promise of [`Forwarding`] that does not hold.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Violation {
    /// The host port is forwarded for everywhere, and once more for a part of it.
    Overlap(ForwardKey),
    /// The forward names a set of nodes that is not there.
    UnknownNodeSet(ForwardKey),
    /// A set of nodes is empty.
    EmptyNodeSet(NodeSetName),
    /// The forward leads to no Pod.
    NoPods(ForwardKey),
    /// There is no external interface, and the forward tells interfaces apart.
    NoExternalInterface(ForwardKey),
    /// The external interface is also an internal one.
    ExternalIsInternal,
    /// Destinations are listed although there is no external interface, or the other way round.
    DestinationsDoNotFit,
    /// There are forwards, but no destination address: a backend might read it as any address.
    NoDestination,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overlap(key) => write!(f, "{key} overlaps another forward of that port"),
            Self::UnknownNodeSet(key) => write!(f, "{key} leads to a set of nodes that is missing"),
            Self::EmptyNodeSet(name) => write!(f, "the set {name} is empty"),
            Self::NoPods(key) => write!(f, "{key} leads to no pod"),
            Self::NoExternalInterface(key) => {
                write!(f, "{key} tells interfaces apart, but no interface is external")
            }
            Self::ExternalIsInternal => f.write_str("the external interface is internal as well"),
            Self::DestinationsDoNotFit => {
                f.write_str("destination addresses and external interface do not fit")
            }
            Self::NoDestination => f.write_str("there are forwards but no destination address"),
        }
    }
}

/// Returns every promise that `forwarding` breaks; none when it is sound.
#[must_use]
pub fn violations(forwarding: &Forwarding) -> Vec<Violation> {
    let Forwarding { entry, options: _, node_sets, forwards } = forwarding;
    let mut found = Vec::new();
    match (&entry.external, &entry.destinations) {
        (None, Destinations::Local) => {}
        (Some(_), Destinations::Addresses(addresses)) => {
            if addresses.is_empty() && !forwards.is_empty() {
                found.push(Violation::NoDestination);
            }
        }
        (None, Destinations::Addresses(_)) | (Some(_), Destinations::Local) => {
            found.push(Violation::DestinationsDoNotFit);
        }
    }
    if entry.external.as_ref().is_some_and(|it| entry.internal.contains(it)) {
        found.push(Violation::ExternalIsInternal);
    }
    let empty = node_sets.iter().filter(|(_, addresses)| addresses.is_empty());
    found.extend(empty.map(|(name, _)| Violation::EmptyNodeSet(name.clone())));
    // Only these are empty without being found empty above.
    let [v4, v6] = IpFamily::ALL.map(|it| {
        let set = NodeSetName::OfFamily(it);
        forwarding.nodes(&set).next().is_some()
    });
    let is_known = |set: &NodeSetName| match set {
        NodeSetName::OfFamily(IpFamily::Ipv4) => v4,
        NodeSetName::OfFamily(IpFamily::Ipv6) => v6,
        NodeSetName::All | NodeSetName::WithEndpoints { .. } => node_sets.contains_key(set),
    };
    for (&key, forward) in forwards {
        match key.exposure {
            Exposure::Everywhere => {}
            Exposure::Internal | Exposure::External => {
                if entry.external.is_none() {
                    found.push(Violation::NoExternalInterface(key));
                }
                let everywhere = ForwardKey { exposure: Exposure::Everywhere, ..key };
                if forwards.contains_key(&everywhere) {
                    found.push(Violation::Overlap(key));
                }
            }
        }
        match &forward.targets {
            Targets::Nodes { set, port: _ } if !is_known(set) => {
                found.push(Violation::UnknownNodeSet(key));
            }
            Targets::Pods(pods) if pods.is_empty() => found.push(Violation::NoPods(key)),
            Targets::Nodes { .. } | Targets::Pods(_) => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use api::object::{ObjectKind, ObjectRef};
    use api::port::{Port, Protocol};

    use super::*;
    use crate::desired::{Entry, Forward};

    #[test]
    fn every_broken_promise_is_named() {
        check(|_| {}, &[]);
        check(|it| it.node_sets.clear(), &["80/tcp leads to a set of nodes that is missing"]);
        let only = |family| {
            move |it: &mut Forwarding| {
                let set = NodeSetName::OfFamily(family);
                let to = Targets::Nodes { set, port: port(30080) };
                it.forwards.values_mut().for_each(|it| it.targets = to.clone());
            }
        };
        check(only(IpFamily::Ipv4), &[]);
        check(only(IpFamily::Ipv6), &["80/tcp leads to a set of nodes that is missing"]);
        check(
            |it| drop(it.node_sets.insert(NodeSetName::All, BTreeSet::new())),
            &["the set nodes is empty"],
        );
        check(
            |it| {
                it.forwards.values_mut().for_each(|it| it.targets = Targets::Pods(BTreeSet::new()))
            },
            &["80/tcp leads to no pod"],
        );
        check(
            |it| drop(it.forwards.insert(key(Exposure::Internal), forward())),
            &["80/tcp internal overlaps another forward of that port"],
        );
        check(
            |it| it.entry.destinations = Destinations::Addresses(BTreeSet::new()),
            &["there are forwards but no destination address"],
        );
        check(
            |it| it.entry.external = None,
            &["destination addresses and external interface do not fit"],
        );
        check(
            |it| it.entry.destinations = Destinations::Local,
            &["destination addresses and external interface do not fit"],
        );
        check(
            |it| it.entry.internal.extend(it.entry.external.clone()),
            &["the external interface is internal as well"],
        );
        check(
            |it| {
                it.entry = Entry::default();
                it.forwards = BTreeMap::from([(key(Exposure::External), forward())]);
            },
            &["80/tcp external tells interfaces apart, but no interface is external"],
        );
    }

    /// Breaks a sound state and compares what is found.
    #[track_caller]
    fn check(break_it: impl FnOnce(&mut Forwarding), expected: &[&str]) {
        let mut state = Forwarding {
            entry: Entry {
                external: Some("eth0".parse().expect("an interface")),
                internal: BTreeSet::from(["wg0".parse().expect("an interface")]),
                destinations: Destinations::Addresses(BTreeSet::from([[192, 0, 2, 1].into()])),
            },
            node_sets: BTreeMap::from([(NodeSetName::All, BTreeSet::from([[10, 0, 0, 1].into()]))]),
            forwards: BTreeMap::from([(key(Exposure::Everywhere), forward())]),
            ..Forwarding::default()
        };
        break_it(&mut state);
        let found: Vec<_> = violations(&state).iter().map(ToString::to_string).collect();
        assert_eq!(found, expected);
    }

    fn key(exposure: Exposure) -> ForwardKey {
        ForwardKey { protocol: Protocol::Tcp, port: port(80), exposure }
    }

    fn forward() -> Forward {
        Forward {
            owner: ObjectRef::namespaced(ObjectKind::Service, "web", "blog"),
            targets: Targets::Nodes { set: NodeSetName::All, port: port(30080) },
            sources: None,
            affinity: false,
        }
    }

    fn port(number: u16) -> Port {
        Port::new(number).expect("not zero")
    }
}
