//! Which of two carriers serves, and when to change it.
//!
//! There is a preferred carrier for each use (flows of bytes, flows of datagrams). The other one
//! serves while the preferred one is in trouble, as measured, and no longer: it moves both ways,
//! and says why. A carrier that is down is left at once; one that is only bad is left when it was
//! bad for [`PATIENCE`], and returned to when it was good for a while that grows with each return
//! that was in vain.

use std::fmt;
use std::time::Duration;

/// How long a carrier must be bad before it is left.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// How long the preferred carrier must be good before it serves again.
pub const SHORTEST_HOLD: Duration = Duration::from_secs(10);

/// The most that the time before a return grows to.
pub const LONGEST_HOLD: Duration = Duration::from_secs(600);

/// A return that lasted this long was not in vain.
const LASTING: Duration = Duration::from_secs(300);

/// Packets lost that are trouble, in percent.
const LOSS: u64 = 10;

/// Packets below which a loss says nothing.
const PACKETS: u64 = 100;

/// A round trip is trouble when it is this many times the other carrier's, and longer by
/// [`SLOWER_BY`].
const SLOWER: u32 = 3;

/// See [`SLOWER`].
const SLOWER_BY: Duration = Duration::from_millis(50);

/// What is known of a carrier at one moment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Health {
    /// It cannot be used, and why.
    Down(String),
    /// It can be used.
    Up(Figures),
}

/// What a carrier has measured. Counts only grow.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Figures {
    /// The smoothed round-trip time.
    pub round_trip: Option<Duration>,
    /// Packets sent, where they are counted.
    pub sent: u64,
    /// Packets lost, where they are counted.
    pub lost: u64,
}

/// Which of the two carriers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Which {
    /// The one that serves when all is well.
    Preferred,
    /// The other one.
    Other,
}

impl Which {
    const fn opposite(self) -> Self {
        match self {
            Self::Preferred => Self::Other,
            Self::Other => Self::Preferred,
        }
    }
}

/// A change of the carrier that serves.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Move {
    /// The one that serves from now on.
    pub to: Which,
    /// Why, in words: `quic lost 14 of 100 packets`.
    pub reason: String,
}

/// The choice between two carriers for one use. Times count from any fixed moment.
#[derive(Clone, Debug)]
pub struct Choice {
    names: [&'static str; 2],
    serving: Which,
    losses: [Loss; 2],
    /// Since when the serving one is bad, or since when the preferred one is good again.
    since: Option<Duration>,
    hold: Duration,
    returned: Option<Duration>,
}

/// Loss over windows of [`PATIENCE`].
#[derive(Clone, Copy, Debug, Default)]
struct Loss {
    began: Option<(Duration, u64, u64)>,
    /// Lost and sent in the last whole window.
    last: Option<(u64, u64)>,
}

impl Choice {
    /// The preferred carrier serves. The names are for reasons: the preferred one's, the other's.
    #[must_use]
    pub const fn new(preferred: &'static str, other: &'static str) -> Self {
        const NONE: Loss = Loss { began: None, last: None };
        Self {
            names: [preferred, other],
            serving: Which::Preferred,
            losses: [NONE, NONE],
            since: None,
            hold: SHORTEST_HOLD,
            returned: None,
        }
    }

    /// The carrier that serves.
    #[must_use]
    pub const fn serving(&self) -> Which {
        self.serving
    }

    /// Takes what is known of both `now`, and says when the other one is to serve from now on. To
    /// be called once a second or so, and whenever a carrier goes up or down.
    pub fn observe(&mut self, now: Duration, preferred: &Health, other: &Health) -> Option<Move> {
        self.losses[0].observe(now, preferred);
        self.losses[1].observe(now, other);
        let (here, there) = match self.serving {
            Which::Preferred => (preferred, other),
            Which::Other => (other, preferred),
        };
        let Health::Up(there) = there else {
            self.since = None;
            return None;
        };
        let here = match here {
            Health::Down(why) => {
                let reason = format!("{} is down: {why}", self.name(self.serving));
                return Some(self.change(now, reason));
            }
            Health::Up(figures) => figures,
        };
        let (reason, wait) = match self.serving {
            Which::Preferred => (self.trouble(Which::Preferred, here, there), PATIENCE),
            Which::Other => match self.trouble(Which::Other, here, there) {
                // Whoever serves in the other's place is no better off.
                Some(trouble) if self.trouble(Which::Preferred, there, here).is_none() => {
                    (Some(trouble), PATIENCE)
                }
                _ if self.trouble(Which::Preferred, there, here).is_some() => (None, self.hold),
                _ => {
                    let name = self.name(Which::Preferred);
                    (Some(format!("{name} was well for {:?}", self.hold)), self.hold)
                }
            },
        };
        let Some(reason) = reason else {
            self.since = None;
            return None;
        };
        let since = *self.since.get_or_insert(now);
        (now >= since + wait).then(|| self.change(now, reason))
    }

    fn change(&mut self, now: Duration, reason: String) -> Move {
        self.serving = self.serving.opposite();
        self.since = None;
        match self.serving {
            Which::Preferred => self.returned = Some(now),
            // Left again soon after the return: wait longer before the next.
            Which::Other => {
                let in_vain = self.returned.is_some_and(|it| now < it + LASTING);
                self.hold = if in_vain { (self.hold * 2).min(LONGEST_HOLD) } else { SHORTEST_HOLD };
            }
        }
        Move { to: self.serving, reason }
    }

    /// What is wrong with a carrier, compared with the other one.
    fn trouble(&self, which: Which, figures: &Figures, against: &Figures) -> Option<String> {
        let (name, other) = (self.name(which), self.name(which.opposite()));
        let [preferred_loss, other_loss] = &self.losses;
        let (loss, other_loss) = match which {
            Which::Preferred => (preferred_loss, other_loss),
            Which::Other => (other_loss, preferred_loss),
        };
        // A path that loses the other carrier's packets too is no reason to change.
        if let (Some((lost, sent)), None) = (loss.much(), other_loss.much()) {
            return Some(format!("{name} lost {lost} of {sent} packets"));
        }
        let (here, there) = (figures.round_trip?, against.round_trip?);
        (here > there * SLOWER && here > there + SLOWER_BY).then(|| {
            format!("{name} takes {} for a round trip, {other} {}", Short(here), Short(there))
        })
    }

    const fn name(&self, which: Which) -> &'static str {
        let [preferred, other] = self.names;
        match which {
            Which::Preferred => preferred,
            Which::Other => other,
        }
    }
}

impl Loss {
    fn observe(&mut self, now: Duration, health: &Health) {
        let Health::Up(figures) = health else {
            *self = Self::default();
            return;
        };
        let Some((began, sent, lost)) = self.began else {
            self.began = Some((now, figures.sent, figures.lost));
            return;
        };
        // Another connection, counted from the beginning.
        if figures.sent < sent || figures.lost < lost {
            *self = Self { began: Some((now, figures.sent, figures.lost)), last: None };
        } else if now >= began + PATIENCE {
            self.last = Some((figures.lost - lost, figures.sent - sent));
            self.began = Some((now, figures.sent, figures.lost));
        }
    }

    /// Packets lost and sent, when that is much.
    fn much(&self) -> Option<(u64, u64)> {
        self.last.filter(|(lost, sent)| *sent >= PACKETS && lost * 100 >= sent * LOSS)
    }
}

/// Milliseconds, as people say them.
struct Short(Duration);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0.as_millis())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn all_is_well_and_nothing_moves() {
        let mut choice = Choice::new("tls", "quic");
        for second in 0..1000 {
            assert_eq!(choice.observe(secs(second), &up(20), &up(20)), None);
        }
        assert_eq!(choice.serving(), Which::Preferred);
    }

    #[test]
    fn a_carrier_that_is_down_is_left_at_once_and_returned_to_later() {
        let mut choice = Choice::new("quic", "tls");
        assert_eq!(choice.observe(secs(0), &up(20), &up(20)), None);
        let moved = choice.observe(secs(1), &down(), &up(20));
        check(moved, Which::Other, "quic is down: nothing heard for 5s");
        assert_eq!(choice.observe(secs(2), &up(20), &up(20)), None);
        assert_eq!(choice.observe(secs(11), &up(20), &up(20)), None);
        let moved = choice.observe(secs(12), &up(20), &up(20));
        check(moved, Which::Preferred, "quic was well for 10s");
    }

    #[test]
    fn while_both_are_down_nothing_moves() {
        let mut choice = Choice::new("quic", "tls");
        assert_eq!(choice.observe(secs(0), &down(), &down()), None);
        check(choice.observe(secs(1), &down(), &up(1)), Which::Other, "quic is down");
        assert_eq!(choice.observe(secs(2), &down(), &down()), None);
        check(choice.observe(secs(3), &up(1), &down()), Which::Preferred, "tls is down");
    }

    #[test]
    fn loss_that_the_other_carrier_does_not_have_moves() {
        let mut choice = Choice::new("quic", "tls");
        let mut moved = None;
        for second in 0..30 {
            let lossy = counted(second * 100, second * 14);
            moved = choice.observe(secs(second), &lossy, &up(20));
            if moved.is_some() {
                assert_eq!(second, 10, "a window, and then patience");
                break;
            }
        }
        check(moved, Which::Other, "quic lost 70 of 500 packets");
    }

    #[test]
    fn a_little_loss_and_few_packets_move_nothing() {
        let mut choice = Choice::new("quic", "tls");
        for second in 0..100 {
            let lossy = counted(second * 100, second * 9);
            assert_eq!(choice.observe(secs(second), &lossy, &up(20)), None);
        }
        let mut choice = Choice::new("quic", "tls");
        for second in 0..100 {
            let few = counted(second * 19, second * 10);
            assert_eq!(choice.observe(secs(second), &few, &up(20)), None);
        }
    }

    #[test]
    fn a_round_trip_much_longer_than_the_others_moves() {
        let mut choice = Choice::new("tls", "quic");
        assert_eq!(choice.observe(secs(0), &up(200), &up(20)), None);
        assert_eq!(choice.observe(secs(4), &up(200), &up(20)), None);
        let moved = choice.observe(secs(5), &up(200), &up(20));
        check(moved, Which::Other, "tls takes 200 ms for a round trip, quic 20 ms");
        // Still slow: no return.
        for second in 6..100 {
            assert_eq!(choice.observe(secs(second), &up(200), &up(20)), None);
        }
        assert_eq!(choice.observe(secs(100), &up(20), &up(20)), None);
        check(choice.observe(secs(110), &up(20), &up(20)), Which::Preferred, "tls was well");
    }

    #[test]
    fn a_moment_of_trouble_moves_nothing() {
        let mut choice = Choice::new("tls", "quic");
        for second in 0..100 {
            let tls = if second % 5 == 0 { up(20) } else { up(200) };
            assert_eq!(choice.observe(secs(second), &tls, &up(20)), None);
        }
    }

    #[test]
    fn returns_in_vain_become_rare() {
        let mut choice = Choice::new("quic", "tls");
        let (mut now, mut holds) = (0, Vec::new());
        for _ in 0..9 {
            now += 1;
            assert!(choice.observe(secs(now), &down(), &up(20)).is_some());
            let left = now;
            while choice.observe(secs(now), &up(20), &up(20)).is_none() {
                now += 1;
            }
            holds.push(now - left);
        }
        assert_eq!(holds, [10, 20, 40, 80, 160, 320, 600, 600, 600]);
        // A return that lasts makes the next one quick again.
        now += 301;
        assert!(choice.observe(secs(now), &down(), &up(20)).is_some());
        assert_eq!(choice.observe(secs(now), &up(20), &up(20)), None);
        assert!(choice.observe(secs(now + 10), &up(20), &up(20)).is_some());
    }

    proptest! {
        /// Whatever is measured, nobody moves to a carrier that is down, and nobody stays on one
        /// while the other is up.
        #[test]
        fn a_carrier_that_is_down_never_serves_when_the_other_is_up(
            seen in proptest::collection::vec((0_u8..4, 0_u8..4, 0_u64..20), 1..60),
        ) {
            let health = |it: u8| match it {
                0 => down(),
                it => up(u64::from(it) * 60),
            };
            let (mut choice, mut now) = (Choice::new("a", "b"), 0);
            for (preferred, other, wait) in seen {
                now += wait;
                choice.observe(secs(now), &health(preferred), &health(other));
                match choice.serving() {
                    Which::Preferred => prop_assert!(preferred > 0 || other == 0),
                    Which::Other => prop_assert!(other > 0 || preferred == 0),
                }
            }
        }
    }

    #[track_caller]
    fn check(moved: Option<Move>, to: Which, reason: &str) {
        let moved = moved.expect("a move");
        assert_eq!(moved.to, to, "{}", moved.reason);
        assert!(moved.reason.contains(reason), "{}", moved.reason);
    }

    fn up(milliseconds: u64) -> Health {
        let round_trip = Some(Duration::from_millis(milliseconds));
        Health::Up(Figures { round_trip, sent: 0, lost: 0 })
    }

    fn counted(sent: u64, lost: u64) -> Health {
        Health::Up(Figures { round_trip: Some(Duration::from_millis(20)), sent, lost })
    }

    fn down() -> Health {
        Health::Down("nothing heard for 5s".into())
    }

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }
}
