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
        let waiting = self.findings.iter_mut();
        let mut waiting: Vec<_> =
            waiting.filter(|(_, it)| it.due.is_some_and(|it| it <= now)).collect();
        // What was never told goes first, so that renewals starve nobody.
        waiting.sort_by_key(|(_, it)| it.at);
        for (finding, told) in waiting {
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

#[cfg(test)]
mod tests {
    use api::object::ObjectKind;
    use planner::finding::Severity;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_finding_is_told_once_and_renewed_while_it_lasts() {
        let start = start();
        let mut announcer = Announcer::new(start);
        let findings = BTreeSet::from([finding("a", "1")]);

        announcer.findings(&findings, start);
        assert_eq!(tell(&mut announcer, start), 1);
        for pass in 1..100 {
            announcer.findings(&findings, start + SECOND * pass);
            assert_eq!(tell(&mut announcer, start + SECOND * pass), 0);
        }
        assert_eq!(announcer.poll_timeout(), Some(start + RENEW));
        assert_eq!(tell(&mut announcer, start + RENEW), 1);

        announcer.findings(&BTreeSet::new(), start + RENEW + SECOND);
        assert_eq!(announcer.poll_timeout(), None);
    }

    #[test]
    fn a_finding_that_comes_and_goes_is_told_once_a_minute() {
        let start = start();
        let mut announcer = Announcer::new(start);
        let findings = BTreeSet::from([finding("a", "1")]);
        let mut told = 0;
        for pass in 0..300 {
            let now = start + SECOND * pass;
            announcer
                .findings(if pass % 2 == 0 { &findings } else { const { &BTreeSet::new() } }, now);
            told += tell(&mut announcer, now);
        }
        assert_eq!(told, 5);
    }

    #[test]
    fn a_noisy_object_is_slowed_down_and_takes_nothing_from_others() {
        let start = start();
        let mut announcer = Announcer::new(start);
        let mut findings: BTreeSet<_> =
            (0..50).map(|it| finding("noisy", &it.to_string())).collect();
        findings.insert(finding("quiet", "1"));
        announcer.findings(&findings, start);

        let due = announcer.due(start);
        assert_eq!(due.iter().filter(|it| it.object.name == "noisy").count(), 10);
        assert_eq!(due.iter().filter(|it| it.object.name == "quiet").count(), 1);
        for it in &due {
            announcer.told(it, start);
        }

        // Nothing is lost: one a minute follows.
        let mut told = due.len();
        for minute in 1..=45 {
            let now = start + SECOND * 60 * minute;
            announcer.findings(&findings, now);
            for it in announcer.due(now) {
                told += usize::from(announcer.findings[&it].at.is_none());
                announcer.told(&it, now);
            }
        }
        assert_eq!(told, findings.len());
    }

    #[test]
    fn what_could_not_be_told_is_tried_again() {
        let start = start();
        let mut announcer = Announcer::new(start);
        let finding = finding("a", "1");
        announcer.findings(&BTreeSet::from([finding.clone()]), start);
        assert_eq!(announcer.due(start), std::slice::from_ref(&finding));
        announcer.failed(&finding, start + SECOND * 5);
        assert_eq!(announcer.due(start + SECOND * 4), []);
        assert_eq!(announcer.due(start + SECOND * 5), [finding]);
    }

    fn start() -> Instant {
        // Buckets look back; a machine that has just started has no past.
        Instant::now() + Duration::from_secs(100_000)
    }

    fn tell(announcer: &mut Announcer, now: Instant) -> usize {
        let due = announcer.due(now);
        for it in &due {
            announcer.told(it, now);
        }
        due.len()
    }

    fn finding(object: &str, value: &str) -> Finding {
        Finding {
            severity: Severity::Error,
            reason: "InvalidValue",
            object: ObjectRef::namespaced(ObjectKind::Service, "web", object),
            field: "portcullis.dev/host-ports".to_owned(),
            value: value.to_owned(),
            problem: "not a port".to_owned(),
            remedy: "write a port".to_owned(),
        }
    }
}
