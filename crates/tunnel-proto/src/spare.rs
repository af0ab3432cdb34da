//! How many idle flow connections an agent should keep ready.
//!
//! A visitor who finds one waits for no dial and no handshake. What is needed is what comes at
//! once: as many as flows rose within a second, in the last minute, and half as many again. The
//! answer is a power of two, so that it changes rarely.

use std::collections::VecDeque;
use std::time::Duration;

/// Never fewer.
pub const FEWEST: u32 = 4;

/// Never more: beyond, visitors wait for a round trip or two.
pub const MOST: u32 = 1024;

/// How long a rise is remembered, in seconds.
const REMEMBERED: u64 = 60;

/// The recent demand for flow connections. Times count from any fixed moment.
#[derive(Clone, Debug, Default)]
pub struct Demand {
    /// By second, oldest first: the fewest and the most that were wanted at one time.
    seconds: VecDeque<(u64, u64, u64)>,
    open: u64,
    waiting: u64,
}

impl Demand {
    /// No demand yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A flow was given a connection.
    pub fn opened(&mut self, now: Duration) {
        self.change(now, |it| it.open += 1);
    }

    /// A flow is over and its connection free, or gone.
    pub fn closed(&mut self, now: Duration) {
        self.change(now, |it| it.open = it.open.saturating_sub(1));
    }

    /// A flow found no connection ready, and waits.
    pub fn waits(&mut self, now: Duration) {
        self.change(now, |it| it.waiting += 1);
    }

    /// A flow waits no more, whether it got a connection ([`Self::opened`] says so) or not.
    pub fn waited(&mut self, now: Duration) {
        self.change(now, |it| it.waiting = it.waiting.saturating_sub(1));
    }

    /// How many should be ready.
    #[must_use]
    pub fn spare(&self, now: Duration) -> u32 {
        let oldest = now.as_secs().saturating_sub(REMEMBERED);
        let recent = self.seconds.iter().filter(|(second, ..)| *second >= oldest);
        let rise = recent.map(|(_, fewest, most)| most - fewest).max().unwrap_or(0);
        let wanted = u32::try_from(rise + rise.div_ceil(2)).unwrap_or(MOST);
        wanted.clamp(FEWEST, MOST).next_power_of_two()
    }

    fn change(&mut self, now: Duration, change: impl FnOnce(&mut Self)) {
        let before = self.open + self.waiting;
        change(self);
        let after = self.open + self.waiting;
        let second = now.as_secs();
        match self.seconds.back_mut() {
            Some((last, fewest, most)) if *last >= second => {
                *fewest = (*fewest).min(after);
                *most = (*most).max(after);
            }
            _ => self.seconds.push_back((second, before.min(after), before.max(after))),
        }
        while self.seconds.front().is_some_and(|(it, ..)| it + REMEMBERED < second) {
            self.seconds.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_few_are_always_ready() {
        let mut demand = Demand::new();
        assert_eq!(demand.spare(ms(0)), FEWEST);
        demand.opened(ms(0));
        assert_eq!(demand.spare(ms(0)), FEWEST);
    }

    #[test]
    fn what_rose_at_once_is_ready_the_next_time() {
        let mut demand = Demand::new();
        for _ in 0..100 {
            demand.opened(ms(500));
        }
        assert_eq!(demand.spare(ms(500)), 256);
        assert_eq!(demand.spare(ms(60_999)), 256);
        assert_eq!(demand.spare(ms(61_000)), FEWEST);
    }

    #[test]
    fn flows_one_after_another_need_few() {
        let mut demand = Demand::new();
        for at in 0..10_000 {
            demand.opened(ms(at));
            demand.closed(ms(at));
        }
        assert_eq!(demand.spare(ms(10_000)), FEWEST);
    }

    #[test]
    fn flows_that_open_slowly_need_few_however_many_stay_open() {
        let mut demand = Demand::new();
        for at in 0..10_000 {
            demand.opened(ms(at * 1000));
        }
        assert_eq!(demand.spare(ms(10_000_000)), FEWEST);
    }

    #[test]
    fn those_who_waited_count() {
        let mut demand = Demand::new();
        for _ in 0..20 {
            demand.waits(ms(0));
        }
        for _ in 0..20 {
            demand.waited(ms(1));
        }
        assert_eq!(demand.spare(ms(2)), 32);
    }

    proptest! {
        #[test]
        fn the_answer_stays_within_its_bounds(
            events in proptest::collection::vec((0_u8..4, 0_u64..3000), 0..200),
        ) {
            let (mut demand, mut now) = (Demand::new(), ms(0));
            for (event, wait) in events {
                now += ms(wait);
                match event {
                    0 => demand.opened(now),
                    1 => demand.closed(now),
                    2 => demand.waits(now),
                    _ => demand.waited(now),
                }
                prop_assert!((FEWEST..=MOST).contains(&demand.spare(now)));
                prop_assert!(demand.seconds.len() <= 61);
            }
        }
    }

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }
}
