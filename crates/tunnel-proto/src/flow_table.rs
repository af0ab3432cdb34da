//! UDP flows: which visitor has which, and when one is over.
//!
//! UDP says neither hello nor goodbye. A flow begins with a visitor's first datagram and is over
//! when none went either way for a while. One that was never answered is over sooner: so look
//! datagrams with forged senders.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a flow lives without a datagram, unless the port says otherwise.
pub const IDLE: Duration = Duration::from_secs(60);

/// How long a flow lives, at most, that was never answered.
pub const UNANSWERED: Duration = Duration::from_secs(15);

/// The flows of a port or of a gateway. `K` names a flow, `V` is whatever a flow is. Times count
/// from any fixed moment.
#[derive(Clone, Debug)]
pub struct FlowTable<K, V> {
    flows: BTreeMap<K, Held<V>>,
    /// When to look at a flow; it may have lived on meanwhile.
    looks: BTreeSet<(Duration, K)>,
    most: usize,
}

#[derive(Clone, Debug)]
struct Held<V> {
    value: V,
    idle: Duration,
    last: Duration,
    answered: bool,
    look: Duration,
}

impl<V> Held<V> {
    fn over_at(&self) -> Duration {
        let idle = if self.answered { self.idle } else { self.idle.min(UNANSWERED) };
        self.last + idle
    }
}

/// There are as many flows as are allowed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("there are {0} UDP flows, as many as are allowed")]
pub struct Full(pub usize);

impl<K: Clone + Ord, V> FlowTable<K, V> {
    /// No flow, and room for `most`.
    #[must_use]
    pub const fn new(most: usize) -> Self {
        Self { flows: BTreeMap::new(), looks: BTreeSet::new(), most }
    }

    /// A visitor's datagram came. Returns the flow that it belongs to, if there is one.
    pub fn from_visitor(&mut self, key: &K, now: Duration) -> Option<&mut V> {
        let held = self.flows.get_mut(key)?;
        held.last = held.last.max(now);
        Some(&mut held.value)
    }

    /// A backend's datagram came. Returns the flow that it belongs to, if there still is one.
    pub fn from_backend(&mut self, key: &K, now: Duration) -> Option<&mut V> {
        let held = self.flows.get_mut(key)?;
        held.last = held.last.max(now);
        held.answered = true;
        Some(&mut held.value)
    }

    /// Begins a flow that is over when `idle` passes without a datagram. Returns the flow that had
    /// this key before.
    ///
    /// # Errors
    ///
    /// When there is no room.
    pub fn begin(
        &mut self,
        key: K,
        value: V,
        idle: Duration,
        now: Duration,
    ) -> Result<Option<V>, Full> {
        let before = self.end(&key);
        if self.flows.len() >= self.most {
            return Err(Full(self.most));
        }
        let mut held = Held { value, idle, last: now, answered: false, look: Duration::ZERO };
        held.look = held.over_at();
        self.looks.insert((held.look, key.clone()));
        self.flows.insert(key, held);
        Ok(before)
    }

    /// Ends a flow.
    pub fn end(&mut self, key: &K) -> Option<V> {
        let held = self.flows.remove(key)?;
        self.looks.remove(&(held.look, key.clone()));
        Some(held.value)
    }

    /// When [`Self::expire`] wants to be called next; `None` when there is no flow.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.looks.first().map(|(at, _)| *at)
    }

    /// Ends the flows that are over `now`.
    pub fn expire(&mut self, now: Duration) -> Vec<(K, V)> {
        let mut over = Vec::new();
        while self.poll_timeout().is_some_and(|at| at <= now) {
            let Some((_, key)) = self.looks.pop_first() else { break };
            let Some(held) = self.flows.get_mut(&key) else { continue };
            if held.over_at() > now {
                held.look = held.over_at();
                self.looks.insert((held.look, key));
            } else if let Some(held) = self.flows.remove(&key) {
                over.push((key, held.value));
            }
        }
        over
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// Ends every flow.
    pub fn drain(&mut self) -> impl Iterator<Item = (K, V)> + use<K, V> {
        self.looks.clear();
        std::mem::take(&mut self.flows).into_iter().map(|(key, held)| (key, held.value))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_flow_is_over_when_nothing_went_for_a_while() {
        let mut table = FlowTable::new(10);
        assert_eq!(table.begin("a", 1, secs(30), secs(0)), Ok(None));
        assert_eq!(table.from_backend(&"a", secs(1)), Some(&mut 1));
        assert_eq!(table.from_visitor(&"a", secs(20)), Some(&mut 1));
        assert_eq!(table.expire(secs(49)), []);
        assert_eq!(table.poll_timeout(), Some(secs(50)));
        assert_eq!(table.expire(secs(50)), [("a", 1)]);
        assert_eq!(table.poll_timeout(), None);
        assert_eq!(table.from_visitor(&"a", secs(51)), None);
    }

    #[test]
    fn a_flow_that_is_never_answered_is_over_sooner() {
        let mut table = FlowTable::new(10);
        assert_eq!(table.begin("forged", 1, secs(60), secs(0)), Ok(None));
        assert_eq!(table.begin("short", 2, secs(5), secs(0)), Ok(None));
        assert_eq!(table.begin("busy", 3, secs(60), secs(0)), Ok(None));
        assert_eq!(table.expire(secs(5)), [("short", 2)]);
        assert_eq!(table.from_visitor(&"busy", secs(14)), Some(&mut 3));
        assert_eq!(table.expire(secs(15)), [("forged", 1)]);
        assert_eq!(table.expire(secs(29)), [("busy", 3)]);
    }

    #[test]
    fn there_is_room_for_so_many_and_no_more() {
        let mut table = FlowTable::new(2);
        assert_eq!(table.begin(1, 'a', IDLE, secs(0)), Ok(None));
        assert_eq!(table.begin(2, 'b', IDLE, secs(0)), Ok(None));
        let error = table.begin(3, 'c', IDLE, secs(0)).expect_err("full");
        assert_eq!(error.to_string(), "there are 2 UDP flows, as many as are allowed");
        assert_eq!(table.begin(2, 'd', IDLE, secs(0)), Ok(Some('b')), "takes its own place");
        assert_eq!(table.end(&1), Some('a'));
        assert_eq!(table.begin(3, 'c', IDLE, secs(0)), Ok(None));
        assert_eq!(table.drain().collect::<Vec<_>>(), [(2, 'd'), (3, 'c')]);
        assert!(table.is_empty() && table.poll_timeout().is_none());
    }

    proptest! {
        /// The lazy looks end exactly the flows that a plain reading of the rule ends.
        #[test]
        fn flows_end_when_the_rule_says(
            events in proptest::collection::vec((0_u8..4, 0_u8..4, 0_u64..20), 0..60),
        ) {
            let mut table = FlowTable::new(100);
            let mut model = BTreeMap::<u8, (Duration, Duration)>::new();
            let mut now = secs(0);
            for (event, key, wait) in events {
                now += secs(wait);
                match event {
                    0 => {
                        let idle = secs(u64::from(key) * 10 + 5);
                        prop_assert!(table.begin(key, (), idle, now).is_ok());
                        model.insert(key, (now, idle.min(UNANSWERED)));
                    }
                    1 => {
                        let known = table.from_visitor(&key, now).is_some();
                        prop_assert_eq!(known, model.contains_key(&key));
                        model.entry(key).and_modify(|it| it.0 = now);
                    }
                    2 => {
                        table.from_backend(&key, now);
                        let idle = secs(u64::from(key) * 10 + 5);
                        model.entry(key).and_modify(|it| *it = (now, idle));
                    }
                    _ => {
                        let mut over = table.expire(now).into_iter().map(|it| it.0).collect::<Vec<_>>();
                        over.sort_unstable();
                        let expected: Vec<_> =
                            model.iter().filter(|(_, it)| it.0 + it.1 <= now).map(|it| *it.0).collect();
                        prop_assert_eq!(&over, &expected);
                        model.retain(|key, _| !over.contains(key));
                    }
                }
                prop_assert_eq!(table.len(), model.len());
            }
        }
    }

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }
}
