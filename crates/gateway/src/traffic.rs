//! The bytes of a cluster, counted while they flow.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tunnel::link::Meter;

/// The bytes of ports that are no longer published. Those of published ports are in their meters.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    /// Bytes of ports whose last flow has ended.
    finished: AtomicU64,
    /// Ports that are closed, with flows that go on.
    leaving: Mutex<Vec<Arc<Meter>>>,
}

impl Traffic {
    /// A port is no longer published; its flows may go on.
    pub(crate) fn leave(&self, meter: Arc<Meter>) {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner).push(meter);
    }

    /// Bytes of ports that are no longer published.
    pub(crate) fn left(&self) -> u64 {
        let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        leaving.retain(|meter| {
            let ended = Arc::strong_count(meter) == 1;
            if ended {
                self.finished.fetch_add(bytes(meter), Ordering::Relaxed);
            }
            !ended
        });
        let going_on: u64 = leaving.iter().map(|it| bytes(it)).sum();
        self.finished.load(Ordering::Relaxed) + going_on
    }
}

/// Both directions.
pub(crate) fn bytes(meter: &Meter) -> u64 {
    meter.out.load(Ordering::Relaxed) + meter.back.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_closed_ports_count_until_their_last_flow_has_ended() {
        let traffic = Traffic::default();
        let meter = Arc::new(Meter::default());
        meter.add_out(5);
        traffic.leave(Arc::clone(&meter));
        assert_eq!(traffic.left(), 5);
        meter.add_back(7);
        assert_eq!(traffic.left(), 12);
        drop(meter);
        assert_eq!([traffic.left(), traffic.left()], [12, 12]);
        assert!(traffic.leaving.lock().expect("whole").is_empty());
    }
}
