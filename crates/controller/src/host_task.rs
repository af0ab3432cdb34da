//! One host, kept as wished: observe, compare, apply, remember what the kernel confirmed.
//!
//! A task of its own for each host, so that one that does not answer delays no other. What the
//! host should look like arrives as a [`Wish`]; this file decides only *when* to act on it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::host::HostSettings;
use firewall::StandingRuleset;
use futures::StreamExt;
use jiff::Timestamp;
use planner::desired::Forwarding;
use planner::host_view::HostView;
use tokio::sync::mpsc;

use crate::backoff::Backoff;
use crate::door::{self, Disturbance, Opened};
use crate::hand::{Hand, PassError, Reached, backend};
use crate::reach::Keys;
use crate::wish::{News, Wish, WishInbox};

/// What a host task tells the engine.
#[derive(Debug)]
pub(crate) enum Told {
    /// What was read about the host.
    Facts(HostView),
    /// A pass reached the desired state.
    Applied(Applied),
    /// A pass or a reading failed and will be tried again.
    Failed {
        /// Why.
        error: String,
        /// Whether the host itself answered.
        reachable: bool,
    },
}

/// A pass that reached the desired state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Applied {
    /// The number of host ports forwarded.
    pub(crate) forwards: usize,
    /// The number of steps that the plan had; zero when there was nothing to do.
    pub(crate) steps: usize,
    /// Whether the wish was the same as before, so that the steps undid somebody else's change.
    pub(crate) drift: bool,
    /// From taking up the wish to the kernel's answer.
    pub(crate) took: Duration,
    /// From the change of an object to the kernel's answer, if a change was the cause.
    pub(crate) lag: Option<Duration>,
    /// When it was done.
    pub(crate) at: Timestamp,
}

/// Keeps one host as wished until it is dropped; rules stay.
pub(crate) struct HostTask {
    pub(crate) settings: Arc<HostSettings>,
    pub(crate) keys: Keys,
    /// How often to look although nothing happened.
    pub(crate) resync: Duration,
    pub(crate) wishes: WishInbox,
    pub(crate) told: mpsc::Sender<(String, Told)>,
}

impl HostTask {
    /// Runs until the engine drops its end of `wish`.
    pub(crate) async fn run(mut self) {
        let mut backoff = Backoff::default();
        let mut wished = None;
        loop {
            let error = match door::open(&self.settings, &self.keys).await {
                Ok(opened) => match self.keep(opened, &mut wished, &mut backoff).await {
                    Ended::NotWanted => return,
                    Ended::DoorIsBroken => continue,
                },
                Err(error) => error.to_string(),
            };
            self.tell(Told::Failed { error, reachable: false }).await;
            tokio::select! {
                () = tokio::time::sleep(backoff.next(rand::random())) => {}
                () = self.wishes.closed() => return,
            }
        }
    }

    async fn keep(
        &mut self,
        opened: Opened,
        wished: &mut Option<Wished>,
        backoff: &mut Backoff,
    ) -> Ended {
        let Opened { executor, mut disturbances } = opened;
        let mut hand = Hand::new(&self.settings, executor);
        let mut look_at_facts = true;
        doubt(wished);
        loop {
            let started = Instant::now();
            let outcome = self.pass(&mut hand, &mut look_at_facts, wished).await;
            let wait = match outcome {
                Ok(()) => {
                    backoff.reset();
                    // Looking stays cheap on hosts where looking is slow: at most 0.1 % of a core.
                    self.resync.max(hand.cost_of_looking() * 1000)
                }
                Err(error) => {
                    doubt(wished);
                    let broken = error.needs_new_key();
                    let reachable = error.host_answered();
                    self.tell(Told::Failed { error: error.to_string(), reachable }).await;
                    if broken {
                        tokio::time::sleep(backoff.next(rand::random())).await;
                        return Ended::DoorIsBroken;
                    }
                    // Half of the time that the attempt took, at least: a slow failure is a loaded host.
                    backoff.next(rand::random()).max(started.elapsed() / 2)
                }
            };
            tokio::select! {
                changed = self.wishes.changed() => if changed.is_err() { return Ended::NotWanted },
                Some(disturbance) = disturbances.next() => {
                    doubt(wished);
                    look_at_facts |= disturbance != Disturbance::Firewall;
                }
                () = tokio::time::sleep(wait) => {
                    doubt(wished);
                    look_at_facts = true;
                }
            }
        }
    }

    async fn pass(
        &mut self,
        hand: &mut Hand,
        look_at_facts: &mut bool,
        wished: &mut Option<Wished>,
    ) -> Result<(), PassError> {
        if *look_at_facts {
            let facts = hand.facts().await?;
            *look_at_facts = false;
            self.tell(Told::Facts(facts)).await;
        }
        let started = Instant::now();
        if let Some(wish) = self.wishes.take() {
            follow(wished, wish, &self.settings);
        }
        let Some(wished) = wished else { return Ok(()) };
        if !wished.is_new && wished.ruleset.observed().is_some() {
            return Ok(());
        }
        let Reached { steps, at } = hand.reach(&mut wished.ruleset).await?;
        let took = at.duration_since(started);
        let forwards = wished.ruleset.forwarding().forwards.len();
        let drift = !wished.is_new && steps > 0;
        let lag = wished.changed.take().map(|it| at.saturating_duration_since(it));
        wished.is_new = false;
        // Whole seconds are what people and the API read.
        let now = Timestamp::now();
        let at = Timestamp::from_second(now.as_second()).unwrap_or(now);
        self.tell(Told::Applied(Applied { forwards, steps, drift, took, lag, at })).await;
        Ok(())
    }

    async fn tell(&self, told: Told) {
        // The engine ends before its tasks only when the program ends.
        let _ = self.told.send((self.settings.name.to_string(), told)).await;
    }
}

/// Why a task let go of its host.
enum Ended {
    /// The engine does not want the host kept any more.
    NotWanted,
    /// The key was refused; it may have been replaced where it is kept.
    DoorIsBroken,
}

/// What was wished so far, and whether the host had it once.
struct Wished {
    ruleset: StandingRuleset,
    is_new: bool,
    /// When the oldest change came that the host does not have yet.
    changed: Option<Instant>,
}

/// Somebody may have changed the host: what was observed counts no more.
fn doubt(wished: &mut Option<Wished>) {
    if let Some(wished) = wished {
        wished.ruleset.doubt();
    }
}

fn follow(wished: &mut Option<Wished>, wish: Wish, settings: &HostSettings) {
    let Wish { news, keep, keep_all, changed } = wish;
    let wished = match (wished, news) {
        (Some(wished), News::Whole(forwarding)) => {
            wished.ruleset.replace(*forwarding);
            wished
        }
        (Some(wished), News::Ports(ports)) => {
            wished.ruleset.replace_ports(ports);
            wished
        }
        (wished @ None, news) => {
            let mut forwarding = Forwarding::default();
            match news {
                News::Whole(whole) => forwarding = *whole,
                News::Ports(ports) => forwarding.replace(ports),
            }
            let ruleset = StandingRuleset::new(backend(settings), forwarding);
            wished.insert(Wished { ruleset, is_new: true, changed: None })
        }
    };
    wished.ruleset.keep(keep, keep_all);
    wished.is_new = true;
    wished.changed = wished.changed.into_iter().chain(changed).min();
}
