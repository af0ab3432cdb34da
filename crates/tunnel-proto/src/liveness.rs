//! When to ping the other side, and when to give it up.
//!
//! Only bytes that came from the other side count as life. What was sent, and what visitors do,
//! never does: a side that writes into the void stays busy for ever.

use std::collections::VecDeque;
use std::time::Duration;

/// Silence after which the other side is pinged, and pinged again.
pub const PING_AFTER: Duration = Duration::from_secs(1);

/// Silence after which the other side is taken for dead. Where only one direction is silent, the
/// other side's last words may have been sent up to [`PING_AFTER`] and a retransmission after the
/// silence began: it is noticed within six seconds all the same.
pub const DEAD_AFTER: Duration = Duration::from_millis(4500);

/// How long a measured round trip is believed; then a ping measures a new one even while bytes come.
pub const MEASURE_EVERY: Duration = Duration::from_secs(5);

/// Pings that measure soon one after the other: the first ones meet a session that is busy with its
/// own beginning.
const FIRST_PINGS: u64 = 4;

/// Round trips of which the shortest counts: what a busy machine adds is not the way's.
const SAMPLES: usize = 4;

/// Pings without an answer that are remembered.
const REMEMBERED: usize = 8;

/// What is due.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Due {
    /// Send a ping with this number.
    Ping(u64),
    /// The other side is dead: end the session.
    Dead,
}

/// One session's knowledge of whether its other side lives. Times count from any fixed moment.
#[derive(Clone, Debug)]
pub struct Liveness {
    heard: Duration,
    looked: Duration,
    pinged: Option<Duration>,
    ping_at: Duration,
    next_number: u64,
    unanswered: VecDeque<(u64, Duration)>,
    samples: VecDeque<Duration>,
}

/// Whether a new flow should go elsewhere if it can: a ping has been due for as long as an answer
/// takes, and nothing came for this time.
#[must_use]
pub fn is_doubtful(silence: Duration, round_trip: Option<Duration>) -> bool {
    let answer = round_trip.unwrap_or(PING_AFTER) * 2;
    silence > PING_AFTER + answer.clamp(Duration::from_millis(250), PING_AFTER)
}

impl Liveness {
    /// A session that begins `now`, by bytes that came. The first ping is due at once: it measures.
    #[must_use]
    pub const fn new(now: Duration) -> Self {
        Self {
            heard: now,
            looked: now,
            pinged: None,
            ping_at: now,
            next_number: 1,
            unanswered: VecDeque::new(),
            samples: VecDeque::new(),
        }
    }

    /// Bytes came from the other side, whatever they say.
    pub fn received(&mut self, now: Duration) {
        self.heard = self.heard.max(now);
    }

    /// A pong came. Returns how long this round trip took; `None` when the ping is not known.
    pub fn handle_pong(&mut self, number: u64, now: Duration) -> Option<Duration> {
        self.received(now);
        let at = self.unanswered.iter().position(|(it, _)| *it == number)?;
        let (_, sent) = self.unanswered.drain(..=at).next_back()?;
        let sample = now.saturating_sub(sent);
        self.samples.push_back(sample);
        if self.samples.len() > SAMPLES {
            self.samples.pop_front();
        }
        Some(sample)
    }

    /// The round-trip time: the shortest of the last few; `None` before the first pong.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        self.samples.iter().min().copied()
    }

    /// There is reason to ask now whether the other side lives.
    pub fn ask(&mut self, now: Duration) {
        self.ping_at = self.ping_at.min(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Duration {
        let due = self.ping_due();
        due.min(self.heard + DEAD_AFTER).max(self.looked)
    }

    /// Returns what is due `now`. Call it again until nothing is.
    pub fn handle_timeout(&mut self, now: Duration) -> Option<Due> {
        let asleep = now.saturating_sub(self.looked.max(self.poll_timeout()));
        self.looked = self.looked.max(now);
        if now >= self.heard + DEAD_AFTER {
            // A process that was stopped, or a machine that slept, has not looked at what came
            // meanwhile: the other side gets the time of one ping.
            if asleep < PING_AFTER {
                return Some(Due::Dead);
            }
            self.heard = (now + PING_AFTER).saturating_sub(DEAD_AFTER);
            self.ping_at = now;
            self.pinged = None;
        }
        if now < self.ping_due() {
            return None;
        }
        let number = self.next_number;
        self.next_number += 1;
        self.unanswered.push_back((number, now));
        if self.unanswered.len() > REMEMBERED {
            self.unanswered.pop_front();
        }
        let measure = if number < FIRST_PINGS { PING_AFTER } else { MEASURE_EVERY };
        self.pinged = Some(now);
        self.ping_at = now + measure;
        Some(Due::Ping(number))
    }

    /// After silence, or when the last ping is long ago; never twice within [`PING_AFTER`].
    fn ping_due(&self) -> Duration {
        let again = self.pinged.map_or(Duration::ZERO, |it| it + PING_AFTER);
        self.ping_at.min(self.heard + PING_AFTER).max(again)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_side_is_pinged_and_then_given_up() {
        let mut liveness = Liveness::new(ms(0));
        assert_eq!(drive(&mut liveness), (ms(0), Due::Ping(1)));
        assert_eq!(drive(&mut liveness), (ms(1000), Due::Ping(2)));
        assert_eq!(drive(&mut liveness), (ms(2000), Due::Ping(3)));
        assert_eq!(drive(&mut liveness), (ms(3000), Due::Ping(4)));
        assert_eq!(drive(&mut liveness), (ms(4000), Due::Ping(5)));
        assert_eq!(drive(&mut liveness), (ms(4500), Due::Dead));
    }

    #[test]
    fn received_bytes_put_death_off() {
        let mut liveness = Liveness::new(ms(0));
        assert_eq!(drive(&mut liveness), (ms(0), Due::Ping(1)));
        liveness.received(ms(900));
        assert_eq!(drive(&mut liveness), (ms(1000), Due::Ping(2)));
        liveness.received(ms(2500));
        // What is heard late does not turn time back.
        liveness.received(ms(100));
        let mut last = drive(&mut liveness);
        while last.1 != Due::Dead {
            last = drive(&mut liveness);
        }
        assert_eq!(last.0, ms(7000));
    }

    #[test]
    fn a_busy_side_is_pinged_only_to_measure() {
        let mut liveness = Liveness::new(ms(0));
        let mut pings = Vec::new();
        for at in (0..20_000).step_by(100) {
            liveness.received(ms(at));
            while let Some(due) = liveness.handle_timeout(ms(at)) {
                pings.push((at, due));
            }
        }
        let expected =
            [(0, 1), (1000, 2), (2000, 3), (3000, 4), (8000, 5), (13_000, 6), (18_000, 7)];
        assert_eq!(pings, expected.map(|(at, number)| (at, Due::Ping(number))));
    }

    #[test]
    fn the_shortest_of_the_last_round_trips_counts() {
        let mut liveness = Liveness::new(ms(0));
        assert_eq!(liveness.handle_timeout(ms(0)), Some(Due::Ping(1)));
        assert_eq!(liveness.handle_timeout(ms(1000)), Some(Due::Ping(2)));
        assert_eq!(liveness.handle_pong(7, ms(1010)), None, "never sent");
        assert_eq!(liveness.round_trip(), None);
        assert_eq!(liveness.handle_pong(2, ms(1080)), Some(ms(80)));
        assert_eq!(liveness.handle_pong(1, ms(1081)), None, "older than one that was answered");
        for (number, took, expected) in
            [(3, 9, 9), (4, 40, 9), (5, 30, 9), (6, 50, 9), (7, 60, 30), (8, 70, 30)]
        {
            let due = liveness.poll_timeout();
            assert_eq!(liveness.handle_timeout(due), Some(Due::Ping(number)));
            assert_eq!(liveness.handle_pong(number, due + ms(took)), Some(ms(took)));
            assert_eq!(liveness.round_trip(), Some(ms(expected)), "after {number}");
        }
    }

    #[test]
    fn a_side_becomes_doubtful_before_it_is_dead() {
        let fast = Some(ms(10));
        assert!(!is_doubtful(ms(1250), fast));
        assert!(is_doubtful(ms(1251), fast));
        assert!(!is_doubtful(ms(1600), Some(ms(300))));
        assert!(is_doubtful(ms(1601), Some(ms(300))));
        assert!(is_doubtful(ms(2001), None));
    }

    #[test]
    fn whoever_has_reason_to_doubt_asks_at_once_but_not_again_and_again() {
        let mut liveness = Liveness::new(ms(0));
        for number in 1..=4 {
            let due = liveness.poll_timeout();
            liveness.received(due);
            assert_eq!(liveness.handle_timeout(due), Some(Due::Ping(number)));
        }
        liveness.received(ms(4500));
        assert_eq!(liveness.handle_timeout(ms(4500)), None);
        liveness.ask(ms(4500));
        assert_eq!(drive(&mut liveness), (ms(4500), Due::Ping(5)));
        liveness.ask(ms(4600));
        assert_eq!(drive(&mut liveness), (ms(5500), Due::Ping(6)));
    }

    #[test]
    fn whoever_slept_asks_once_more_before_burying_the_other() {
        let mut liveness = Liveness::new(ms(0));
        assert_eq!(liveness.handle_timeout(ms(0)), Some(Due::Ping(1)));
        assert_eq!(liveness.handle_timeout(ms(60_000)), Some(Due::Ping(2)));
        assert_eq!(liveness.handle_timeout(ms(60_000)), None);
        assert_eq!(drive(&mut liveness), (ms(61_000), Due::Dead));

        let mut liveness = Liveness::new(ms(0));
        assert_eq!(liveness.handle_timeout(ms(0)), Some(Due::Ping(1)));
        assert_eq!(liveness.handle_timeout(ms(60_000)), Some(Due::Ping(2)));
        liveness.received(ms(60_001));
        assert_eq!(drive(&mut liveness), (ms(61_000), Due::Ping(3)));
    }

    /// Jumps to the next deadline and returns it with what is due then.
    fn drive(liveness: &mut Liveness) -> (Duration, Due) {
        let now = liveness.poll_timeout();
        (now, liveness.handle_timeout(now).expect("a deadline must bring something"))
    }

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }
}
