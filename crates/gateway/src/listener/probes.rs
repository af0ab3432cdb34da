//! The gateway's own probes of a port: how they are recognised, and what they found.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tunnel_proto::message::{Probed, Reached};

/// Probes of one port.
#[derive(Debug, Default)]
pub(crate) struct Probes {
    /// By the address and port that the probe comes from: the socket is bound before it connects.
    expected: Mutex<BTreeMap<SocketAddr, oneshot::Sender<Reached>>>,
    /// How many are expected, so that visitors need no lock while there is none.
    count: AtomicUsize,
    last: Mutex<Option<Probed>>,
    /// How long the last visitor's flow took to open, in microseconds; 0 when none has come since
    /// somebody asked.
    passed: AtomicU64,
}

impl Probes {
    /// A probe will come from there. What becomes of it behind the port is told to the receiver.
    pub(crate) fn expect(&self, from: SocketAddr) -> oneshot::Receiver<Reached> {
        let (sender, receiver) = oneshot::channel();
        let mut expected = lock(&self.expected);
        // Whoever asked waits no longer.
        expected.retain(|_, it| !it.is_closed());
        expected.insert(from, sender);
        self.count.store(expected.len(), Ordering::Release);
        receiver
    }

    /// Whom to tell, if this visitor is a probe.
    pub(crate) fn take(&self, visitor: SocketAddr) -> Option<oneshot::Sender<Reached>> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut expected = lock(&self.expected);
        let found = expected.remove(&visitor);
        self.count.store(expected.len(), Ordering::Release);
        found
    }

    /// A visitor came through, which is as good as a probe.
    pub(crate) fn passed(&self, took: Duration) {
        let microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.passed.store(microseconds.max(1), Ordering::Relaxed);
    }

    /// How long the last visitor's flow took to open, in microseconds, if one has come since this
    /// was last asked.
    pub(crate) fn take_passed(&self) -> Option<u64> {
        Some(self.passed.swap(0, Ordering::Relaxed)).filter(|it| *it > 0)
    }

    /// The last finding.
    pub(crate) fn last(&self) -> Option<Probed> {
        lock(&self.last).clone()
    }

    /// Keeps a finding; says whether it tells another story than the last one.
    pub(crate) fn keep(&self, probed: Option<Probed>) -> bool {
        let hop = |it: &Probed| std::mem::discriminant(&it.reached);
        let mut last = lock(&self.last);
        let is_news = last.as_ref().map(hop) != probed.as_ref().map(hop);
        *last = probed;
        is_news
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
