//! When to try again. No clock and no randomness: the caller brings both.

use std::time::{Duration, Instant};

/// How long to wait between tries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// The longest wait after the first failure; it doubles with each further one.
    pub first: Duration,
    /// The longest wait of all.
    pub cap: Duration,
    /// How long all must have been well before a failure counts as the first again.
    ///
    /// Without it, something that succeeds and fails in turns would be tried without a pause.
    pub settled: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(250),
            cap: Duration::from_secs(30),
            settled: Duration::from_secs(10),
        }
    }
}

/// Exponential waits with full jitter that never end.
///
/// There is no last try and no longest time in all: an outage may take a month.
#[derive(Clone, Debug)]
pub struct Backoff {
    limits: Limits,
    failures: u32,
    well_since: Option<Instant>,
}

impl Backoff {
    /// Starts with no failure seen.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, failures: 0, well_since: None }
    }

    /// Notes that something worked at `now`.
    pub fn succeeded(&mut self, now: Instant) {
        self.well_since.get_or_insert(now);
    }

    /// Notes a failure at `now` and returns how long to wait before the next try.
    ///
    /// `random` is between 0 and 1 and chooses a wait between a tenth of the longest one and all
    /// of it: enough to spread a thousand clients, and never a loop without a pause.
    pub fn failed(&mut self, now: Instant, random: f64) -> Duration {
        let settled = self.limits.settled;
        if self.well_since.take().is_some_and(|it| now.saturating_duration_since(it) >= settled) {
            self.failures = 0;
        }
        let doubled = self.limits.first.saturating_mul(1 << self.failures.min(20));
        self.failures = self.failures.saturating_add(1);
        doubled.min(self.limits.cap).mul_f64(0.1 + 0.9 * random.clamp(0.0, 1.0))
    }

    /// How many failures came without a settled time between them.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        first: Duration::from_millis(100),
        cap: Duration::from_secs(30),
        settled: Duration::from_secs(10),
    };

    #[test]
    fn waits_double_up_to_the_cap_and_never_end() {
        let start = Instant::now();
        let mut backoff = Backoff::new(LIMITS);

        let waits: Vec<u128> = (0..12).map(|_| backoff.failed(start, 1.0).as_millis()).collect();
        assert_eq!(
            waits,
            [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000, 30000]
        );

        // A month of failures later it still answers.
        for _ in 0..100_000 {
            backoff.failed(start, 1.0);
        }
        assert_eq!(backoff.failed(start, 1.0), LIMITS.cap);
    }

    #[test]
    fn jitter_spreads_a_wait_but_never_removes_it() {
        let start = Instant::now();
        assert_eq!(Backoff::new(LIMITS).failed(start, 0.0), Duration::from_millis(10));
        assert_eq!(Backoff::new(LIMITS).failed(start, 0.5), Duration::from_millis(55));
        assert_eq!(Backoff::new(LIMITS).failed(start, 7.0), Duration::from_millis(100));
    }

    #[test]
    fn a_failure_after_a_settled_time_counts_as_the_first() {
        let start = Instant::now();
        let mut backoff = Backoff::new(LIMITS);
        backoff.failed(start, 1.0);
        backoff.failed(start, 1.0);

        backoff.succeeded(start);
        backoff.succeeded(start + Duration::from_secs(9));
        let wait = backoff.failed(start + Duration::from_secs(10), 1.0);
        assert_eq!(wait, LIMITS.first);
    }

    #[test]
    fn what_succeeds_and_fails_in_turns_is_slowed_down() {
        let mut now = Instant::now();
        let mut backoff = Backoff::new(LIMITS);
        let mut waits = Vec::new();
        for _ in 0..4 {
            backoff.succeeded(now);
            now += Duration::from_secs(1);
            waits.push(backoff.failed(now, 1.0).as_millis());
        }
        assert_eq!(waits, [100, 200, 400, 800]);
    }
}
