//! When to plan: at once after a quiet time, then at most once in an interval.
//!
//! A rollout that changes a hundred objects in a second costs a handful of plans, and a lone change
//! waits for nothing. No change waits longer than the interval, however many follow it.

use std::time::{Duration, Instant};

/// Spaces out plans; knows no clock.
#[derive(Debug)]
pub(crate) struct Pace {
    interval: Duration,
    pending: bool,
    last: Option<Instant>,
}

impl Pace {
    /// Plans are at least `interval` apart.
    pub(crate) fn new(interval: Duration) -> Self {
        Self { interval, pending: false, last: None }
    }

    /// Something changed.
    pub(crate) fn request(&mut self) {
        self.pending = true;
    }

    /// Returns when the next plan is due, if one is: at `now` or later.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        let earliest = self.last.map_or(now, |last| last + self.interval);
        self.pending.then(|| earliest.max(now))
    }

    /// A plan covers everything requested so far.
    pub(crate) fn planned(&mut self, now: Instant) {
        self.pending = false;
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(50);

    #[test]
    fn a_lone_change_is_planned_at_once() {
        let start = Instant::now();
        let mut pace = Pace::new(INTERVAL);
        assert_eq!(pace.due(start), None);
        pace.request();
        assert_eq!(pace.due(start), Some(start));
    }

    #[test]
    fn a_burst_is_planned_once_an_interval_and_no_change_waits_longer() {
        let start = Instant::now();
        let mut pace = Pace::new(INTERVAL);
        pace.request();
        pace.planned(start);
        for millis in [1, 10, 49] {
            pace.request();
            assert_eq!(pace.due(start + Duration::from_millis(millis)), Some(start + INTERVAL));
        }
        pace.planned(start + INTERVAL);
        assert_eq!(pace.due(start + INTERVAL), None, "one plan covers the whole burst");
    }
}
