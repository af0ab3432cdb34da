//! Tracked UDP flows that outlive the rules that they were made by.
//!
//! The kernel asks address translation only for the first packet of a flow, and a UDP flow has no
//! end that it could see: a client that keeps sending from one port is bound to its first target
//! for as long as it sends, even when that target is gone, and a flow that began before a port was
//! forwarded is never forwarded. TCP needs none of this: its connections end by themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use api::port::{Port, Protocol};
use command::{Command, Program};
use planner::desired::Exposure;

use crate::backend::Observed;
use crate::nftables::table::{PortKey, Table};
use crate::reach::Reach;

/// From how many host ports on a target that is gone altogether is forgotten in one command.
const MANY: usize = 4;

/// Returns the commands that delete the flows that are stale once `before` has become `after`.
///
/// `addresses` are the host's own. The commands are to be run after the rules are in force; each
/// fails with status 1 when there is no such flow, which is no error.
#[must_use]
pub fn stale(before: &Observed, after: &Observed, addresses: &BTreeSet<IpAddr>) -> Vec<Command> {
    let (old, new) = (Reach::new(before), Reach::new(after));
    let ports = [&old, &new].map(|it| it.ports(Protocol::Udp));
    stale_among(&old, &new, ports, addresses)
}

/// The same where only these host ports can have changed.
pub(crate) fn stale_at(
    before: Option<&Table>,
    after: Option<&Table>,
    ports: &BTreeSet<PortKey>,
    addresses: &BTreeSet<IpAddr>,
) -> Vec<Command> {
    let (old, new) = (Reach::of_table(before), Reach::of_table(after));
    let ports = [&old, &new].map(|it| it.among(ports, Protocol::Udp));
    stale_among(&old, &new, ports, addresses)
}

/// Looks at these host ports, those of the old state and those of the new one.
fn stale_among(
    old: &Reach<'_>,
    new: &Reach<'_>,
    [old_ports, new_ports]: [BTreeSet<(Exposure, Port)>; 2],
    addresses: &BTreeSet<IpAddr>,
) -> Vec<Command> {
    let mut gone: BTreeMap<IpAddr, BTreeSet<(Port, u16)>> = BTreeMap::new();
    let mut commands = Vec::new();
    for (exposure, port) in old_ports {
        if old.is_same(new, exposure, (Protocol::Udp, port)) {
            continue;
        }
        let was = old.targets(exposure, (Protocol::Udp, port));
        let is = targets_of_port(new, port);
        for target in was.difference(&is) {
            gone.entry(target.ip()).or_default().insert((port, target.port()));
        }
    }
    for (target, ports) in gone {
        if ports.len() >= MANY && !new.leads_to(Protocol::Udp, target) {
            commands.push(delete(target).args(["--reply-src".to_owned(), target.to_string()]));
            continue;
        }
        for (port, at) in ports {
            let ports = ["--orig-port-dst".to_owned(), port.to_string()];
            let from = ["--reply-src".to_owned(), target.to_string()];
            let at = ["--reply-port-src".to_owned(), at.to_string()];
            commands.push(delete(target).args(ports).args(from).args(at));
        }
    }
    for (exposure, port) in new_ports {
        if new.is_same(old, exposure, (Protocol::Udp, port)) {
            continue;
        }
        let is = new.targets(exposure, (Protocol::Udp, port));
        let was = targets_of_port(old, port);
        for host in addresses {
            let has =
                |it: &BTreeSet<SocketAddr>| it.iter().any(|it| it.is_ipv6() == host.is_ipv6());
            if has(&is) && !has(&was) {
                let ports = ["--orig-port-dst".to_owned(), port.to_string()];
                let to = ["--orig-dst".to_owned(), host.to_string()];
                let command = delete(*host).args(ports).args(to);
                if !commands.contains(&command) {
                    commands.push(command);
                }
            }
        }
    }
    commands
}

fn targets_of_port(reach: &Reach<'_>, port: Port) -> BTreeSet<SocketAddr> {
    let exposures = [Exposure::Everywhere, Exposure::Internal, Exposure::External];
    exposures.into_iter().flat_map(|it| reach.targets(it, (Protocol::Udp, port))).collect()
}

fn delete(family_of: IpAddr) -> Command {
    let family = if family_of.is_ipv6() { "ipv6" } else { "ipv4" };
    Command::new(Program::Conntrack).args(["-D", "-f", family, "-p", "udp"])
}
