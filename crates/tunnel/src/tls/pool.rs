//! The gateway's flow connections of one session: those that wait for a flow, and how many there
//! should be.
//!
//! The agent dials them; the gateway says how many it wants to find ready. Only the gateway lets
//! go of those that are too many: an agent that closed one could meet a flow on its way.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tunnel_proto::frame::Kind;
use tunnel_proto::message::ToAgent;

use super::connection::Connection;
use super::flow::{Home, Shared};
use crate::peer::Identity;
use crate::session::Outbox;

/// The most idle connections that are asked for in advance.
const MOST_SPARE: u32 = 256;

/// How often the number of idle connections that are asked for in advance may double.
const GROW_EVERY: Duration = Duration::from_secs(1);

/// How often it is looked whether idle connections live, and whether they are too many.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Silence after which an idle connection is asked whether it lives.
const ASK_AFTER: Duration = Duration::from_secs(20);

/// The flow connections of one session.
#[derive(Debug)]
pub(super) struct Pool {
    /// Who may add connections.
    pub(super) peer: Identity,
    pub(super) shared: Shared,
    outbox: Outbox<ToAgent>,
    /// The fewest idle connections that are asked for.
    least: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<Idle>,
    waiting: VecDeque<oneshot::Sender<Connection>>,
    /// How many should be found ready, by demand.
    wanted: u32,
    /// When that last grew: those who wait at one time are counted for themselves.
    grew: Option<Instant>,
    /// What the agent was last told.
    told: u32,
    /// The fewest that were idle since it was last looked.
    fewest: usize,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
    /// When it was asked whether it lives, if it has not answered.
    asked: Option<Instant>,
}

impl Pool {
    pub(super) fn new(
        peer: Identity,
        shared: Shared,
        outbox: Outbox<ToAgent>,
        spare: u32,
    ) -> Arc<Self> {
        let state = State { wanted: spare, told: spare, ..State::default() };
        let pool = Arc::new(Self { peer, shared, outbox, least: spare, state: Mutex::new(state) });
        tokio::spawn(look_after(Arc::downgrade(&pool)));
        pool
    }

    /// A connection that is ready for a flow: at once if there is one, else as soon as the agent
    /// has dialled. `None` when the session is over.
    pub(super) async fn take(&self) -> Option<Connection> {
        let waits = {
            let mut state = self.lock();
            while let Some(mut idle) = state.idle.pop() {
                state.fewest = state.fewest.min(state.idle.len());
                if idle.is_alive() {
                    return Some(idle.connection);
                }
            }
            state.fewest = 0;
            let (sender, receiver) = oneshot::channel();
            state.waiting.retain(|it| !it.is_closed());
            state.waiting.push_back(sender);
            if state.grew.is_none_or(|it| it.elapsed() >= GROW_EVERY) {
                state.grew = Some(Instant::now());
                state.wanted = (state.wanted * 2).clamp(self.least.max(1), MOST_SPARE);
            }
            self.tell(&mut state);
            receiver
        };
        tokio::select! {
            connection = waits => connection.ok(),
            _ = self.shared.status.until_ended() => None,
        }
    }

    /// A connection that the agent has dialled.
    pub(super) fn add(self: &Arc<Self>, mut connection: Connection) {
        connection.belongs_to(self.shared.status.clone());
        Arc::clone(self).welcome(connection);
    }

    /// Whether a connection is ready.
    pub(super) fn has_idle(&self) -> bool {
        !self.lock().idle.is_empty()
    }

    /// Lets go of idle connections that have broken.
    pub(super) fn look_at_idle(&self) {
        let mut state = self.lock();
        state.idle.retain_mut(Idle::is_alive);
        state.fewest = state.fewest.min(state.idle.len());
    }

    fn give(&self, mut connection: Connection) {
        if self.shared.status.ended().is_some() {
            return;
        }
        let mut state = self.lock();
        while let Some(waiting) = state.waiting.pop_front() {
            match waiting.send(connection) {
                Ok(()) => return self.tell(&mut state),
                Err(back) => connection = back,
            }
        }
        self.tell(&mut state);
        connection.rest();
        state.idle.push(Idle { connection, since: Instant::now(), asked: None });
    }

    /// Tells the agent how many it should keep ready, when that has changed by much.
    fn tell(&self, state: &mut State) {
        let waiting = u32::try_from(state.waiting.len()).unwrap_or(u32::MAX);
        let now = state.wanted.saturating_add(waiting);
        let (less, more) = (state.told - state.told / 4, state.told + state.told / 4);
        if now < less || now > more || (waiting == 0 && now != state.told) {
            state.told = now;
            // A session that has ended needs none.
            let _ended = self.outbox.send(ToAgent::Spare(now));
        }
    }

    fn look(&self) {
        let mut state = self.lock();
        for idle in &mut state.idle {
            idle.ask();
        }
        state.idle.retain_mut(Idle::is_alive);
        state.waiting.retain(|it| !it.is_closed());
        // Half of those that were never needed go.
        let surplus = state.fewest.saturating_sub(state.wanted as usize).div_ceil(2);
        let left = state.idle.len() - surplus.min(state.idle.len());
        // Those at the bottom have waited longest.
        let all = state.idle.len();
        state.idle.drain(..all - left);
        if state.fewest > state.wanted as usize / 2 {
            state.wanted = (state.wanted - state.wanted / 4).max(self.least);
        }
        state.fewest = state.idle.len();
        self.tell(&mut state);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of every idle connection, and of whoever waits for one.
    fn clear(&self) {
        let state = std::mem::take(&mut *self.lock());
        drop(state);
    }
}

impl Home for Pool {
    fn welcome(self: Arc<Self>, connection: Connection) {
        self.give(connection);
    }

    fn session(&self) -> &Shared {
        &self.shared
    }
}

impl Idle {
    /// Takes note of what came meanwhile; `false` when it can carry no flow any more.
    fn is_alive(&mut self) -> bool {
        match self.connection.look_aside() {
            Ok(true) => {
                self.asked = None;
                self.since = Instant::now();
                true
            }
            Ok(false) => self.asked.is_none_or(|it| it.elapsed() < LOOK_EVERY),
            Err(_) => false,
        }
    }

    /// Asks whether it lives, when nothing was heard for long.
    fn ask(&mut self) {
        if self.asked.is_none() && self.since.elapsed() > ASK_AFTER {
            // An error shows when it is looked at next.
            let _broken = self.connection.send(Kind::Ping, &[]);
            self.asked = Some(Instant::now());
        }
    }
}

async fn look_after(pool: Weak<Pool>) {
    loop {
        let Some(status) = pool.upgrade().map(|it| it.shared.status.clone()) else { return };
        let ended = tokio::time::timeout(LOOK_EVERY, status.until_ended()).await.is_ok();
        let Some(pool) = pool.upgrade() else { return };
        if ended {
            return pool.clear();
        }
        pool.look();
    }
}
