//! When to plan: at once after a quiet time, then at most once in an interval.
//!
//! A rollout that changes a hundred objects in a second costs a handful of plans, and a lone change
//! waits for nothing. No change waits longer than the interval, however many follow it.

use std::time::{Duration, Instant};

/// Spaces out work; asks no clock.
#[derive(Debug)]
pub(crate) struct Pace {
    interval: Duration,
    delay: Duration,
    requested: Option<Instant>,
    last: Option<Instant>,
}

impl Pace {
    /// At once, but at least `interval` apart.
    pub(crate) fn new(interval: Duration) -> Self {
        Self::delayed(Duration::ZERO, interval)
    }

    /// At least `interval` apart, and `delay` after the first request: what is in no hurry leaves
    /// that time to what is.
    pub(crate) fn delayed(delay: Duration, interval: Duration) -> Self {
        Self { interval, delay, requested: None, last: None }
    }

    /// Something changed.
    pub(crate) fn request(&mut self, now: Instant) {
        self.requested.get_or_insert(now);
    }

    /// Returns when the next turn is due, if one is: at `now` or later.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        let requested = self.requested? + self.delay;
        let earliest = self.last.map_or(now, |last| last + self.interval);
        Some(earliest.max(requested).max(now))
    }

    /// A turn covers everything requested so far.
    pub(crate) fn done(&mut self, now: Instant) {
        self.requested = None;
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
        pace.request(start);
        assert_eq!(pace.due(start), Some(start));
    }

    #[test]
    fn a_burst_is_planned_once_an_interval_and_no_change_waits_longer() {
        let start = Instant::now();
        let mut pace = Pace::new(INTERVAL);
        pace.request(start);
        pace.done(start);
        for millis in [1, 10, 49] {
            pace.request(start + Duration::from_millis(millis));
            assert_eq!(pace.due(start + Duration::from_millis(millis)), Some(start + INTERVAL));
        }
        pace.done(start + INTERVAL);
        assert_eq!(pace.due(start + INTERVAL), None, "one plan covers the whole burst");
    }

    #[test]
    fn what_is_in_no_hurry_waits_after_the_first_request() {
        let start = Instant::now();
        let mut pace = Pace::delayed(Duration::from_millis(10), INTERVAL);
        let after = |millis| start + Duration::from_millis(millis);
        pace.request(start);
        pace.request(after(9));
        assert_eq!(pace.due(after(9)), Some(after(10)), "others do not put it off");
        assert_eq!(pace.due(after(12)), Some(after(12)));
        pace.done(after(12));
        pace.request(after(13));
        assert_eq!(pace.due(after(13)), Some(after(62)));
    }
}
