//! One host, kept as wished: observe, compare, apply, remember what the kernel confirmed.
//!
//! A task of its own for each host, so that one that does not answer delays no other. What the
//! host should look like arrives as a [`Wish`]; this file decides only *when* to act on it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::host::HostSettings;
use api::object::ObjectRef;
use futures::StreamExt;
use jiff::Timestamp;
use planner::desired::Forwarding;
use planner::host_view::HostView;
use tokio::sync::{mpsc, watch};

use crate::backoff::Backoff;
use crate::door::{self, Disturbance, Opened};
use crate::hand::{Hand, PassError};
use crate::reach::Keys;

/// What a host should look like.
#[derive(Debug)]
pub(crate) struct Wish {
    /// The desired forwarding.
    pub(crate) forwarding: Forwarding,
    /// Objects that cannot be read: what the host still has for them stays.
    pub(crate) keep: BTreeSet<ObjectRef>,
    /// Some objects cannot be read and nobody knows which: whatever the host has stays, unless
    /// another object wants its host port.
    pub(crate) keep_all: bool,
    /// When the oldest change came that this wish is the first to cover.
    pub(crate) changed: Option<Instant>,
}

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
    pub(crate) wish: watch::Receiver<Option<Arc<Wish>>>,
    pub(crate) told: mpsc::Sender<(String, Told)>,
}

impl HostTask {
    /// Runs until the engine drops its end of `wish`.
    pub(crate) async fn run(mut self) {
        let mut backoff = Backoff::default();
        loop {
            let error = match door::open(&self.settings, &self.keys).await {
                Ok(opened) => match self.keep(opened, &mut backoff).await {
                    Ended::NotWanted => return,
                    Ended::DoorIsBroken => continue,
                },
                Err(error) => error.to_string(),
            };
            self.tell(Told::Failed { error, reachable: false }).await;
            tokio::select! {
                () = tokio::time::sleep(backoff.next(rand::random())) => {}
                () = gone(&self.wish) => return,
            }
        }
    }

    async fn keep(&mut self, opened: Opened, backoff: &mut Backoff) -> Ended {
        let Opened { executor, mut disturbances } = opened;
        let mut hand = Hand::new(&self.settings, executor);
        let mut look_at_facts = true;
        let mut applied: Option<Arc<Wish>> = None;
        loop {
            let started = Instant::now();
            let outcome = self.pass(&mut hand, &mut look_at_facts, &mut applied).await;
            let wait = match outcome {
                Ok(()) => {
                    backoff.reset();
                    // Looking stays cheap on hosts where looking is slow: at most 0.1 % of a core.
                    self.resync.max(hand.cost_of_looking() * 1000)
                }
                Err(error) => {
                    hand.doubt();
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
                changed = self.wish.changed() => if changed.is_err() { return Ended::NotWanted },
                Some(disturbance) = disturbances.next() => {
                    hand.doubt();
                    look_at_facts |= disturbance != Disturbance::Firewall;
                }
                () = tokio::time::sleep(wait) => {
                    hand.doubt();
                    look_at_facts = true;
                }
            }
        }
    }

    async fn pass(
        &mut self,
        hand: &mut Hand,
        look_at_facts: &mut bool,
        applied: &mut Option<Arc<Wish>>,
    ) -> Result<(), PassError> {
        if *look_at_facts {
            let facts = hand.facts().await?;
            *look_at_facts = false;
            self.tell(Told::Facts(facts)).await;
        }
        let Some(wished) = self.wish.borrow_and_update().clone() else { return Ok(()) };
        let same_wish = applied.as_ref().is_some_and(|it| Arc::ptr_eq(it, &wished));
        if same_wish && hand.is_sure() {
            return Ok(());
        }
        let started = Instant::now();
        let steps = hand.reach(&wished).await?;
        let took = started.elapsed();
        *applied = Some(Arc::clone(&wished));
        let forwards = wished.forwarding.forwards.len();
        let drift = same_wish && steps > 0;
        let lag = wished.changed.filter(|_| !same_wish).map(|it| it.elapsed());
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

async fn gone(wish: &watch::Receiver<Option<Arc<Wish>>>) {
    let mut wish = wish.clone();
    while wish.changed().await.is_ok() {}
}
