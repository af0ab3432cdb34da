//! Which of two carriers an agent dials first.
//!
//! The preferred one, unless its sessions break soon after they began, again and again: some
//! networks let a carrier begin and do not let it live. Then the other one is dialled first for a
//! while that grows.

use std::time::Duration;

use crate::carrier_choice::Which;

/// A session that broke sooner than this broke soon.
pub const SOON: Duration = Duration::from_secs(60);

/// How many sessions must break soon, one after another.
const TIMES: u32 = 2;

/// How long the preferred carrier is dialled second, to begin with.
const SHORTEST: Duration = Duration::from_secs(60);

/// The most that this time grows to.
const LONGEST: Duration = Duration::from_secs(3600);

/// What is remembered of sessions that ended. Times count from any fixed moment.
#[derive(Clone, Copy, Debug)]
pub struct FirstCarrier {
    broke: u32,
    avoided_until: Option<Duration>,
    hold: Duration,
}

impl Default for FirstCarrier {
    fn default() -> Self {
        Self { broke: 0, avoided_until: None, hold: SHORTEST }
    }
}

impl FirstCarrier {
    /// Nothing is known against the preferred one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The one to dial first.
    #[must_use]
    pub fn first(&self, now: Duration) -> Which {
        if self.avoided_until.is_some_and(|it| now < it) { Which::Other } else { Which::Preferred }
    }

    /// When [`Self::first`] changes its mind; `None` when it has nothing to change.
    #[must_use]
    pub const fn avoided_until(&self) -> Option<Duration> {
        self.avoided_until
    }

    /// A session of the preferred carrier has ended after it `lived`; `broke` says that nobody
    /// ended it on purpose. Returns for how long that carrier is dialled second from now on, if it
    /// is.
    pub fn ended(&mut self, now: Duration, lived: Duration, broke: bool) -> Option<Duration> {
        if lived >= SOON {
            *self = Self::default();
            return None;
        }
        if !broke {
            return None;
        }
        self.broke += 1;
        if self.broke < TIMES {
            return None;
        }
        let hold = self.hold;
        *self = Self { broke: 0, avoided_until: Some(now + hold), hold: (hold * 2).min(LONGEST) };
        Some(hold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_carrier_whose_sessions_break_soon_is_dialled_second_for_a_while() {
        let mut carriers = FirstCarrier::new();
        assert_eq!(carriers.first(secs(0)), Which::Preferred);
        assert_eq!(carriers.ended(secs(5), secs(5), true), None);
        assert_eq!(carriers.first(secs(5)), Which::Preferred);
        assert_eq!(carriers.ended(secs(10), secs(5), true), Some(secs(60)));
        assert_eq!(carriers.first(secs(69)), Which::Other);
        assert_eq!(carriers.first(secs(70)), Which::Preferred);
        assert_eq!(carriers.avoided_until(), Some(secs(70)));
    }

    #[test]
    fn the_while_grows_until_a_session_lives() {
        let mut carriers = FirstCarrier::new();
        let mut holds = Vec::new();
        for round in 0..8 {
            carriers.ended(secs(round), secs(1), true);
            let hold = carriers.ended(secs(round), secs(1), true).expect("avoided");
            holds.push(hold.as_secs());
        }
        assert_eq!(holds, [60, 120, 240, 480, 960, 1920, 3600, 3600]);
        assert_eq!(carriers.ended(secs(10), secs(60), true), None);
        assert_eq!(carriers.first(secs(10)), Which::Preferred);
        carriers.ended(secs(11), secs(1), true);
        assert_eq!(carriers.ended(secs(12), secs(1), true), Some(secs(60)));
    }

    #[test]
    fn sessions_that_were_ended_on_purpose_say_nothing() {
        let mut carriers = FirstCarrier::new();
        for second in 0..100 {
            assert_eq!(carriers.ended(secs(second), secs(1), false), None);
        }
        assert_eq!(carriers.first(secs(100)), Which::Preferred);
    }

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }
}
