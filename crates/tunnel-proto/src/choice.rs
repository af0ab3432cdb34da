//! Which link gets a new flow, and which is asked next when it does not answer.
//!
//! A visitor must not notice that a link has just died. So a link is asked, and when it stays
//! silent for longer than [`answer_deadline`] the next one is asked *too*: the first that accepts
//! gets the flow, the others are let go. A slow backend behind healthy links thus costs time, not
//! the connection. As long as any link has not said no, the visitor is not told no.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::message::{Reach, Refused, RefusedReason};

/// The shortest time that a link gets to answer.
pub const SHORTEST_DEADLINE: Duration = Duration::from_millis(250);

/// The time that a link gets which has no connection ready and must wait for one.
pub const UNREADY_DEADLINE: Duration = Duration::from_millis(100);

/// The time that all links together get to answer.
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(10);

/// What is known of a link when a flow is to be opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Candidate {
    /// How well its agent serves the backend.
    pub reach: Reach,
    /// Bytes come from it as they should. A link that is not healthy is asked last.
    pub healthy: bool,
    /// It can carry a flow at once. One that must wait for a connection is asked after those that
    /// need not.
    pub ready: bool,
    /// Its agent is going away. It is not asked at all.
    pub draining: bool,
    /// Flows open on it now.
    pub open_flows: u64,
    /// Its smoothed round-trip time.
    pub round_trip: Option<Duration>,
}

/// Orders links for a new flow, best first: healthy before doubtful, ready before those that must
/// wait for a connection, then by reach, by open flows, by round-trip time (unknown last), by key.
/// Those that cannot serve it are left out.
pub fn order<K: Ord>(links: impl IntoIterator<Item = (K, Candidate)>) -> Vec<(K, Candidate)> {
    let mut usable: Vec<_> =
        links.into_iter().filter(|(_, it)| !it.draining && it.reach != Reach::None).collect();
    let rank = |it: &Candidate| {
        let round_trip = it.round_trip.unwrap_or(Duration::MAX);
        (!it.healthy, !it.ready, std::cmp::Reverse(it.reach), it.open_flows, round_trip)
    };
    usable.sort_by(|(a_key, a), (b_key, b)| rank(a).cmp(&rank(b)).then_with(|| a_key.cmp(b_key)));
    usable
}

/// How long a link gets to answer before the next one is asked too.
#[must_use]
pub fn answer_deadline(round_trip: Option<Duration>) -> Duration {
    round_trip.unwrap_or_default().saturating_mul(2).max(SHORTEST_DEADLINE)
}

/// How long this link gets before the next one is asked too.
fn deadline(link: &Candidate) -> Duration {
    if link.ready { answer_deadline(link.round_trip) } else { UNREADY_DEADLINE }
}

/// Whether a refusal speaks for every agent, so that asking another is of no use. That a backend
/// refuses does not: another agent may know better endpoints, or a way to them.
#[must_use]
pub const fn is_final(reason: RefusedReason) -> bool {
    match reason {
        RefusedReason::InvalidBackend => true,
        RefusedReason::BackendRefused
        | RefusedReason::NoEndpoint
        | RefusedReason::BackendTimeout
        | RefusedReason::Draining => false,
    }
}

/// What a link said, or what became of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// It takes the flow.
    Accepted,
    /// Its agent refused.
    Refused(Refused),
    /// It ended, or had no connection ready.
    Lost,
}

/// What to do next.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step<K> {
    /// Ask this link, and poll again.
    Ask(K),
    /// Wait for an answer; poll again when one came, or at this time.
    Wait(Duration),
    /// This link has the flow. Let the others go.
    Won(K),
    /// Nobody takes it.
    Failed(Failure),
}

/// Why nobody took a flow.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Failure {
    /// No session serves the backend.
    #[error("no agent is connected that serves the backend")]
    NoLink,
    /// The last refusal, or one that speaks for all.
    #[error("{}", .0.detail)]
    Refused(Refused),
    /// Every link was lost while it was asked.
    #[error("every link that was asked was lost")]
    Lost,
    /// Time is up.
    #[error("no agent answered in time")]
    Silence,
}

/// The search for a link that takes one flow. Times count from any fixed moment.
#[derive(Clone, Debug)]
pub struct Search<K> {
    waiting: VecDeque<(K, Duration)>,
    asked: BTreeSet<K>,
    ask_next_at: Duration,
    give_up_at: Duration,
    failure: Failure,
    over: Option<Step<K>>,
}

impl<K: Clone + Ord> Search<K> {
    /// Begins to search among `links`, in the order of [`order`].
    #[must_use]
    pub fn new(links: Vec<(K, Candidate)>, now: Duration) -> Self {
        Self {
            waiting: links.into_iter().map(|(key, it)| (key, deadline(&it))).collect(),
            asked: BTreeSet::new(),
            ask_next_at: now,
            give_up_at: now + GIVE_UP_AFTER,
            failure: Failure::NoLink,
            over: None,
        }
    }

    /// Links that have come since, in the order of [`order`]: the first of them is asked at once,
    /// and so is heard before those that were not asked yet. A search that had failed goes on.
    pub fn add(&mut self, links: Vec<(K, Candidate)>, now: Duration) {
        if links.is_empty() || matches!(self.over, Some(Step::Won(_))) {
            return;
        }
        self.over = None;
        self.ask_next_at = self.ask_next_at.min(now);
        for (key, link) in links.into_iter().rev() {
            self.waiting.push_front((key, deadline(&link)));
        }
    }

    /// Returns what to do `now`.
    pub fn poll(&mut self, now: Duration) -> Step<K> {
        if let Some(over) = &self.over {
            return over.clone();
        }
        if now >= self.give_up_at {
            return self.end(Step::Failed(Failure::Silence));
        }
        if self.asked.is_empty() || now >= self.ask_next_at {
            if let Some((link, deadline)) = self.waiting.pop_front() {
                self.asked.insert(link.clone());
                self.ask_next_at = now + deadline;
                return Step::Ask(link);
            }
            if self.asked.is_empty() {
                return self.end(Step::Failed(self.failure.clone()));
            }
        }
        let next = if self.waiting.is_empty() { self.give_up_at } else { self.ask_next_at };
        Step::Wait(next.min(self.give_up_at))
    }

    /// A link that was asked has answered.
    pub fn handle_answer(&mut self, link: &K, answer: Answer) {
        if self.over.is_some() || !self.asked.remove(link) {
            return;
        }
        match answer {
            Answer::Accepted => {
                self.end(Step::Won(link.clone()));
            }
            Answer::Refused(refused) if is_final(refused.reason) => {
                self.end(Step::Failed(Failure::Refused(refused)));
            }
            // A refusal says more than a loss.
            Answer::Refused(refused) => self.failure = Failure::Refused(refused),
            Answer::Lost if self.failure == Failure::NoLink => self.failure = Failure::Lost,
            Answer::Lost => {}
        }
    }

    fn end(&mut self, step: Step<K>) -> Step<K> {
        self.over = Some(step.clone());
        step
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_best_link_comes_first() {
        let good = candidate();
        let slow = Candidate { round_trip: Some(ms(50)), ..good };
        let unknown = Candidate { round_trip: None, ..good };
        let busy = Candidate { open_flows: 9, round_trip: Some(ms(1)), ..good };
        let local = Candidate { reach: Reach::Local, ..busy };
        let doubtful = Candidate { healthy: false, reach: Reach::Local, ..good };
        let unready = Candidate { ready: false, ..local };
        check_order(&[("slow", slow), ("good", good)], &["good", "slow"]);
        check_order(&[("a", unknown), ("b", slow)], &["b", "a"]);
        check_order(&[("busy", busy), ("slow", slow)], &["slow", "busy"]);
        check_order(&[("good", good), ("local", local)], &["local", "good"]);
        check_order(&[("doubtful", doubtful), ("busy", busy)], &["busy", "doubtful"]);
        check_order(&[("unready", unready), ("slow", slow)], &["slow", "unready"]);
        check_order(&[("doubtful", doubtful), ("unready", unready)], &["unready", "doubtful"]);
        check_order(&[("b", good), ("a", good)], &["a", "b"]);
    }

    #[test]
    fn links_that_cannot_serve_are_left_out() {
        let draining = Candidate { draining: true, ..candidate() };
        let without = Candidate { reach: Reach::None, ..candidate() };
        check_order(&[("draining", draining), ("without", without)], &[]);
    }

    #[test]
    fn a_link_gets_two_round_trips_and_at_least_a_quarter_second() {
        assert_eq!(answer_deadline(None), ms(250));
        assert_eq!(answer_deadline(Some(ms(100))), ms(250));
        assert_eq!(answer_deadline(Some(ms(300))), ms(600));
    }

    #[test]
    fn silence_brings_in_the_next_link() {
        let mut search = search(&["a", "b"]);
        assert_eq!(search.poll(ms(0)), Step::Ask("a"));
        assert_eq!(search.poll(ms(0)), Step::Wait(ms(250)));
        assert_eq!(search.poll(ms(250)), Step::Ask("b"));
        assert_eq!(search.poll(ms(250)), Step::Wait(ms(10_000)));
        search.handle_answer(&"b", Answer::Accepted);
        assert_eq!(search.poll(ms(260)), Step::Won("b"));
        // The first one wakes up: too late.
        search.handle_answer(&"a", Answer::Accepted);
        assert_eq!(search.poll(ms(270)), Step::Won("b"));
    }

    #[test]
    fn a_slow_backend_costs_time_and_not_the_connection() {
        let mut search = search(&["a", "b"]);
        assert_eq!(search.poll(ms(0)), Step::Ask("a"));
        assert_eq!(search.poll(ms(300)), Step::Ask("b"));
        assert_eq!(search.poll(ms(3000)), Step::Wait(ms(10_000)));
        search.handle_answer(&"a", Answer::Accepted);
        assert_eq!(search.poll(ms(3000)), Step::Won("a"));
    }

    #[test]
    fn some_refusals_bring_in_the_next_link_at_once() {
        use RefusedReason::{BackendRefused, BackendTimeout, Draining, NoEndpoint};
        for reason in [NoEndpoint, Draining, BackendTimeout, BackendRefused] {
            let mut search = search(&["a", "b"]);
            assert_eq!(search.poll(ms(0)), Step::Ask("a"));
            search.handle_answer(&"a", refused(reason));
            assert_eq!(search.poll(ms(1)), Step::Ask("b"), "{reason:?}");
            search.handle_answer(&"b", Answer::Lost);
            let Answer::Refused(told) = refused(reason) else { panic!("a refusal") };
            assert_eq!(search.poll(ms(2)), Step::Failed(Failure::Refused(told)));
        }
    }

    #[test]
    fn one_refusal_speaks_for_all() {
        let mut search = search(&["a", "b"]);
        assert_eq!(search.poll(ms(0)), Step::Ask("a"));
        search.handle_answer(&"a", refused(RefusedReason::InvalidBackend));
        let step = search.poll(ms(1));
        assert!(matches!(step, Step::Failed(Failure::Refused(_))), "{step:?}");
    }

    #[test]
    fn a_link_that_must_wait_for_a_connection_is_not_waited_for() {
        let unready = Candidate { ready: false, ..candidate() };
        let mut search = Search::new(vec![("a", unready), ("b", unready)], ms(0));
        assert_eq!(search.poll(ms(0)), Step::Ask("a"));
        assert_eq!(search.poll(ms(0)), Step::Wait(ms(100)));
        assert_eq!(search.poll(ms(100)), Step::Ask("b"));
    }

    #[test]
    fn a_link_that_comes_meanwhile_is_asked_at_once_and_takes_nobodys_place() {
        let mut search = search(&["a", "b"]);
        assert_eq!(search.poll(ms(0)), Step::Ask("a"));
        search.add(vec![("c", candidate())], ms(10));
        assert_eq!(search.poll(ms(10)), Step::Ask("c"));
        assert_eq!(search.poll(ms(10)), Step::Wait(ms(260)));
        search.handle_answer(&"c", refused(RefusedReason::NoEndpoint));
        search.handle_answer(&"a", Answer::Lost);
        assert_eq!(search.poll(ms(20)), Step::Ask("b"), "it was not forgotten");
        search.handle_answer(&"b", Answer::Lost);
        assert!(matches!(search.poll(ms(30)), Step::Failed(Failure::Refused(_))));
        search.add(vec![("d", candidate())], ms(40));
        assert_eq!(search.poll(ms(40)), Step::Ask("d"), "it goes on");
        search.handle_answer(&"d", Answer::Accepted);
        search.add(vec![("e", candidate())], ms(50));
        assert_eq!(search.poll(ms(50)), Step::Won("d"));
    }

    #[test]
    fn a_search_ends() {
        assert_eq!(search(&[]).poll(ms(0)), Step::Failed(Failure::NoLink));

        let mut lost = search(&["a"]);
        assert_eq!(lost.poll(ms(0)), Step::Ask("a"));
        lost.handle_answer(&"a", Answer::Lost);
        assert_eq!(lost.poll(ms(1)), Step::Failed(Failure::Lost));

        let mut silent = search(&["a"]);
        assert_eq!(silent.poll(ms(0)), Step::Ask("a"));
        assert_eq!(silent.poll(ms(9_999)), Step::Wait(ms(10_000)));
        assert_eq!(silent.poll(ms(10_000)), Step::Failed(Failure::Silence));
    }

    proptest! {
        /// Whatever links answer, each is asked at most once, in order, and the search ends.
        #[test]
        fn every_search_ends_and_asks_nobody_twice(
            answers in proptest::collection::vec(proptest::option::of(0_u8..4), 0..6),
        ) {
            let keys: Vec<_> = (0..answers.len()).collect();
            let links = keys.iter().map(|key| (*key, candidate())).collect();
            let (mut search, mut now, mut asked) = (Search::new(links, ms(0)), ms(0), Vec::new());
            let end = loop {
                match search.poll(now) {
                    Step::Ask(link) => {
                        asked.push(link);
                        match answers[link] {
                            None => {}
                            Some(0) => search.handle_answer(&link, Answer::Accepted),
                            Some(1) => search.handle_answer(&link, Answer::Lost),
                            Some(2) => search.handle_answer(&link, refused(RefusedReason::NoEndpoint)),
                            Some(_) => {
                                search.handle_answer(&link, refused(RefusedReason::InvalidBackend));
                            }
                        }
                    }
                    Step::Wait(until) => {
                        prop_assert!(until > now);
                        now = until;
                    }
                    end @ (Step::Won(_) | Step::Failed(_)) => break end,
                }
            };
            prop_assert!(now <= ms(10_000));
            prop_assert_eq!(&asked, &keys[..asked.len()].to_vec());
            let decisive = answers.iter().position(|it| matches!(it, Some(0 | 3)));
            if let Step::Won(link) = end {
                prop_assert_eq!(Some(link), decisive);
            } else {
                prop_assert!(decisive.is_none_or(|it| answers[it] == Some(3)));
            }
        }
    }

    fn search(links: &[&'static str]) -> Search<&'static str> {
        Search::new(links.iter().map(|key| (*key, candidate())).collect(), ms(0))
    }

    fn refused(reason: RefusedReason) -> Answer {
        Answer::Refused(Refused { reason, detail: "no".into() })
    }

    const fn candidate() -> Candidate {
        Candidate {
            reach: Reach::Remote,
            healthy: true,
            ready: true,
            draining: false,
            open_flows: 0,
            round_trip: Some(ms(10)),
        }
    }

    #[track_caller]
    fn check_order(links: &[(&str, Candidate)], expected: &[&str]) {
        let ordered: Vec<_> = order(links.iter().copied()).into_iter().map(|it| it.0).collect();
        assert_eq!(ordered, expected);
    }

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }
}
