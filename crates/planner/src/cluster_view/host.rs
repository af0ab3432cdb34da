//! Reading Hosts.

use std::sync::Arc;

use api::host::{Host, HostSettings};
use api::object::{ObjectKind, ObjectRef};

use super::owner::{finding, uid};
use crate::finding::Finding;

/// What is kept of a Host.
#[derive(Debug)]
pub(super) struct HostEntry {
    pub(super) uid: Box<str>,
    pub(super) generation: Option<i64>,
    /// The settings that could last be understood.
    pub(super) settings: Option<Arc<HostSettings>>,
    pub(super) findings: Vec<Finding>,
    /// The version of the view in which any of this last changed.
    pub(super) changed: u64,
}

impl HostEntry {
    /// Whether both say the same, whenever they came to say it.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        let Self { uid, generation, settings, findings, changed: _ } = self;
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
    HostEntry {
        uid: uid(&host.metadata),
        generation: host.metadata.generation,
        settings,
        findings: problems.into_iter().map(|it| finding(&object, it, consequence)).collect(),
        changed: version,
    }
}
