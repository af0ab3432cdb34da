//! Counters and gauges in the OpenMetrics format, all under `portcullis_gateway_`.

use std::time::Duration;

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// How long flows took to open.
#[derive(Debug)]
pub(crate) struct Opened(Histogram);

impl Opened {
    /// A flow was opened.
    pub(crate) fn observe(&self, took: Duration) {
        self.0.observe(took.as_secs_f64());
    }

    /// The same histogram.
    pub(crate) fn histogram(&self) -> Histogram {
        self.0.clone()
    }
}

impl Default for Opened {
    /// From 100 microseconds to about 13 seconds.
    fn default() -> Self {
        Self(Histogram::new(exponential_buckets(0.0001, 2.0, 18)))
    }
}
