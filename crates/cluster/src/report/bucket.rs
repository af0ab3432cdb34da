//! How often something may happen. No clock: the caller brings the time.

use std::time::{Duration, Instant};

/// Allows a burst, and after it one thing each period.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    burst: u32,
    period: Duration,
    /// When the bucket will be full again; full when it is in the past.
    full_at: Instant,
}

impl Bucket {
    /// A full bucket.
    pub(super) fn new(burst: u32, period: Duration, now: Instant) -> Self {
        Self { burst, period, full_at: now }
    }

    /// Takes from the bucket at `now`.
    ///
    /// # Errors
    ///
    /// Says when there will be something to take, if there is nothing now.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        let full_at = self.full_at.max(now) + self.period;
        let allowed_from = full_at.checked_sub(self.period * self.burst).unwrap_or(now);
        if allowed_from > now {
            return Err(allowed_from);
        }
        self.full_at = full_at;
        Ok(())
    }

    /// Whether it is as good as new.
    pub(super) fn is_full(&self, now: Instant) -> bool {
        self.full_at <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_one_each_period() {
        let period = Duration::from_secs(2);
        let start = Instant::now() + Duration::from_secs(1000);
        let mut bucket = Bucket::new(3, period, start);

        assert_eq!([(); 3].map(|()| bucket.take(start)), [Ok(()); 3]);
        assert_eq!(bucket.take(start), Err(start + period));
        assert_eq!(bucket.take(start + period), Ok(()));
        assert_eq!(bucket.take(start + period), Err(start + period * 2));

        assert!(!bucket.is_full(start + period * 3));
        assert!(bucket.is_full(start + period * 4));
    }
}
