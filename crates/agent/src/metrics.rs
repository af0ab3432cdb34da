//! Counters and gauges in the OpenMetrics format, all under `portcullis_`.

use std::collections::BTreeMap;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Labels of everything that belongs to one gateway.
#[derive(Clone, Debug, Eq, Hash, PartialEq, EncodeLabelSet)]
pub(crate) struct GatewayLabel {
    pub(crate) gateway: String,
}

/// Labels of a link.
#[derive(Clone, Debug, Eq, Hash, PartialEq, EncodeLabelSet)]
pub(crate) struct LinkLabel {
    pub(crate) gateway: String,
    pub(crate) carrier: String,
}

/// Labels of bytes.
#[derive(Clone, Debug, Eq, Hash, PartialEq, EncodeLabelSet)]
pub(crate) struct BytesLabel {
    pub(crate) backend: String,
    pub(crate) direction: &'static str,
}

/// Labels of refusals.
#[derive(Clone, Debug, Eq, Hash, PartialEq, EncodeLabelSet)]
pub(crate) struct RefusedLabel {
    pub(crate) reason: &'static str,
}

/// Every metric of the agent.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) link_up: Family<LinkLabel, Gauge>,
    pub(crate) link_rtt: Family<GatewayLabel, Gauge<f64, std::sync::atomic::AtomicU64>>,
    pub(crate) reconnects: Family<GatewayLabel, Counter>,
    pub(crate) streams_open: Gauge,
    pub(crate) udp_sessions: Gauge,
    pub(crate) stream_open_seconds: Histogram,
    pub(crate) bytes: Family<BytesLabel, Counter>,
    pub(crate) refused: Family<RefusedLabel, Counter>,
    pub(crate) plans: Counter,
    pub(crate) plan_seconds: Histogram,
    pub(crate) leader: Gauge<i64>,
    pub(crate) findings: Gauge<i64>,
}

impl Metrics {
    /// Registers every metric under its name.
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("portcullis");
        let metrics = Self {
            link_up: Family::default(),
            link_rtt: Family::default(),
            reconnects: Family::default(),
            streams_open: Gauge::default(),
            udp_sessions: Gauge::default(),
            stream_open_seconds: seconds(),
            bytes: Family::default(),
            refused: Family::default(),
            plans: Counter::default(),
            plan_seconds: seconds(),
            leader: Gauge::default(),
            findings: Gauge::default(),
            registry: Registry::default(),
        };
        let of = &metrics;
        registry.register("link_up", "1 while there is a session", of.link_up.clone());
        registry.register_with_unit(
            "link_rtt",
            "Smoothed round-trip time to a gateway",
            Unit::Seconds,
            of.link_rtt.clone(),
        );
        registry.register(
            "reconnects",
            "Sessions that were lost or could not be made",
            of.reconnects.clone(),
        );
        registry.register("streams_open", "Visitors' connections now", of.streams_open.clone());
        registry.register("udp_sessions", "Visitors' UDP flows now", of.udp_sessions.clone());
        registry.register_with_unit(
            "stream_open",
            "Time until a backend answered",
            Unit::Seconds,
            of.stream_open_seconds.clone(),
        );
        registry.register("relayed_bytes", "Bytes of visitors, by backend", of.bytes.clone());
        registry.register("flows_refused", "Visitors that were refused", of.refused.clone());
        registry.register("plans", "Times that desired state was computed", of.plans.clone());
        registry.register_with_unit(
            "plan",
            "Time to compute the desired state of all gateways",
            Unit::Seconds,
            of.plan_seconds.clone(),
        );
        registry.register("leader", "1 while this agent writes statuses", of.leader.clone());
        registry.register("findings", "Mistakes in objects, now", of.findings.clone());
        Self { registry, ..metrics }
    }

    /// Takes over the bytes that flows have counted so far, by backend: from and to visitors.
    pub(crate) fn count_bytes(&self, bytes: &BTreeMap<String, (u64, u64)>) {
        for (backend, (received, sent)) in bytes {
            for (direction, now) in [("received", received), ("sent", sent)] {
                let label = BytesLabel { backend: backend.clone(), direction };
                let counter = self.bytes.get_or_create(&label);
                counter.inc_by(now.saturating_sub(counter.get()));
            }
        }
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
        let link = LinkLabel { gateway: "fra1".to_owned(), carrier: "tls".to_owned() };
        metrics.link_up.get_or_create(&link).set(1);
        metrics.refused.get_or_create(&RefusedLabel { reason: "NoEndpoint" }).inc();
        let page = metrics.page();
        assert!(page.contains("portcullis_link_up{gateway=\"fra1\",carrier=\"tls\"} 1"), "{page}");
        assert!(page.contains("portcullis_flows_refused_total{reason=\"NoEndpoint\"} 1"), "{page}");
        assert!(page.ends_with("# EOF\n"), "{page}");
    }
}
