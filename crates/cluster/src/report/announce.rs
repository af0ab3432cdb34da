//! Which findings become Events, and when. No API and no clock: the caller brings the time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use api::object::ObjectRef;
use planner::finding::Finding;

use super::bucket::Bucket;

/// How often an Event is renewed while its finding lasts. The API server forgets Events after an
/// hour (`--event-ttl`).
const RENEW: Duration = Duration::from_secs(30 * 60);

/// How soon a finding that went and came back is told again.
const AGAIN: Duration = Duration::from_secs(60);

/// All Events together: a burst of a hundred, then ten a second.
const ALL: (u32, Duration) = (100, Duration::from_millis(100));

/// The Events on one object: a burst of ten, then one a minute.
const ONE: (u32, Duration) = (10, Duration::from_secs(60));

/// Decides which findings to tell.
#[derive(Debug)]
pub(super) struct Announcer {
    findings: BTreeMap<Finding, Told>,
    all: Bucket,
    objects: BTreeMap<ObjectRef, Bucket>,
}

#[derive(Clone, Copy, Debug)]
struct Told {
    /// Whether the finding is there now.
    lasts: bool,
    /// When it was last told.
    at: Option<Instant>,
    /// When it is to be told; `None` when it need not be.
    due: Option<Instant>,
}

impl Announcer {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            findings: BTreeMap::new(),
            all: Bucket::new(ALL.0, ALL.1, now),
            objects: BTreeMap::new(),
        }
    }

    /// Takes in all findings that there are.
    pub(super) fn findings(&mut self, findings: &BTreeSet<Finding>, now: Instant) {
        for (finding, told) in &mut self.findings {
            if told.lasts && !findings.contains(finding) {
                told.lasts = false;
                told.due = None;
            }
        }
        for finding in findings {
            match self.findings.get_mut(finding) {
                Some(told) if told.lasts => {}
                Some(told) => {
                    told.lasts = true;
                    told.due = Some(told.at.map_or(now, |it| now.max(it + AGAIN)));
                }
                None => {
                    let told = Told { lasts: true, at: None, due: Some(now) };
                    self.findings.insert(finding.clone(), told);
                }
            }
        }
        self.findings.retain(|_, it| it.lasts || it.at.is_some_and(|at| at + RENEW > now));
        self.objects.retain(|_, it| !it.is_full(now));
    }

    /// When to call [`due`](Self::due) next, if ever.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.findings.values().filter_map(|it| it.due).min()
    }

    /// Returns the findings to tell now. Each is due again later, until it [was
    /// told](Self::told).
    pub(super) fn due(&mut self, now: Instant) -> Vec<Finding> {
        let mut due = Vec::new();
        for (finding, told) in &mut self.findings {
            if told.due.is_none_or(|it| it > now) {
                continue;
            }
            let object = self
                .objects
                .entry(finding.object.clone())
                .or_insert_with(|| Bucket::new(ONE.0, ONE.1, now));
            // Asked first, so that a noisy object takes nothing from the others.
            let allowed = object.take(now).and_then(|()| self.all.take(now));
            match allowed {
                Ok(()) => {
                    told.due = Some(now + AGAIN);
                    due.push(finding.clone());
                }
                Err(later) => told.due = Some(later),
            }
        }
        due
    }

    /// Takes in that a finding was told.
    pub(super) fn told(&mut self, finding: &Finding, now: Instant) {
        if let Some(told) = self.findings.get_mut(finding) {
            told.at = Some(now);
            told.due = told.lasts.then_some(now + RENEW);
        }
    }

    /// Takes in that a finding could not be told, and when to try again.
    pub(super) fn failed(&mut self, finding: &Finding, again: Instant) {
        if let Some(told) = self.findings.get_mut(finding) {
            told.due = told.lasts.then_some(again);
        }
    }
}
