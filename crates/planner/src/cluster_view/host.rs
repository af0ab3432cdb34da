//! Reading Hosts.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use api::host::{Host, HostSettings};
use api::object::{ObjectKind, ObjectRef};

use super::owner::{finding, uid};
use super::pod::target;
use crate::finding::Finding;

/// What is kept of a Host.
#[derive(Debug)]
pub(super) struct HostEntry {
    pub(super) uid: Box<str>,
    pub(super) generation: Option<i64>,
    /// The settings that could last be understood.
    pub(super) settings: Option<Arc<HostSettings>>,
    pub(super) findings: Vec<Finding>,
    /// Where clients reach it, as its status tells; empty unless it does what was asked of it.
    pub(super) addresses: BTreeSet<IpAddr>,
    /// The version of the view in which any of this but the addresses last changed. They concern
    /// what Services are told, and no plan.
    pub(super) changed: u64,
}

impl HostEntry {
    /// Whether both ask for the same, whenever they came to ask for it.
    pub(super) fn asks_the_same(&self, other: &Self) -> bool {
        let Self { uid, generation, settings, findings, addresses: _, changed: _ } = self;
        *uid == other.uid
            && *generation == other.generation
            && *settings == other.settings
            && *findings == other.findings
    }
}

pub(super) fn read(host: &Host, before: Option<&HostEntry>, version: u64) -> HostEntry {
    let name = host.metadata.name.as_deref().unwrap_or_default();
    let object = ObjectRef::cluster(ObjectKind::Host, name);
    let (settings, problems) = match host.settings() {
        Ok(settings) => (Some(Arc::new(settings)), Vec::new()),
        Err(problems) => (before.and_then(|it| it.settings.clone()), problems),
    };
    let consequence = match settings {
        Some(_) => "; its last good settings stay in force",
        None => "; nothing is changed on the host",
    };
    let mut read = HostEntry {
        uid: uid(&host.metadata),
        generation: host.metadata.generation,
        settings,
        findings: problems.into_iter().map(|it| finding(&object, it, consequence)).collect(),
        addresses: addresses(host),
        changed: version,
    };
    if let Some(before) = before.filter(|it| it.asks_the_same(&read)) {
        read.changed = before.changed;
    }
    read
}

fn addresses(host: &Host) -> BTreeSet<IpAddr> {
    let status = host.status.as_ref().filter(|it| it.is_applied());
    status.into_iter().flat_map(|it| &it.addresses).filter_map(|it| target(it)).collect()
}
