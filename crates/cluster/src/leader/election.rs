//! Who may take the lease, and when. No API and no clock: the caller brings both.

use std::time::{Duration, Instant};

use super::Settings;

/// What a lease says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Record {
    /// Who holds it; empty when nobody does.
    pub(super) holder: String,
    /// How long the holder wants to be left alone after each renewal.
    pub(super) duration: Duration,
    /// How often it went from one holder to another.
    pub(super) transitions: i32,
    /// Changes with every write.
    pub(super) version: String,
}

/// What to do next.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Step {
    /// Nothing: another holds it.
    Wait,
    /// Write this, under the condition that nobody wrote since.
    Write(Record),
}

/// One candidate's view of the election.
#[derive(Debug)]
pub(super) struct Election {
    identity: String,
    settings: Settings,
    /// What the lease said, and since when it has said so *as we saw it*.
    observed: Option<(Record, Instant)>,
}

impl Election {
    pub(super) fn new(identity: &str, settings: Settings) -> Self {
        Self { identity: identity.to_owned(), settings, observed: None }
    }

    /// Takes in what the lease says at `now`; `None` when there is none.
    pub(super) fn read(&mut self, record: Option<Record>, now: Instant) -> Step {
        let Some(record) = record else {
            self.observed = None;
            return Step::Write(self.mine(0));
        };
        let since = match &self.observed {
            Some((before, since)) if before.version == record.version => *since,
            Some(_) | None => now,
        };
        self.observed = Some((record.clone(), since));

        if record.holder == self.identity {
            return Step::Write(self.mine(record.transitions));
        }
        // The holder knows best how long it may be silent, but an absurd wish binds nobody.
        let patience = record.duration.max(self.settings.lease_duration);
        let patience = patience.min(self.settings.lease_duration * 10);
        let is_free = record.holder.is_empty() || now.saturating_duration_since(since) >= patience;
        if is_free {
            Step::Write(self.mine(record.transitions.saturating_add(1)))
        } else {
            Step::Wait
        }
    }

    /// Takes in that our write was accepted, and became `record`.
    pub(super) fn written(&mut self, record: Record, sent: Instant) {
        self.observed = Some((record, sent));
    }

    /// Whether the lease was ours when last seen.
    pub(super) fn holds(&self) -> bool {
        self.observed.as_ref().is_some_and(|(it, _)| it.holder == self.identity)
    }

    /// What to write to give the lease back; `None` when it is not ours.
    pub(super) fn release(&self, record: &Record) -> Option<Record> {
        (record.holder == self.identity).then(|| Record {
            holder: String::new(),
            duration: Duration::from_secs(1),
            ..record.clone()
        })
    }

    fn mine(&self, transitions: i32) -> Record {
        Record {
            holder: self.identity.clone(),
            duration: self.settings.lease_duration,
            transitions,
            version: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Settings = Settings {
        lease_duration: Duration::from_secs(15),
        renew_deadline: Duration::from_secs(10),
        retry_period: Duration::from_secs(2),
    };

    #[test]
    fn takes_a_lease_that_nobody_has_or_wants() {
        let now = Instant::now();
        let mut election = Election::new("a", SETTINGS);
        assert_eq!(holder(election.read(None, now)), Some("a 0".to_owned()));
        assert_eq!(
            holder(election.read(Some(record("", 15, 7, "1")), now)),
            Some("a 8".to_owned())
        );
    }

    #[test]
    fn renews_its_own_without_counting_a_transition() {
        let now = Instant::now();
        let mut election = Election::new("a", SETTINGS);
        let step = election.read(Some(record("a", 15, 3, "1")), now);
        assert!(election.holds());
        assert_eq!(holder(step), Some("a 3".to_owned()));
    }

    #[test]
    fn leaves_a_lease_alone_while_it_is_renewed() {
        let mut now = Instant::now();
        let mut election = Election::new("b", SETTINGS);
        for version in 0..100 {
            let step = election.read(Some(record("a", 15, 0, &version.to_string())), now);
            assert_eq!(step, Step::Wait);
            now += Duration::from_secs(14);
        }
    }

    #[test]
    fn takes_a_lease_that_it_saw_unchanged_for_its_whole_duration() {
        let start = Instant::now();
        let mut election = Election::new("b", SETTINGS);
        let dead = || Some(record("a", 15, 0, "1"));
        // However old the lease may be: it counts from our first look.
        assert_eq!(election.read(dead(), start), Step::Wait);
        assert_eq!(election.read(dead(), start + Duration::from_millis(14_999)), Step::Wait);
        let step = election.read(dead(), start + Duration::from_secs(15));
        assert_eq!(holder(step), Some("b 1".to_owned()));
    }

    #[test]
    fn the_holder_may_ask_for_more_time_but_not_for_any_amount() {
        let start = Instant::now();
        let mut election = Election::new("b", SETTINGS);
        election.read(Some(record("a", 60, 0, "1")), start);
        let step = election.read(Some(record("a", 60, 0, "1")), start + Duration::from_secs(59));
        assert_eq!(step, Step::Wait);

        election.read(Some(record("a", 1_000_000, 0, "2")), start);
        let later = start + Duration::from_secs(150);
        assert_ne!(election.read(Some(record("a", 1_000_000, 0, "2")), later), Step::Wait);
    }

    #[test]
    fn a_short_wish_does_not_shorten_our_patience() {
        let start = Instant::now();
        let mut election = Election::new("b", SETTINGS);
        election.read(Some(record("a", 1, 0, "1")), start);
        let step = election.read(Some(record("a", 1, 0, "1")), start + Duration::from_secs(14));
        assert_eq!(step, Step::Wait);
    }

    #[test]
    fn gives_back_only_what_it_holds() {
        let election = Election::new("a", SETTINGS);
        let given = election.release(&record("a", 15, 3, "9")).expect("it is ours");
        assert_eq!((given.holder.as_str(), given.transitions), ("", 3));
        assert_eq!(election.release(&record("b", 15, 3, "9")), None);
    }

    /// Two candidates and a server, with every answer lost in turn: at no time do both lead.
    #[test]
    fn two_never_lead_at_once_whatever_gets_lost() {
        for seed in 0..200_u64 {
            let start = Instant::now();
            let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut lease: Option<Record> = None;
            let mut version = 0_u64;
            let mut candidates =
                ["a", "b"].map(|it| (Election::new(it, SETTINGS), None::<Instant>));
            for second in 0..300 {
                let now = start + Duration::from_secs(second);
                for (election, until) in &mut candidates {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    // Lost: the question, the answer, or nothing.
                    let (asked, answered) =
                        (!random.is_multiple_of(3), !(random >> 8).is_multiple_of(3));
                    if !asked {
                        continue;
                    }
                    let step = election.read(lease.clone(), now);
                    if !election.holds() {
                        *until = None;
                    }
                    if let Step::Write(mut record) = step {
                        version += 1;
                        record.version = version.to_string();
                        lease = Some(record.clone());
                        if answered {
                            election.written(record, now);
                            *until = Some(now + SETTINGS.renew_deadline);
                        }
                    }
                }
                let leaders = candidates.iter().filter(|(_, it)| it.is_some_and(|it| it > now));
                assert!(leaders.count() < 2, "seed {seed}, second {second}");
            }
        }
    }

    fn record(holder: &str, seconds: u64, transitions: i32, version: &str) -> Record {
        Record {
            holder: holder.to_owned(),
            duration: Duration::from_secs(seconds),
            transitions,
            version: version.to_owned(),
        }
    }

    fn holder(step: Step) -> Option<String> {
        match step {
            Step::Wait => None,
            Step::Write(record) => Some(format!("{} {}", record.holder, record.transitions)),
        }
    }
}
