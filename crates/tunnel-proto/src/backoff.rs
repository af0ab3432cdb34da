//! How long to wait before dialling again.
//!
//! For ever, with full jitter: each wait is anywhere between [`SHORTEST`] and a limit that doubles
//! with each failure up to [`LONGEST`]. Many agents that lost the same gateway at the same moment
//! come back spread out.

use std::time::Duration;

/// The shortest wait.
pub const SHORTEST: Duration = Duration::from_millis(100);

/// The longest wait.
pub const LONGEST: Duration = Duration::from_secs(10);

/// A session that lived this long was healthy: what fails next is a first failure.
pub const HEALTHY: Duration = Duration::from_secs(30);

/// The failures so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// No failure yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { failures: 0 }
    }

    /// Returns how long to wait after a dial that failed, or a session that ended after it had
    /// `lived`; zero for a dial that failed. `random` is uniform over all values.
    pub fn wait(&mut self, lived: Duration, random: u32) -> Duration {
        if lived >= HEALTHY {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        let limit = SHORTEST.saturating_mul(1 << self.failures.min(10)).min(LONGEST);
        SHORTEST + (limit - SHORTEST).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn waits_grow_to_the_longest_and_stay_there() {
        let mut backoff = Backoff::new();
        let waits: Vec<_> =
            (0..9).map(|_| backoff.wait(Duration::ZERO, u32::MAX).as_millis()).collect();
        assert_eq!(waits, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000]);
        for _ in 0..100 {
            assert_eq!(backoff.wait(Duration::ZERO, u32::MAX), LONGEST);
        }
        assert_eq!(backoff.wait(Duration::ZERO, 0), SHORTEST);
    }

    #[test]
    fn only_a_healthy_session_makes_waits_short_again() {
        let mut backoff = Backoff::new();
        for _ in 0..8 {
            backoff.wait(Duration::ZERO, 0);
        }
        assert_eq!(backoff.wait(Duration::from_secs(29), u32::MAX), LONGEST);
        assert_eq!(backoff.wait(Duration::from_secs(30), u32::MAX), Duration::from_millis(200));
    }

    proptest! {
        #[test]
        fn every_wait_is_within_the_bounds(randoms in proptest::collection::vec(any::<u32>(), 1..50)) {
            let mut backoff = Backoff::new();
            for random in randoms {
                let wait = backoff.wait(Duration::ZERO, random);
                prop_assert!((SHORTEST..=LONGEST).contains(&wait), "{wait:?}");
            }
        }
    }
}
