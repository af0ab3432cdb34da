//! How long to wait before trying again. The caller brings the randomness and does the waiting.

use std::time::Duration;

/// The longest wait between two attempts.
const CAP: Duration = Duration::from_secs(30);

/// Exponential back-off with full jitter that never gives up.
///
/// The n-th wait is uniform between zero and `200 ms * 2^n`, at most 30 s: hosts that failed
/// together do not come back together, and a short hiccup costs little.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// Returns the next wait; `random` is uniform in `0.0..1.0`.
    pub(crate) fn next(&mut self, random: f64) -> Duration {
        let ceiling = Duration::from_millis(200).saturating_mul(1 << self.attempts.min(8)).min(CAP);
        self.attempts = self.attempts.saturating_add(1);
        ceiling.mul_f64(random.clamp(0.0, 1.0))
    }

    /// Starts over after a success.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_cap_and_start_over_after_a_success() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..10).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(waits, [200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000]);
        backoff.reset();
        assert_eq!(backoff.next(0.5), Duration::from_millis(100));
    }

    #[test]
    fn an_outage_of_any_length_still_has_a_next_attempt() {
        let mut backoff = Backoff { attempts: u32::MAX };
        assert_eq!(backoff.next(1.0), CAP);
        assert_eq!(backoff.next(0.0), Duration::ZERO);
    }
}
