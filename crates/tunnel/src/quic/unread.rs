//! Flows whose reader does not read.
//!
//! What such a flow leaves unread fills its window, and would in time fill the window that all
//! flows of its connection share: a few dozen readers who pause would hold up everybody else. So
//! the connection's window grows by what they hold. Their number is limited, and with it our
//! memory: beyond, the one that has not read for longest is broken off.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quinn::{Connection, VarInt};
use tokio::sync::Notify;

use super::setup::{CONNECTION_WINDOW, STREAM_WINDOW};

/// How long a reader may take before its flow counts as unread.
pub(super) const UNREAD_AFTER: Duration = Duration::from_millis(200);

/// Flows of one connection that may be unread at one time.
pub(super) const MOST: usize = 24;

/// The unread flows of one connection.
#[derive(Debug, Default)]
pub(super) struct UnreadFlows(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// Those that have not read for longest are in front.
    flows: VecDeque<(u64, Arc<Notify>)>,
}

/// A flow counts as unread until this is dropped.
#[derive(Debug)]
pub(super) struct Unread<'a> {
    flows: &'a UnreadFlows,
    connection: &'a Connection,
    number: u64,
    broken_off: Arc<Notify>,
}

impl UnreadFlows {
    /// A flow is unread from now on.
    pub(super) fn note<'a>(&'a self, connection: &'a Connection) -> Unread<'a> {
        let broken_off = Arc::new(Notify::new());
        let mut state = self.lock();
        if state.flows.len() >= MOST
            && let Some((_, longest)) = state.flows.pop_front()
        {
            longest.notify_one();
        }
        let number = state.next;
        state.next += 1;
        state.flows.push_back((number, Arc::clone(&broken_off)));
        adjust(connection, state.flows.len());
        drop(state);
        Unread { flows: self, connection, number, broken_off }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Unread<'_> {
    /// Waits until the flow must be broken off.
    pub(super) async fn until_broken_off(&self) {
        self.broken_off.notified().await;
    }
}

impl Drop for Unread<'_> {
    fn drop(&mut self) {
        let mut state = self.flows.lock();
        state.flows.retain(|(number, _)| *number != self.number);
        adjust(self.connection, state.flows.len());
    }
}

fn adjust(connection: &Connection, unread: usize) {
    let held = u32::try_from(unread).unwrap_or(u32::MAX).saturating_mul(STREAM_WINDOW);
    connection.set_receive_window(VarInt::from_u32(CONNECTION_WINDOW.saturating_add(held)));
}
