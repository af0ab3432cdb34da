//! What a running controller tells about itself: the document behind `/status`.
//!
//! The same values feed the Host objects' status, `portcullis status` and the readiness probe, so
//! that they cannot contradict each other.

use std::collections::BTreeMap;
use std::net::IpAddr;

use cluster::source::State;
use jiff::Timestamp;
use planner::finding::Finding;
use serde::Serialize;

/// The whole state of a controller at one moment.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// The program's version.
    pub version: &'static str,
    /// Whether this replica holds the lease (always true without leader election).
    pub leader: bool,
    /// Whether every kind of object was listed at least once.
    pub complete: bool,
    /// Where objects come from, kind by kind.
    pub sources: BTreeMap<String, SourceState>,
    /// The hosts that this replica drives.
    pub hosts: BTreeMap<String, HostState>,
    /// What users got wrong or should know, most severe first.
    pub findings: Vec<Finding>,
    /// What is wrong with the source itself: unreadable files, missing permissions.
    pub problems: Vec<String>,
}

impl Snapshot {
    /// Returns why the controller is not ready to take traffic decisions, or nothing when it is.
    ///
    /// Ready means that every kind was listed and every host that this replica drives was brought
    /// to its desired state at least once and is reachable now. A standby replica is ready: it can
    /// take over.
    #[must_use]
    pub fn unready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if !self.complete {
            let waiting = self.sources.iter().filter(|(_, it)| !it.listed).map(|(kind, _)| &**kind);
            let waiting = waiting.collect::<Vec<_>>().join(", ");
            reasons.push(format!("the first list is not complete; waiting for: {waiting}"));
        }
        for (name, host) in &self.hosts {
            match &host.last_error {
                Some(error) => reasons.push(format!("host {name}: {error}")),
                None if host.revision == 0 => {
                    reasons.push(format!("host {name}: nothing was applied yet"));
                }
                None => {}
            }
        }
        reasons
    }
}

/// One kind of object at its source.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceState {
    /// Whether the complete set was seen.
    pub listed: bool,
    /// What the source is doing about it.
    pub state: State,
    /// How many objects matter to us.
    pub objects: usize,
    /// What last went wrong; it may be over, `state` tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// One host as this replica sees it.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HostState {
    /// `nftables` or `iptables`.
    pub backend: String,
    /// `local` or `ssh user@address:port`.
    pub executor: String,
    /// How often the desired state was reached, counting from 1; 0 before the first time.
    pub revision: u64,
    /// How many host ports are forwarded.
    pub forwards: usize,
    /// How many steps the last plan had.
    pub last_steps: usize,
    /// How long the last pass took, from the wish to the kernel's answer, in microseconds.
    pub last_pass_micros: u64,
    /// From the last change of an object that mattered here to the kernel's answer, in
    /// microseconds.
    pub last_lag_micros: u64,
    /// How often somebody else's change was found and undone.
    pub drift_repaired: u64,
    /// Why the last pass failed; `None` after a success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When the host was last changed (RFC 3339, UTC).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_applied: Option<Timestamp>,
    /// The host's own addresses that forwards are reachable on.
    pub addresses: Vec<IpAddr>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_names_what_is_missing() {
        let mut snapshot = Snapshot::default();
        let starting =
            SourceState { listed: false, state: State::Starting, objects: 0, last_error: None };
        snapshot.sources.insert("Service".to_owned(), starting);
        assert_eq!(snapshot.unready(), ["the first list is not complete; waiting for: Service"]);

        snapshot.complete = true;
        snapshot.hosts.insert("edge-a".to_owned(), HostState::default());
        assert_eq!(snapshot.unready(), ["host edge-a: nothing was applied yet"]);

        let failing = HostState { last_error: Some("no route".to_owned()), ..HostState::default() };
        snapshot.hosts.insert("edge-a".to_owned(), failing);
        assert_eq!(snapshot.unready(), ["host edge-a: no route"]);

        let applied = HostState { revision: 1, ..HostState::default() };
        snapshot.hosts.insert("edge-a".to_owned(), applied);
        assert!(snapshot.unready().is_empty());
    }
}
