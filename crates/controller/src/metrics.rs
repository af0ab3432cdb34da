//! Counters and gauges in the OpenMetrics format, all under `portcullis_`.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Labels of everything that belongs to one host.
#[derive(Clone, Debug, Eq, Hash, PartialEq, EncodeLabelSet)]
pub(crate) struct HostLabel {
    pub(crate) host: String,
}

/// Labels of everything that belongs to one kind of object.
#[derive(Clone, Debug, Eq, Hash, PartialEq, EncodeLabelSet)]
pub(crate) struct KindLabel {
    pub(crate) kind: String,
}

/// Every metric of the controller.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) changes: Family<KindLabel, Counter>,
    pub(crate) plans: Counter,
    pub(crate) plan_seconds: Histogram,
    pub(crate) passes: Family<HostLabel, Counter>,
    pub(crate) failures: Family<HostLabel, Counter>,
    pub(crate) drift: Family<HostLabel, Counter>,
    pub(crate) forwards: Family<HostLabel, Gauge>,
    pub(crate) ready: Family<HostLabel, Gauge>,
    pub(crate) apply_seconds: Family<HostLabel, Histogram>,
    pub(crate) lag_seconds: Family<HostLabel, Histogram>,
    pub(crate) findings: Gauge<i64>,
    pub(crate) leader: Gauge<i64>,
    pub(crate) last_change: Gauge<f64, AtomicU64>,
}

impl Metrics {
    /// Registers every metric under its name.
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("portcullis");
        let histograms = || Family::new_with_constructor(seconds as fn() -> Histogram);
        let metrics = Self {
            changes: Family::default(),
            plans: Counter::default(),
            plan_seconds: seconds(),
            passes: Family::default(),
            failures: Family::default(),
            drift: Family::default(),
            forwards: Family::default(),
            ready: Family::default(),
            apply_seconds: histograms(),
            lag_seconds: histograms(),
            findings: Gauge::default(),
            leader: Gauge::default(),
            last_change: Gauge::default(),
            registry: Registry::default(),
        };
        let of = &metrics;
        registry.register("changes", "Changes of objects, by kind", of.changes.clone());
        registry.register("plans", "Times that desired state was computed", of.plans.clone());
        registry.register_with_unit(
            "plan",
            "Time to compute the desired state of all hosts",
            Unit::Seconds,
            of.plan_seconds.clone(),
        );
        registry.register("passes", "Passes that reached the desired state", of.passes.clone());
        registry.register("failures", "Passes that failed and are retried", of.failures.clone());
        registry.register("drift", "Changes by others that were undone", of.drift.clone());
        registry.register("forwards", "Host ports that are forwarded", of.forwards.clone());
        registry.register("host_ready", "1 when the last pass succeeded", of.ready.clone());
        registry.register_with_unit(
            "apply",
            "Time of a pass with changes, from the wish to the kernel's answer",
            Unit::Seconds,
            of.apply_seconds.clone(),
        );
        registry.register_with_unit(
            "lag",
            "Time from the change of an object to the kernel's answer",
            Unit::Seconds,
            of.lag_seconds.clone(),
        );
        registry.register("findings", "Mistakes in objects, now", of.findings.clone());
        registry.register("leader", "1 while this replica holds the lease", of.leader.clone());
        registry.register_with_unit(
            "last_change_timestamp",
            "When an object last changed, since 1970",
            Unit::Seconds,
            of.last_change.clone(),
        );
        Self { registry, ..metrics }
    }

    /// Returns the whole page.
    pub(crate) fn page(&self) -> String {
        let mut page = String::new();
        match encode(&mut page, &self.registry) {
            Ok(()) => page,
            Err(error) => format!("# {error}\n# EOF\n"),
        }
    }
}

/// From 100 microseconds to about 13 seconds.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 2.0, 18))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_what_happened() {
        let metrics = Metrics::new();
        let host = HostLabel { host: "edge-a".to_owned() };
        metrics.passes.get_or_create(&host).inc();
        metrics.forwards.get_or_create(&host).set(3);
        let page = metrics.page();
        assert!(page.contains("portcullis_passes_total{host=\"edge-a\"} 1"), "{page}");
        assert!(page.contains("portcullis_forwards{host=\"edge-a\"} 3"), "{page}");
        assert!(page.ends_with("# EOF\n"), "{page}");
    }
}
