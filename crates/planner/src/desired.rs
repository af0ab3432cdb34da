//! What one host should forward: the document between deciding and spelling out.
//!
//! It holds no open question: every address is resolved, every conflict is settled. A backend
//! spells it as nftables or iptables text, and the same value always gives the same text.

mod display;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use api::interface::InterfaceName;
use api::object::ObjectRef;
use api::port::{Port, Protocol};
use api::source_range::SourceRanges;

/// Everything that one host should forward.
///
/// The planner promises: for one protocol and port there is either a single forward for
/// [`Exposure::Everywhere`], or at most one each for the two others; every node set that a forward
/// names has [`nodes`](Self::nodes); no node set and no set of pods is empty; with no external
/// interface every forward is for [`Exposure::Everywhere`].
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Forwarding {
    /// Where traffic enters and which destinations count as the host.
    pub entry: Entry,
    /// Help that the host's own rules may need; all off by default.
    pub options: Options,
    /// Addresses of nodes, by name, so that a change of nodes changes one set and no forward.
    /// [`NodeSetName::OfFamily`] is not among them, but is a part of [`NodeSetName::All`].
    pub node_sets: BTreeMap<NodeSetName, BTreeSet<IpAddr>>,
    /// Host ports and where they lead.
    pub forwards: BTreeMap<ForwardKey, Forward>,
}

impl Forwarding {
    /// The addresses of a set of nodes; none when there is no such set.
    pub fn nodes(&self, set: &NodeSetName) -> impl Iterator<Item = IpAddr> {
        let (set, family) = match set {
            NodeSetName::All | NodeSetName::WithEndpoints { .. } => (set, None),
            NodeSetName::OfFamily(family) => (&NodeSetName::All, Some(*family)),
        };
        let nodes = self.node_sets.get(set).into_iter().flatten().copied();
        nodes.filter(move |it| family.is_none_or(|family| family.has(*it)))
    }

    /// The forwards of one host port.
    pub fn at(
        &self,
        protocol: Protocol,
        port: Port,
    ) -> impl Iterator<Item = (ForwardKey, &Forward)> {
        let key = |exposure| ForwardKey { protocol, port, exposure };
        let (first, last) = (key(Exposure::Everywhere), key(Exposure::External));
        self.forwards.range(first..=last).map(|(key, forward)| (*key, forward))
    }

    /// Replaces the forwards of some host ports.
    pub fn replace(&mut self, ports: PortForwards) {
        for ((protocol, port), forwards) in ports {
            for exposure in [Exposure::Everywhere, Exposure::Internal, Exposure::External] {
                self.forwards.remove(&ForwardKey { protocol, port, exposure });
            }
            self.forwards.extend(forwards);
        }
    }

    /// Whether a forward sends anything to targets of a family.
    #[must_use]
    pub fn reaches(&self, forward: &Forward, family: IpFamily) -> bool {
        match &forward.targets {
            Targets::Nodes { set, .. } => self.nodes(set).any(|it| family.has(it)),
            Targets::Pods(pods) => pods.iter().any(|it| family.has(it.ip())),
        }
    }
}

/// All forwards of some host ports; a host port with none is not forwarded.
pub type PortForwards = BTreeMap<(Protocol, Port), Vec<(ForwardKey, Forward)>>;

/// Where traffic enters, and which destination addresses count as the host.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Entry {
    /// The interface that internal forwards are not reachable through.
    pub external: Option<InterfaceName>,
    /// The other interfaces that forwards are reachable through; never holds `external`.
    pub internal: BTreeSet<InterfaceName>,
    /// Which destination addresses a packet must have to be forwarded.
    pub destinations: Destinations,
}

/// Which destination addresses a packet must have to be forwarded.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Destinations {
    /// Any address of the host itself; what the host routes through is left alone.
    #[default]
    Local,
    /// Exactly these: the external interface's addresses and the extra internal addresses. The
    /// host's own programs reach forwards on these addresses too (over `lo`), without a check of
    /// source ranges.
    Addresses(BTreeSet<IpAddr>),
}

/// Help that the host's own rules may need; all off by default.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Options {
    /// Accept forwarded connections in the forward hook, for hosts whose policy is to drop.
    pub accept_forwarded: bool,
    /// Give forwarded connections the host's address as their source, for targets whose way back
    /// does not lead through the host.
    pub masquerade: bool,
    /// Masquerade connections that a target opens to the host and that lead back into the
    /// target's own network, so that the answer returns through the host.
    pub hairpin: bool,
}

/// The name of a set of nodes.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum NodeSetName {
    /// Every node that takes traffic.
    All,
    /// The same nodes, at their addresses of one family alone: for Services that have no other
    /// (`spec.ipFamilies`), behind whose node ports nothing answers in the other.
    OfFamily(IpFamily),
    /// The nodes with a ready endpoint of one Service (`externalTrafficPolicy: Local`), at their
    /// addresses of the families that the Service has.
    WithEndpoints {
        /// The Service's namespace.
        namespace: String,
        /// The Service's name.
        service: String,
    },
}

/// A version of the Internet Protocol.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum IpFamily {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl IpFamily {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    /// The family of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv6() { Self::Ipv6 } else { Self::Ipv4 }
    }

    /// Whether an address is of this family.
    #[must_use]
    pub fn has(self, address: IpAddr) -> bool {
        self == Self::of(address)
    }
}

/// The key of a forward: its host port, and through which interfaces it is reachable.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct ForwardKey {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The host port.
    pub port: Port,
    /// Through which interfaces it is reachable.
    pub exposure: Exposure,
}

impl fmt::Display for ForwardKey {
    /// `443/tcp`, `443/tcp internal`, `443/tcp external`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.port, self.protocol)?;
        match self.exposure {
            Exposure::Everywhere => Ok(()),
            Exposure::Internal => f.write_str(" internal"),
            Exposure::External => f.write_str(" external"),
        }
    }
}

/// Through which interfaces a forward is reachable.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Exposure {
    /// Through every interface.
    Everywhere,
    /// Not through the external interface.
    Internal,
    /// Only through the external interface.
    External,
}

/// Where one host port leads.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Forward {
    /// The object that asked for it.
    pub owner: ObjectRef,
    /// Where new connections go.
    pub targets: Targets,
    /// Who may use it; `None` for everyone.
    pub sources: Option<SourceRanges>,
    /// Whether one source address keeps its target as long as the set of targets stays.
    pub affinity: bool,
}

/// Where new connections go. They are spread evenly over the targets of their own family; a
/// family without targets is not forwarded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Targets {
    /// The nodes of a set, all at one port.
    Nodes {
        /// The set, a key of [`Forwarding::node_sets`].
        set: NodeSetName,
        /// The node port.
        port: Port,
    },
    /// Pods, each at its own port.
    Pods(BTreeSet<SocketAddr>),
}
