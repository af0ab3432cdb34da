//! Which listeners cannot be told apart, and which only by reading requests.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use api::port::Port;
use api::server_name::ServerName;

use super::{ListenerState, Speaks};
use crate::publish::verdict::Verdict;

/// Finds the listeners among `own` that cannot be told apart from winners, or from each other.
pub(super) fn settle(all: &mut [ListenerState<'_>], own: Range<usize>, winners: Range<usize>) {
    let mut lost: BTreeMap<usize, (&'static str, String)> = BTreeMap::new();
    for index in own.clone() {
        let winner = winners.clone().find_map(|it| Some((it, conflict(&all[it], &all[index])?)));
        if let Some((winner, reason)) = winner {
            // Whose it is, the owner of this one need not be allowed to know in detail.
            let kind = all[winner].owner.kind;
            let message = format!("a listener of the {kind} that comes first has this port");
            lost.insert(index, (reason, message));
        }
    }
    let rest: BTreeSet<_> = own.filter(|it| !lost.contains_key(it)).collect();
    for &index in &rest {
        let others = rest.iter().filter(|it| **it != index);
        let other = others.filter_map(|it| Some((it, conflict(&all[*it], &all[index])?))).next();
        if let Some((other, reason)) = other {
            let message = format!("cannot be told apart from listener {}", all[*other].form.name);
            lost.insert(index, (reason, message));
        }
    }
    for (index, (reason, message)) in lost {
        let listener = &mut all[index];
        listener.accepted = Verdict::no(reason, message);
        listener.conflict = Some(reason);
    }
}

/// Finds the listeners of protocol HTTP on whose port hostnames say whose a request is. Only a look
/// into each request could tell, so none of them leads anywhere: better nothing than the requests
/// of another host.
pub(super) fn mark_hosts(all: &mut [ListenerState<'_>], of_gateway: Range<usize>) {
    let http = |it: &ListenerState<'_>| {
        it.opens().filter(|(speaks, _)| *speaks == Speaks::Http).map(|(_, port)| port)
    };
    let listeners = &mut all[of_gateway];
    let named = listeners.iter().filter(|it| *it.name() != ServerName::Any);
    let ports: BTreeSet<Port> = named.filter_map(http).collect();
    for listener in listeners {
        listener.needs_host = http(listener).is_some_and(|it| ports.contains(&it));
    }
}

/// Why two listeners cannot be told apart; `None` when they can, or when one is out already.
fn conflict(one: &ListenerState<'_>, other: &ListenerState<'_>) -> Option<&'static str> {
    let (first, port) = one.speaks.zip(one.form.port).filter(|_| one.accepted.is_true)?;
    let (second, same) = other.speaks.zip(other.form.port).filter(|_| other.accepted.is_true)?;
    if port != same || first.transport() != second.transport() {
        return None;
    }
    // Whether TLS ends or goes on is decided by name.
    let modes = [Speaks::Passthrough, Speaks::Terminate];
    let same = first == second || (modes.contains(&first) && modes.contains(&second));
    match same && first.has_names() {
        false => Some("ProtocolConflict"),
        true => (one.name() == other.name()).then_some("HostnameConflict"),
    }
}
