//! A month's traffic: what is counted, when counting begins anew, and what happens beyond.
//!
//! Months are those of the calendar in UTC; times are seconds since 1970.

use std::time::Duration;

use crate::message::{QuotaAction, QuotaReport, QuotaWish};

/// From this part of the quota on, in percent, people are warned.
pub const WARN_AT: u64 = 80;

const DAY: u64 = 86_400;

/// The traffic of one cluster at one gateway.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Quota {
    wish: QuotaWish,
    counted: Counted,
}

/// What is kept over a restart.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counted {
    /// When the month began in which the bytes were counted.
    pub since: u64,
    /// Bytes, both directions.
    pub bytes: u64,
}

/// Where the traffic stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// All is well.
    Within,
    /// More than [`WARN_AT`] percent are used up.
    Near,
    /// Everything is used up.
    Over(QuotaAction),
}

impl Quota {
    /// Counts on from what was counted before, if that was in the present month.
    #[must_use]
    pub fn new(wish: QuotaWish, counted: Counted, now: u64) -> Self {
        let mut quota = Self { wish, counted };
        quota.turn(now);
        quota
    }

    /// Counts by another wish from now on. What was counted stays counted.
    pub fn change(&mut self, wish: QuotaWish, now: u64) {
        let turned = wish.reset_day != self.wish.reset_day;
        self.wish = wish;
        if turned {
            // The same traffic, in a month that begins on another day.
            self.counted.since = month(wish.reset_day, now).0;
        }
        self.turn(now);
    }

    /// Counts bytes, of either direction.
    pub fn count(&mut self, bytes: u64, now: u64) {
        self.turn(now);
        self.counted.bytes = self.counted.bytes.saturating_add(bytes);
    }

    /// Where the traffic stands.
    #[must_use]
    pub fn standing(&self, now: u64) -> Standing {
        standing(self.current(now).bytes, self.wish.bytes, self.wish.action)
    }

    /// For the gateway's report.
    #[must_use]
    pub fn report(&self, now: u64) -> QuotaReport {
        QuotaReport {
            used: self.current(now).bytes,
            limit: self.wish.bytes,
            resets_at: month(self.wish.reset_day, now).1,
            action: Some(self.wish.action),
            shape_bits_per_second: (self.wish.action == QuotaAction::Shape)
                .then_some(self.wish.shape_bits_per_second),
        }
    }

    /// What must be kept over a restart.
    #[must_use]
    pub const fn counted(&self) -> Counted {
        self.counted
    }

    fn current(&self, now: u64) -> Counted {
        let (since, _) = month(self.wish.reset_day, now);
        // A clock that was set back does not give the month's traffic away.
        if since > self.counted.since { Counted { since, bytes: 0 } } else { self.counted }
    }

    fn turn(&mut self, now: u64) {
        self.counted = self.current(now);
    }
}

impl QuotaReport {
    /// Where the traffic stood when it was told. Beyond the limit of a gateway that does not tell
    /// what it does then, nothing is known to be done.
    #[must_use]
    pub fn standing(&self) -> Standing {
        standing(self.used, self.limit, self.action.unwrap_or(QuotaAction::Warn))
    }

    /// How much of the limit is used up, in whole percent.
    #[must_use]
    pub fn percent(&self) -> u64 {
        let percent = u128::from(self.used) * 100 / u128::from(self.limit.max(1));
        u64::try_from(percent).unwrap_or(u64::MAX)
    }
}

fn standing(used: u64, limit: u64, action: QuotaAction) -> Standing {
    if used >= limit {
        Standing::Over(action)
    } else if u128::from(used) * 100 >= u128::from(limit) * u128::from(WARN_AT) {
        Standing::Near
    } else {
        Standing::Within
    }
}

/// The stricter of two wishes: the one that allows fewer bytes; of equals, the harder action.
#[must_use]
pub fn stricter(a: QuotaWish, b: QuotaWish) -> QuotaWish {
    const fn rank(it: &QuotaWish) -> (u64, u8) {
        let softness = match it.action {
            QuotaAction::Stop => 0,
            QuotaAction::Shape => 1,
            QuotaAction::Warn => 2,
        };
        (it.bytes, softness)
    }
    if rank(&a) <= rank(&b) { a } else { b }
}

/// When the month that contains `now` began, and when it ends.
fn month(reset_day: u8, now: u64) -> (u64, u64) {
    let (year, month) = year_and_month(now / DAY);
    let begin = |months: i64| {
        let index = year * 12 + month - 1 + months;
        let (year, month) = (index.div_euclid(12), index.rem_euclid(12) + 1);
        let (first, next) = (first_day(year, month), first_day(year, month + 1));
        let last = next - first;
        let day = i64::from(reset_day).clamp(1, last);
        u64::try_from(first + day - 1).unwrap_or(0) * DAY
    };
    if begin(0) <= now { (begin(0), begin(1)) } else { (begin(-1), begin(0)) }
}

/// Days from 1970-01-01 to the first of a month; month 13 is the next year's first.
fn first_day(year: i64, month: i64) -> i64 {
    // The year begins in March, so that a leap day is its last: after Hinnant, `days_from_civil`.
    let months = year * 12 + month - 3;
    let (year, month) = (months.div_euclid(12), months.rem_euclid(12));
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leaps + (153 * month + 2) / 5 - 719_468
}

fn year_and_month(day: u64) -> (i64, i64) {
    let day = i64::try_from(day).unwrap_or(0);
    // Near enough; then step to the month whose first day is not after the day.
    let mut months = day / 31;
    let first = |months: i64| first_day(1970 + months.div_euclid(12), months.rem_euclid(12) + 1);
    while first(months + 1) <= day {
        months += 1;
    }
    (1970 + months.div_euclid(12), months.rem_euclid(12) + 1)
}

/// Lets bytes pass at a rate. Times count from any fixed moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Shaper {
    bits_per_second: u64,
    free_at: Duration,
}

impl Shaper {
    /// How much may pass at once after a pause.
    const BURST: Duration = Duration::from_millis(100);

    /// A shaper that lets `bits_per_second` pass, at least 8000.
    #[must_use]
    pub fn new(bits_per_second: u64) -> Self {
        Self { bits_per_second: bits_per_second.max(8000), free_at: Duration::ZERO }
    }

    /// Says that `bytes` pass now, and returns how long to wait before the next.
    pub fn pass(&mut self, bytes: u64, now: Duration) -> Duration {
        let nanoseconds = u128::from(bytes) * 8_000_000_000 / u128::from(self.bits_per_second);
        let cost = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        self.free_at = self.free_at.max(now.saturating_sub(Self::BURST)).saturating_add(cost);
        self.free_at.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2026-11-21T15:00:00Z.
    const NOW: u64 = 1_795_273_200;

    #[test]
    fn months_begin_on_the_reset_day() {
        // As `date -u -d @N` prints them.
        check(1, NOW, "2026-11-01", "2026-12-01");
        check(21, NOW, "2026-11-21", "2026-12-21");
        check(22, NOW, "2026-10-22", "2026-11-22");
        check(31, NOW, "2026-10-31", "2026-11-30");
        check(31, at("2027-02-28"), "2027-02-28", "2027-03-31");
        check(30, at("2028-02-28"), "2028-01-30", "2028-02-29");
        check(29, at("2100-02-28"), "2100-02-28", "2100-03-29");
        check(1, at("2027-01-01"), "2027-01-01", "2027-02-01");
        check(15, at("2027-01-01"), "2026-12-15", "2027-01-15");
        check(0, NOW, "2026-11-01", "2026-12-01");
        check(1, 0, "1970-01-01", "1970-02-01");
    }

    #[test]
    fn traffic_is_counted_until_the_month_ends() {
        let mut quota = Quota::new(wish(1000), Counted::default(), NOW);
        assert_eq!(quota.standing(NOW), Standing::Within);
        quota.count(799, NOW);
        assert_eq!(quota.standing(NOW), Standing::Within);
        quota.count(1, NOW);
        assert_eq!(quota.standing(NOW), Standing::Near);
        quota.count(200, NOW);
        assert_eq!(quota.standing(NOW), Standing::Over(QuotaAction::Stop));
        let next = at("2026-12-01");
        let report = quota.report(NOW);
        assert_eq!((report.used, report.limit, report.resets_at), (1000, 1000, next));
        assert_eq!(report.standing(), quota.standing(NOW), "agents see the same");
        assert_eq!(report.percent(), 100);
        assert_eq!(quota.standing(next), Standing::Within);
        assert_eq!(quota.report(next).used, 0);
    }

    #[test]
    fn a_restart_forgets_nothing_and_a_new_month_everything() {
        let mut quota = Quota::new(wish(1000), Counted::default(), NOW);
        quota.count(500, NOW);
        let kept = quota.counted();
        assert_eq!(Quota::new(wish(1000), kept, NOW + 5).counted().bytes, 500);
        assert_eq!(Quota::new(wish(1000), kept, at("2026-12-01")).counted().bytes, 0);
        // A clock that was set back into last month.
        assert_eq!(Quota::new(wish(1000), kept, at("2026-10-31")).counted().bytes, 500);
    }

    #[test]
    fn another_reset_day_gives_no_traffic_away() {
        let mut quota = Quota::new(wish(1000), Counted::default(), NOW);
        quota.count(500, NOW);
        quota.change(QuotaWish { reset_day: 21, ..wish(900) }, NOW);
        assert_eq!(quota.report(NOW).used, 500);
        assert_eq!(quota.report(at("2026-12-21")).used, 0);
    }

    #[test]
    fn the_stricter_wish_wins() {
        let warn = QuotaWish { action: QuotaAction::Warn, ..wish(1000) };
        assert_eq!(stricter(wish(1000), wish(999)), wish(999));
        assert_eq!(stricter(warn, wish(1000)), wish(1000));
        assert_eq!(stricter(wish(1001), warn), warn);
    }

    #[test]
    fn shaped_bytes_pass_at_their_rate() {
        let mut shaper = Shaper::new(8_000_000);
        let (mut now, mut passed) = (Duration::from_secs(5), 0);
        while now < Duration::from_secs(15) {
            passed += 10_000;
            now += shaper.pass(10_000, now);
        }
        // A megabyte a second, and a burst of a tenth of a second.
        assert!((10_000_000..10_200_000).contains(&passed), "{passed}");
        assert_eq!(Shaper::new(0).pass(1000, Duration::ZERO), Duration::from_secs(1));
    }

    proptest! {
        #[test]
        fn every_moment_is_in_its_month(day in 0_u8..40, now in 0_u64..8_000_000_000) {
            let (begins, ends) = month(day, now);
            prop_assert!(begins <= now || begins == 0);
            prop_assert!(now < ends);
            let days = (ends - begins) / DAY;
            prop_assert!((28..=31).contains(&days) || begins == 0, "{days}");
            prop_assert_eq!(month(day, ends).0, ends, "months follow each other");
        }
    }

    const fn wish(bytes: u64) -> QuotaWish {
        QuotaWish { bytes, reset_day: 1, action: QuotaAction::Stop, shape_bits_per_second: 0 }
    }

    #[track_caller]
    fn check(reset_day: u8, now: u64, begins: &str, ends: &str) {
        assert_eq!(month(reset_day, now), (at(begins), at(ends)));
    }

    /// Midnight of a day. Counts days one by one: slow, and another way than the code's.
    fn at(day: &str) -> u64 {
        let parts: Vec<u64> = day.split('-').map(|it| it.parse().expect("a number")).collect();
        let &[year, month, day] = parts.as_slice() else { panic!("not a day: {parts:?}") };
        let leap =
            |it: u64| it.is_multiple_of(4) && (!it.is_multiple_of(100) || it.is_multiple_of(400));
        let lengths = [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30];
        let years: u64 = (1970..year).map(|it| if leap(it) { 366 } else { 365 }).sum();
        let months: u64 = lengths.iter().take(usize::try_from(month).expect("small") - 1).sum();
        (years + months + day - 1) * DAY
    }
}
