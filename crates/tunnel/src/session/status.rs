//! How a session does: whether it has ended and why, how long its round trips are, and when bytes
//! last came.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tunnel_proto::liveness;

use super::Ended;
use crate::cut::{Cut, Waiting};

/// How exactly it is known when bytes came, in nanoseconds.
const ROUGHLY: u64 = 5_000_000;

/// How a session does. Clones tell of the same session.
#[derive(Clone)]
pub struct Status(Arc<Inner>);

/// Times are in nanoseconds since the session began.
struct Inner {
    began: Instant,
    ended: OnceLock<Ended>,
    /// Given when it has ended.
    over: Cut,
    /// Given when its flows can have no future.
    dead: Cut,
    /// When bytes last came, on whichever connection of the session.
    heard: AtomicU64,
    /// When there last was reason to doubt it; 0 when there never was.
    doubted: AtomicU64,
    doubts: Notify,
    /// 0 before the first is measured.
    round_trip: AtomicU64,
}

impl Status {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner {
            began: Instant::now(),
            ended: OnceLock::new(),
            over: Cut::default(),
            dead: Cut::default(),
            heard: AtomicU64::new(0),
            doubted: AtomicU64::new(0),
            doubts: Notify::new(),
            round_trip: AtomicU64::new(0),
        }))
    }

    /// When the session began.
    #[must_use]
    pub fn began(&self) -> Instant {
        self.0.began
    }

    /// The round-trip time of messages, if one is known.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        let nanoseconds = self.0.round_trip.load(Ordering::Relaxed);
        (nanoseconds > 0).then(|| Duration::from_nanos(nanoseconds))
    }

    /// Whether new flows should rather go elsewhere: nothing was heard for so long, or nothing since
    /// a connection of the session broke.
    #[must_use]
    pub fn is_doubtful(&self) -> bool {
        let heard = self.last_heard();
        let silence = self.age().saturating_sub(heard);
        let doubted = Duration::from_nanos(self.0.doubted.load(Ordering::Relaxed));
        doubted > heard || liveness::is_doubtful(silence, self.round_trip())
    }

    /// Why the session has ended, if it has.
    #[must_use]
    pub fn ended(&self) -> Option<Ended> {
        self.0.ended.get().cloned()
    }

    /// Waits until the session has ended.
    pub async fn until_ended(&self) -> Ended {
        self.0.over.wait().await;
        self.ended().unwrap_or(Ended::Here)
    }

    /// Waits until the session's flows can have no future: it was closed here, or the other end is
    /// silent. Where only the control connection broke, flows find out for themselves.
    pub(crate) fn until_dead(&self) -> Waiting<'_> {
        self.0.dead.wait()
    }

    /// Ends the session, unless it has ended already: messages that were queued before are still
    /// sent, then everything is closed.
    pub fn end(&self, why: Ended) {
        let is_dead = match why {
            Ended::Silent(_) | Ended::Here => true,
            Ended::There
            | Ended::Evicted { .. }
            | Ended::Broken(_)
            | Ended::Nonsense(_)
            | Ended::Overrun => false,
        };
        if self.0.ended.set(why).is_ok() {
            self.0.over.give();
            if is_dead {
                self.0.dead.give();
            }
        }
    }

    /// Bytes came from the other end on a connection of this session.
    pub(crate) fn heard(&self) {
        let (now, last) = (nanoseconds(self.age()), self.0.heard.load(Ordering::Relaxed));
        // A store costs less when others only read; a few milliseconds make no difference, except
        // to a doubt.
        if now > last + ROUGHLY || last <= self.0.doubted.load(Ordering::Relaxed) {
            self.0.heard.fetch_max(now, Ordering::Relaxed);
        }
    }

    /// When bytes last came, counted from the beginning.
    pub(crate) fn last_heard(&self) -> Duration {
        Duration::from_nanos(self.0.heard.load(Ordering::Relaxed))
    }

    /// A connection of the session broke: the other end is asked at once whether it lives, and new
    /// flows go elsewhere until it is heard of.
    pub(crate) fn doubt(&self) {
        self.0.doubted.store(nanoseconds(self.age()).max(1), Ordering::Relaxed);
        self.0.doubts.notify_one();
    }

    /// Waits for the next doubt.
    pub(crate) async fn until_doubted(&self) {
        self.0.doubts.notified().await;
    }

    /// How long it has lasted.
    pub(crate) fn age(&self) -> Duration {
        self.0.began.elapsed()
    }

    /// Takes note of the round-trip time.
    pub(crate) fn measured(&self, round_trip: Duration) {
        self.0.round_trip.store(nanoseconds(round_trip).max(1), Ordering::Relaxed);
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Status")
            .field("round_trip", &self.round_trip())
            .field("ended", &self.ended())
            .finish_non_exhaustive()
    }
}
