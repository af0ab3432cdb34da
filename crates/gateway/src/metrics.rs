//! Counters and gauges in the OpenMetrics format, all under `portcullis_`.
//!
//! Nearly everything is read when somebody asks, from where it is counted anyway: a port or an
//! agent that is gone is then gone from the page too.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use tunnel_proto::message::{PortState, Protocol, Reached};

use crate::inner::Inner;

/// How long flows took to open.
#[derive(Debug)]
pub(crate) struct Opened(Histogram);

impl Opened {
    /// A flow was opened.
    pub(crate) fn observe(&self, took: Duration) {
        self.0.observe(took.as_secs_f64());
    }
}

impl Default for Opened {
    /// From 100 microseconds to about 13 seconds.
    fn default() -> Self {
        Self(Histogram::new(exponential_buckets(0.0001, 2.0, 18)))
    }
}

/// Every metric of a gateway.
#[derive(Debug)]
pub(crate) struct Metrics(Registry);

impl Metrics {
    pub(crate) fn new(inner: &Arc<Inner>) -> Self {
        let mut registry = Registry::with_prefix("portcullis");
        registry.register_with_unit(
            "flow_open",
            "Time from a visitor's arrival until an agent had taken the flow",
            Unit::Seconds,
            inner.house.opened.0.clone(),
        );
        registry.register_collector(Box::new(State(Arc::downgrade(inner))));
        Self(registry)
    }

    /// Returns the whole page.
    pub(crate) fn page(&self) -> String {
        let mut page = String::new();
        match encode(&mut page, &self.0) {
            Ok(()) => page,
            Err(error) => format!("# {error}\n# EOF\n"),
        }
    }
}

#[derive(Debug)]
struct State(Weak<Inner>);

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ClusterLabel {
    cluster: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct AgentLabel {
    cluster: String,
    agent: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct LinkLabel {
    cluster: String,
    agent: String,
    carrier: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct PortLabel {
    cluster: String,
    port: String,
    owner: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct DirectionLabel {
    cluster: String,
    port: String,
    owner: String,
    direction: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ReasonLabel {
    cluster: String,
    port: String,
    reason: String,
}

impl Collector for State {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(inner) = self.0.upgrade() else { return Ok(()) };
        let mut page = Page { encoder: &mut encoder };
        links(&inner, &mut page)?;
        ports(&inner, &mut page)
    }
}

/// Series of one metric after the other.
struct Page<'a, 'b> {
    encoder: &'a mut DescriptorEncoder<'b>,
}

impl Page<'_, '_> {
    fn gauge<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        series: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        let kind = MetricType::Gauge;
        let mut metric = self.encoder.encode_descriptor(name, help, unit, kind)?;
        for (labels, value) in series {
            ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn counter<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        series: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let kind = MetricType::Counter;
        let mut metric = self.encoder.encode_descriptor(name, help, unit, kind)?;
        for (labels, value) in series {
            ConstCounter::new(value).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "gauges are floating point numbers")]
fn number(value: u64) -> f64 {
    value as f64
}

fn links(inner: &Inner, page: &mut Page<'_, '_>) -> fmt::Result {
    let clusters = inner.clusters();
    let members = clusters.values().flat_map(|cluster| {
        cluster.members().into_iter().map(move |member| {
            let label = LinkLabel {
                cluster: cluster.name.to_string(),
                agent: member.agent.clone(),
                carrier: member.carrier.to_string(),
            };
            (label, member)
        })
    });
    let members: Vec<_> = members.collect();
    let up = members
        .iter()
        .map(|(label, it)| (label.clone(), if it.status.is_doubtful() { 0.0 } else { 1.0 }));
    page.gauge("link_up", "1 while an agent is connected and is heard", None, up)?;
    let round_trips = members
        .iter()
        .filter_map(|(label, it)| Some((label.clone(), it.status.round_trip()?.as_secs_f64())));
    page.gauge("link_rtt", "Smoothed round-trip time", Some(&Unit::Seconds), round_trips)?;
    let flows = members.iter().map(|(label, it)| (label.clone(), number(it.flows())));
    page.gauge("link_flows_open", "Flows that an agent has", None, flows)?;
    let joined = clusters.values().flat_map(|cluster| {
        let name = cluster.name.to_string();
        let joined = cluster.joined().into_iter();
        joined.map(move |(agent, count)| (AgentLabel { cluster: name.clone(), agent }, count))
    });
    page.counter("sessions", "Sessions that agents have begun", None, joined)?;
    let remaining = clusters.keys().filter_map(|name| {
        let quota = inner.quota(name)?;
        let left = quota.limit.saturating_sub(quota.used);
        Some((ClusterLabel { cluster: name.to_string() }, number(left)))
    });
    page.gauge(
        "quota_remaining",
        "Bytes that may still be transferred this month",
        Some(&Unit::Bytes),
        remaining,
    )
}

fn ports(inner: &Inner, page: &mut Page<'_, '_>) -> fmt::Result {
    let listeners: Vec<_> = inner.table().listeners().cloned().collect();
    let with_label = listeners.iter().map(|it| {
        let label = PortLabel {
            cluster: it.cluster.name.to_string(),
            port: it.key.to_string(),
            owner: it.wish().port.owner.clone(),
        };
        (label, it.report(), it)
    });
    let ports: Vec<_> = with_label.collect();
    let listening = ports.iter().map(|(label, report, _)| {
        (label.clone(), if report.state == PortState::Listening { 1.0 } else { 0.0 })
    });
    page.gauge("port_listening", "1 while a published port is listened on", None, listening)?;
    let reachable = ports.iter().filter_map(|(label, report, _)| {
        let reached = &report.probed.as_ref()?.reached;
        Some((label.clone(), if matches!(reached, Reached::Backend(_)) { 1.0 } else { 0.0 }))
    });
    page.gauge("port_reachable", "1 while the last probe reached the backend", None, reachable)?;
    let open = |protocol| {
        let of_protocol = ports.iter().filter(move |(_, it, _)| it.protocol == protocol);
        of_protocol.map(|(label, it, _)| (label.clone(), number(it.open)))
    };
    page.gauge("flows_open", "TCP flows", None, open(Protocol::Tcp))?;
    page.gauge("udp_flows_open", "UDP flows", None, open(Protocol::Udp))?;
    let total = ports.iter().map(|(label, it, _)| (label.clone(), it.total));
    page.counter("flows", "Flows that an agent took", None, total)?;
    let failed = ports.iter().map(|(label, it, _)| (label.clone(), it.failed));
    page.counter("flows_failed", "Flows that no agent took", None, failed)?;
    let bytes = ports.iter().flat_map(|(label, it, _)| {
        [("received", it.received), ("sent", it.sent)].map(|(direction, bytes)| {
            let PortLabel { cluster, port, owner } = label.clone();
            (DirectionLabel { cluster, port, owner, direction }, bytes)
        })
    });
    page.counter("transferred", "Bytes from and to visitors", Some(&Unit::Bytes), bytes)?;
    let rejected = ports.iter().flat_map(|(label, _, listener)| {
        listener.counters.rejected().into_iter().map(|(reason, count)| {
            let PortLabel { cluster, port, .. } = label.clone();
            (ReasonLabel { cluster, port, reason: reason.to_string() }, count)
        })
    });
    page.counter("listener_rejected", "Visitors that were turned away", None, rejected)
}
