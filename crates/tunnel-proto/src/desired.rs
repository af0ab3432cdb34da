//! Which wish of a cluster's agents is in force, and what it changes.
//!
//! Listening sockets belong to the wish and not to a session: they stay open when agents leave, and
//! a port that two wishes have in common is never closed in between.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use crate::message::{Desired, Protocol, PublishedPort};

/// What a published port is called by: there is at most one of each.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Port {
    /// The address; `None` means every one that the gateway offers.
    pub address: Option<IpAddr>,
    /// The protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
}

impl From<&PublishedPort> for Port {
    fn from(port: &PublishedPort) -> Self {
        Self { address: port.address, protocol: port.protocol, port: port.port }
    }
}

impl fmt::Display for Port {
    /// As in `192.0.2.1:443/tcp`, `[2001:db8::1]:53/udp` and `*:80/tcp`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            None => write!(f, "*")?,
            Some(IpAddr::V4(it)) => write!(f, "{it}")?,
            Some(IpAddr::V6(it)) => write!(f, "[{it}]")?,
        }
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        write!(f, ":{}/{protocol}", self.port)
    }
}

/// The wish of one cluster that is in force.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Wish {
    revision: Option<u64>,
    /// The agent that said so, as long as it is there.
    by: Option<String>,
    ports: BTreeMap<Port, PublishedPort>,
}

/// Why a wish is not taken. What was in force stays in force.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotTaken {
    /// It is older than the one in force.
    #[error("revision {offered} is older than {held}, which is in force")]
    Older {
        /// The revision that stays.
        held: u64,
        /// The revision that was offered.
        offered: u64,
    },
    /// It names a port twice.
    #[error("{0} is wished twice")]
    Twice(Port),
    /// It names port 0.
    #[error("{0}: there is no port 0")]
    PortZero(Port),
}

impl Wish {
    /// Nothing is wished, and any wish is newer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The revision in force; `None` before the first.
    #[must_use]
    pub const fn revision(&self) -> Option<u64> {
        self.revision
    }

    /// Every port that is wished.
    #[must_use]
    pub const fn ports(&self) -> &BTreeMap<Port, PublishedPort> {
        &self.ports
    }

    /// Takes a wish of the agent of this name and returns what it changes. A wish of the same
    /// revision is taken too: agents that see the same cluster may still disagree for a moment, and
    /// the last word counts.
    ///
    /// An older one is not taken while another agent stands for the one in force. When nobody does
    /// any more, or that agent itself has come to see something older, the cluster's history was set
    /// back, as by a backup that was restored.
    ///
    /// # Errors
    ///
    /// When it is older than the one in force, or contradicts itself.
    pub fn take(&mut self, desired: Desired, by: &str) -> Result<Plan, NotTaken> {
        let by_another = self.by.as_ref().is_some_and(|it| it != by);
        if let Some(held) = self.revision.filter(|held| desired.revision < *held && by_another) {
            return Err(NotTaken::Older { held, offered: desired.revision });
        }
        let mut ports = BTreeMap::new();
        for port in desired.ports {
            let key = Port::from(&port);
            if key.port == 0 {
                return Err(NotTaken::PortZero(key));
            }
            if ports.insert(key, port).is_some() {
                return Err(NotTaken::Twice(key));
            }
        }
        let plan = plan(&ports, &self.ports);
        self.revision = Some(desired.revision);
        self.by = Some(by.to_owned());
        self.ports = ports;
        Ok(plan)
    }

    /// An agent has left. What it wished stays in force; nobody stands for it any more.
    pub fn left(&mut self, agent: &str) {
        self.by.take_if(|it| it == agent);
    }
}

/// What turns the current listeners into the wished ones, in this order: closed before opened, so
/// that a port which moves from one address to all is free when it is asked for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Plan {
    /// What to do.
    pub steps: Vec<Step>,
}

/// One listener's part of a [`Plan`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// Close it. Flows that are open go on.
    Close(Port),
    /// Go on listening, with other rules or another route for new flows.
    Change(PublishedPort),
    /// Open it.
    Open(PublishedPort),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Close(port) => write!(f, "- {port}"),
            Self::Change(it) => write!(f, "~ {} for {}", Port::from(it), it.owner),
            Self::Open(it) => write!(f, "+ {} for {}", Port::from(it), it.owner),
        }
    }
}

impl fmt::Display for Plan {
    /// One line for each step.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().try_for_each(|it| writeln!(f, "{it}"))
    }
}

impl Plan {
    /// Whether there is nothing to do.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

/// Returns what turns `current` into `wished`. Empty exactly when they are equal.
#[must_use]
pub fn plan(
    wished: &BTreeMap<Port, PublishedPort>,
    current: &BTreeMap<Port, PublishedPort>,
) -> Plan {
    let closed = current.keys().filter(|it| !wished.contains_key(it)).copied().map(Step::Close);
    let changed = wished
        .iter()
        .filter(|(key, it)| current.get(key).is_some_and(|current| current != *it))
        .map(|(_, it)| Step::Change(it.clone()));
    let opened = wished
        .iter()
        .filter(|(key, _)| !current.contains_key(key))
        .map(|(_, it)| Step::Open(it.clone()));
    Plan { steps: closed.chain(changed).chain(opened).collect() }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;
    use crate::message::{Limits, Route};

    #[test]
    fn listeners_in_common_stay_open() {
        check(
            "192.0.2.1:22/tcp=a 192.0.2.1:443/tcp=b *:53/udp=c",
            "192.0.2.1:443/tcp=b *:53/udp=d [2001:db8::1]:80/tcp=e",
            expect![[r#"
                - 192.0.2.1:22/tcp
                ~ *:53/udp for d
                + [2001:db8::1]:80/tcp for e
            "#]],
        );
        check(
            "*:1/tcp=a",
            "192.0.2.1:1/tcp=a",
            expect![[r#"
            - *:1/tcp
            + 192.0.2.1:1/tcp for a
        "#]],
        );
        check("*:1/tcp=a", "*:1/tcp=a", expect![""]);
    }

    #[test]
    fn the_newest_wish_wins() {
        let mut wish = Wish::new();
        assert_eq!(wish.revision(), None);
        wish.take(desired(0, "*:1/tcp=a"), "x").expect("any wish is newer than none");
        wish.take(desired(5, "*:2/tcp=a"), "x").expect("newer");
        let error = wish.take(desired(4, "*:3/tcp=a"), "y").expect_err("older");
        assert_eq!(error.to_string(), "revision 4 is older than 5, which is in force");
        wish.take(desired(5, "*:4/tcp=a"), "y").expect("as new: the last word counts");
        assert_eq!(wish.ports().keys().map(ToString::to_string).collect::<Vec<_>>(), ["*:4/tcp"]);
    }

    #[test]
    fn an_older_wish_is_taken_when_nobody_stands_for_the_newer_one() {
        let mut wish = Wish::new();
        wish.take(desired(9, "*:1/tcp=a"), "x").expect("the first");
        wish.take(desired(8, "*:2/tcp=a"), "x").expect("its own word");
        wish.take(desired(7, "*:3/tcp=a"), "y").expect_err("x stands for 8");
        wish.left("y");
        wish.take(desired(7, "*:3/tcp=a"), "y").expect_err("x stands for 8 still");
        wish.left("x");
        assert_eq!(wish.revision(), Some(8));
        assert_eq!(wish.ports().len(), 1, "what was wished stays in force");
        wish.take(desired(7, "*:3/tcp=a"), "y").expect("nobody stands for 8");
    }

    #[test]
    fn a_wish_that_contradicts_itself_changes_nothing() {
        let mut wish = Wish::new();
        wish.take(desired(1, "*:1/tcp=a"), "x").expect("the first");
        let before = wish.clone();
        let error = wish.take(desired(2, "*:2/tcp=a *:2/udp=b *:2/tcp=c"), "x");
        let error = error.expect_err("twice");
        assert_eq!(error.to_string(), "*:2/tcp is wished twice");
        let error = wish.take(desired(2, "192.0.2.1:0/udp=a"), "x").expect_err("port 0");
        assert_eq!(error.to_string(), "192.0.2.1:0/udp: there is no port 0");
        assert_eq!(wish, before);
    }

    proptest! {
        #[test]
        fn carrying_a_plan_out_reaches_the_wish(wished in ports(), current in ports()) {
            let mut model = current.clone();
            for step in plan(&wished, &current).steps {
                match step {
                    Step::Close(port) => prop_assert!(model.remove(&port).is_some()),
                    Step::Change(it) => {
                        prop_assert!(model.insert(Port::from(&it), it).is_some());
                    }
                    Step::Open(it) => prop_assert!(model.insert(Port::from(&it), it).is_none()),
                }
            }
            prop_assert_eq!(&model, &wished);
            prop_assert!(plan(&wished, &model).is_empty());
        }
    }

    fn ports() -> impl Strategy<Value = BTreeMap<Port, PublishedPort>> {
        let port = (proptest::option::of(0_u8..2), 1_u16..4, any::<bool>(), 0_u8..3);
        proptest::collection::vec(port, 0..8).prop_map(|ports| {
            let ports = ports.into_iter().map(|(address, port, udp, owner)| {
                let address = address.map(|it| IpAddr::from([192, 0, 2, it]));
                let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
                published(Port { address, protocol, port }, &owner.to_string())
            });
            ports.map(|it| (Port::from(&it), it)).collect()
        })
    }

    /// Reads `ADDRESS:PORT/PROTOCOL=OWNER`, as steps print them.
    fn desired(revision: u64, ports: &str) -> Desired {
        let ports = ports.split_whitespace().map(|it| {
            let (port, owner) = it.split_once('=').expect("an owner");
            let (address, rest) = port.rsplit_once(':').expect("a port");
            let (port, protocol) = rest.split_once('/').expect("a protocol");
            let address = match address {
                "*" => None,
                it => Some(it.trim_matches(['[', ']']).parse().expect("an address")),
            };
            let protocol = if protocol == "udp" { Protocol::Udp } else { Protocol::Tcp };
            published(Port { address, protocol, port: port.parse().expect("a port") }, owner)
        });
        Desired { revision, ports: ports.collect(), quota: None }
    }

    fn published(port: Port, owner: &str) -> PublishedPort {
        PublishedPort {
            address: port.address,
            port: port.port,
            protocol: port.protocol,
            owner: owner.into(),
            route: Route::Nowhere,
            allow_from: Vec::new(),
            limits: Limits::default(),
            idle_seconds: 0,
        }
    }

    #[track_caller]
    fn check(before: &str, after: &str, expected: Expect) {
        let mut wish = Wish::new();
        wish.take(desired(1, before), "x").expect("the first");
        let plan = wish.take(desired(2, after), "x").expect("the second");
        expected.assert_eq(&plan.to_string());
    }
}
