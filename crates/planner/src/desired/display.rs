//! How a desired state reads: stable text for people and for tests.

use std::fmt;

use super::{
    Destinations, Exposure, Forward, ForwardKey, Forwarding, IpFamily, NodeSetName, Targets,
};

impl fmt::Display for IpFamily {
    /// `IPv4` or `IPv6`, as Kubernetes spells them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        })
    }
}

impl fmt::Display for NodeSetName {
    /// `nodes`, `IPv4 nodes`, or `nodes of web/blog`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("nodes"),
            Self::OfFamily(family) => write!(f, "{family} nodes"),
            Self::WithEndpoints { namespace, service } => {
                write!(f, "nodes of {namespace}/{service}")
            }
        }
    }
}

impl fmt::Display for Forwarding {
    /// First where traffic enters, then the options that are on, the sets of nodes, and one line
    /// for each forward.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entry, options, node_sets, forwards } = self;
        f.write_str("through")?;
        for interface in &entry.internal {
            write!(f, " {interface}")?;
        }
        if let Some(external) = &entry.external {
            write!(f, " {external} (external)")?;
        }
        f.write_str(" to")?;
        match &entry.destinations {
            Destinations::Local => f.write_str(" any address of the host")?,
            Destinations::Addresses(addresses) if addresses.is_empty() => {
                f.write_str(" no address")?
            }
            Destinations::Addresses(addresses) => {
                for address in addresses {
                    write!(f, " {address}")?;
                }
            }
        }
        f.write_str("\n")?;
        let switches = [
            (options.accept_forwarded, "accept-forwarded"),
            (options.masquerade, "masquerade"),
            (options.hairpin, "hairpin"),
        ];
        if switches.iter().any(|(on, _)| *on) {
            f.write_str("with")?;
            for (_, name) in switches.iter().filter(|(on, _)| *on) {
                write!(f, " {name}")?;
            }
            f.write_str("\n")?;
        }
        for (name, addresses) in node_sets {
            write!(f, "{name}:")?;
            for address in addresses {
                write!(f, " {address}")?;
            }
            f.write_str("\n")?;
        }
        for (key, forward) in forwards {
            self.write_forward(f, key, forward)?;
        }
        Ok(())
    }
}

impl Forwarding {
    /// `443/tcp external+internal -> nodes:30443 [2 addresses] from 10.0.0.0/8 # Service web/blog`.
    fn write_forward(
        &self,
        f: &mut fmt::Formatter<'_>,
        key: &ForwardKey,
        forward: &Forward,
    ) -> fmt::Result {
        let Forward { owner, targets, sources, affinity } = forward;
        write!(f, "{}/{}", key.port, key.protocol)?;
        match key.exposure {
            // Without an external interface there is only one way in.
            Exposure::Everywhere if self.entry.external.is_none() => {}
            Exposure::Everywhere => f.write_str(" external+internal")?,
            Exposure::Internal => f.write_str(" internal")?,
            Exposure::External => f.write_str(" external")?,
        }
        match targets {
            Targets::Nodes { set, port } => {
                let count = self.nodes(set).count();
                let noun = if count == 1 { "address" } else { "addresses" };
                write!(f, " -> {set}:{port} [{count} {noun}]")?;
            }
            Targets::Pods(pods) => {
                f.write_str(" -> pods")?;
                for pod in pods {
                    write!(f, " {pod}")?;
                }
            }
        }
        if *affinity {
            f.write_str(" sticky")?;
        }
        if let Some(sources) = sources {
            write!(f, " from {sources}")?;
        }
        writeln!(f, " # {owner}")
    }
}
