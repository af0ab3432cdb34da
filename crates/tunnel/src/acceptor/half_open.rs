//! Bounds on handshakes under way, so that strangers cannot use up memory and processor.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Counts handshakes under way.
#[derive(Clone, Debug)]
pub(crate) struct HalfOpen {
    most: usize,
    most_per_source: usize,
    counts: Arc<Mutex<Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    by_source: HashMap<IpAddr, usize>,
}

/// A handshake under way, until dropped.
#[derive(Debug)]
pub(crate) struct Place {
    source: IpAddr,
    counts: Arc<Mutex<Counts>>,
}

impl HalfOpen {
    pub(crate) fn new(most: usize, most_per_source: usize) -> Self {
        Self { most, most_per_source, counts: Arc::default() }
    }

    /// A place for one more handshake; `None` when there is none left.
    pub(crate) fn enter(&self, address: IpAddr) -> Option<Place> {
        let source = source(address);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let here = counts.by_source.get(&source).copied().unwrap_or(0);
        if counts.total >= self.most || here >= self.most_per_source {
            return None;
        }
        counts.total += 1;
        counts.by_source.insert(source, here + 1);
        drop(counts);
        Some(Place { source, counts: Arc::clone(&self.counts) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.total -= 1;
        if let Some(here) = counts.by_source.get_mut(&self.source) {
            *here -= 1;
            if *here == 0 {
                counts.by_source.remove(&self.source);
            }
        }
    }
}

/// Whoever has one IPv6 address has a /64 of them.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        IpAddr::V4(address) => address.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_cannot_take_every_place() {
        let half_open = HalfOpen::new(3, 2);
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let first = half_open.enter(ip("2001:db8::1"));
        let second = half_open.enter(ip("2001:db8::2"));
        assert!(first.is_some() && second.is_some());
        assert!(half_open.enter(ip("2001:db8::3")).is_none(), "the same /64");
        let third = half_open.enter(ip("2001:db8:0:1::1"));
        assert!(third.is_some());
        assert!(half_open.enter(ip("192.0.2.1")).is_none(), "no place left at all");
        drop(first);
        assert!(half_open.enter(ip("::ffff:192.0.2.1")).is_some());
        drop((second, third));
        assert_eq!(half_open.counts.lock().expect("whole").by_source.len(), 0);
    }
}
