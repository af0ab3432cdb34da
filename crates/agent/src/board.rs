//! What is known of every gateway, for statuses, pages and metrics. Written by the links.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use planner::publish::{GatewayObserved, Reachability};
use tokio::sync::watch;
use tunnel::link::{Carrier, Meter};
use tunnel_proto::message::{PortReport, PortState, Reached, Report};

use crate::status::{GatewayStatus, PortStatus, place, protocol};

/// What is known of every gateway.
#[derive(Debug)]
pub(crate) struct Board {
    entries: Mutex<BTreeMap<String, Entry>>,
    /// Tells of changes that a status shows; figures that flow all the time are not among them.
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Entry {
    status: GatewayStatus,
    observed: GatewayObserved,
    figures: Arc<Figures>,
}

/// What the flows of one gateway count.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// Flows open now.
    pub(crate) flows: AtomicU64,
    meters: Mutex<BTreeMap<String, Arc<Meter>>>,
}

impl Figures {
    /// What counts the bytes of a backend's flows.
    pub(crate) fn meter(&self, backend: &str) -> Arc<Meter> {
        let mut meters = lock(&self.meters);
        if let Some(meter) = meters.get(backend) {
            return Arc::clone(meter);
        }
        let meter = Arc::new(Meter::default());
        meters.insert(backend.to_owned(), Arc::clone(&meter));
        meter
    }

    /// Bytes from and to visitors, by backend.
    pub(crate) fn bytes(&self) -> Vec<(String, u64, u64)> {
        let meters = lock(&self.meters);
        let bytes = meters.iter().map(|(backend, it)| {
            (backend.clone(), it.back.load(Ordering::Relaxed), it.out.load(Ordering::Relaxed))
        });
        bytes.collect()
    }
}

impl Board {
    pub(crate) fn new() -> Self {
        Self { entries: Mutex::default(), changed: watch::Sender::new(0) }
    }

    /// Tells of changes.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// What the flows of one gateway count.
    pub(crate) fn figures(&self, gateway: &str) -> Arc<Figures> {
        Arc::clone(&lock(&self.entries).entry(gateway.to_owned()).or_default().figures)
    }

    /// The bytes of every gateway's flows, by backend.
    pub(crate) fn bytes(&self) -> BTreeMap<String, (u64, u64)> {
        let mut all = BTreeMap::<String, (u64, u64)>::new();
        for entry in lock(&self.entries).values() {
            for (backend, received, sent) in entry.figures.bytes() {
                let sum = all.entry(backend).or_default();
                *sum = (sum.0 + received, sum.1 + sent);
            }
        }
        all
    }

    /// There is a session.
    pub(crate) fn connected(&self, gateway: &str, carrier: Carrier, address: &str, version: &str) {
        self.change(gateway, |it| {
            it.status.connected = true;
            it.status.since = Some(Timestamp::now());
            it.status.carrier = Some(carrier.to_string());
            it.status.address = Some(address.to_owned());
            it.status.gateway_version = Some(version.to_owned());
            it.status.last_error = None;
            it.observed.connected = true;
            it.observed.adopted = Some(true);
            it.observed.version = Some(version.to_owned());
            it.observed.last_error = None;
        });
    }

    /// There is no session: it ended, or there could be none.
    pub(crate) fn lost(&self, gateway: &str, why: &str) {
        self.change(gateway, |it| {
            if it.status.connected {
                it.status.since = Some(Timestamp::now());
            }
            it.status.connected = false;
            it.status.round_trip_microseconds = None;
            it.status.reconnects += 1;
            it.status.last_error = Some(why.to_owned());
            it.observed.connected = false;
            it.observed.last_error = Some(why.to_owned());
        });
    }

    /// It is not dialled yet, and why.
    pub(crate) fn waits(&self, gateway: &str, why: &str) {
        self.change(gateway, |it| {
            it.status.last_error = Some(why.to_owned());
            it.observed.last_error = Some(why.to_owned());
        });
    }

    /// The gateway holds no certificate of this cluster.
    pub(crate) fn not_adopted(&self, gateway: &str) {
        self.change(gateway, |it| it.observed.adopted = Some(false));
    }

    /// The gateway reports.
    pub(crate) fn report(&self, gateway: &str, report: Report) {
        let mut entries = lock(&self.entries);
        let entry = entries.entry(gateway.to_owned()).or_default();
        entry.status.notes.clone_from(&report.notes);
        entry.status.ports = report.ports.iter().map(port_status).collect();
        entry.observed.reachable = reachability(&report);
        entry.observed.report = Some(report);
        entry.observed.reported_at = Some(Timestamp::now());
        drop(entries);
        self.changed.send_modify(|it| *it += 1);
    }

    /// What a session measures.
    pub(crate) fn measured(&self, gateway: &str, round_trip: Option<Duration>) {
        let mut entries = lock(&self.entries);
        let entry = entries.entry(gateway.to_owned()).or_default();
        entry.status.round_trip_microseconds =
            round_trip.map(|it| u64::try_from(it.as_micros()).unwrap_or(u64::MAX));
    }

    /// The gateway is no longer declared.
    pub(crate) fn forget(&self, gateway: &str) {
        lock(&self.entries).remove(gateway);
        self.changed.send_modify(|it| *it += 1);
    }

    /// What pages tell.
    pub(crate) fn statuses(&self) -> BTreeMap<String, GatewayStatus> {
        let entries = lock(&self.entries);
        let statuses = entries.iter().map(|(name, entry)| {
            let mut status = entry.status.clone();
            status.flows = entry.figures.flows.load(Ordering::Relaxed);
            for (_, received, sent) in entry.figures.bytes() {
                status.received += received;
                status.sent += sent;
            }
            (name.clone(), status)
        });
        statuses.collect()
    }

    /// What statuses of objects are made of.
    pub(crate) fn observed(&self) -> BTreeMap<String, GatewayObserved> {
        let entries = lock(&self.entries);
        entries.iter().map(|(name, it)| (name.clone(), it.observed.clone())).collect()
    }

    fn change(&self, gateway: &str, change: impl FnOnce(&mut Entry)) {
        change(lock(&self.entries).entry(gateway.to_owned()).or_default());
        self.changed.send_modify(|it| *it += 1);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds the lock; poisoned values are as good as any other.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn port_status(port: &PortReport) -> PortStatus {
    let state = match &port.state {
        PortState::Listening => "listening".to_owned(),
        PortState::NotGranted(why) => format!("not granted: {why}"),
        PortState::InUse(by) => format!("in use: {by}"),
        PortState::Failed(why) => format!("failed: {why}"),
    };
    PortStatus {
        address: place(port.address, port.port),
        protocol: protocol(port.protocol).to_owned(),
        owner: None,
        state,
        open: port.open,
        total: port.total,
        received: port.received,
        sent: port.sent,
        failed: port.failed,
    }
}

/// What the gateway's probes of its public ports say together; `None` when there was none.
fn reachability(report: &Report) -> Option<Reachability> {
    let probed = report.ports.iter().filter_map(|it| Some((it, &it.probed.as_ref()?.reached)));
    let mut reached = 0;
    let mut failed = None;
    for (port, probe) in probed {
        let (reason, message) = match probe {
            Reached::Backend(_) => {
                reached += 1;
                continue;
            }
            Reached::NotBound(why) => ("NotBound", why.as_str()),
            Reached::Filtered(why) => ("Filtered", why.as_str()),
            Reached::NoLink => ("NoLink", "no agent is connected"),
            Reached::Agent(why) => ("NoAgent", why.as_str()),
            Reached::Endpoint(why) => ("NoBackend", why.as_str()),
        };
        failed.get_or_insert_with(|| Reachability {
            reachable: false,
            reason: reason.to_owned(),
            message: format!("port {}/{}: {message}", port.port, protocol(port.protocol)),
        });
    }
    let all_reached = (reached > 0).then(|| Reachability {
        reachable: true,
        reason: "Probed".to_owned(),
        message: format!("{reached} ports answer through the backend"),
    });
    failed.or(all_reached)
}

#[cfg(test)]
mod tests {
    use tunnel_proto::message::{Probed, Protocol};

    use super::*;

    #[test]
    fn a_probe_that_fails_names_the_hop() {
        let port = |port: u16, reached: Option<Reached>| PortReport {
            address: None,
            port,
            protocol: Protocol::Tcp,
            state: PortState::Listening,
            open: 0,
            total: 0,
            received: 0,
            sent: 0,
            failed: 0,
            probed: reached.map(|reached| Probed { at: 0, reached }),
        };
        let said = |ports: Vec<PortReport>| {
            reachability(&Report { ports, ..Report::default() })
                .map(|it| (it.reachable, it.reason, it.message))
        };
        assert_eq!(said(vec![port(80, None)]), None, "nobody tried");
        let fine = port(80, Some(Reached::Backend(300)));
        assert!(said(vec![fine.clone()]).is_some_and(|it| it.0));
        let filtered = port(443, Some(Reached::Filtered("no answer in 1 s".to_owned())));
        assert_eq!(
            said(vec![fine, filtered]),
            Some((false, "Filtered".to_owned(), "port 443/tcp: no answer in 1 s".to_owned()))
        );
    }

    #[test]
    fn what_is_lost_is_told_with_its_reason_and_what_was_counted_stays() {
        let board = Board::new();
        board.connected("fra1", Carrier::Tls, "192.0.2.1:7443", "0.1.0");
        board.report("fra1", Report { revision: 7, ..Report::default() });
        board.figures("fra1").meter("tcp:web/blog:443").add_back(100);
        board.lost("fra1", "nothing heard for 5s");
        let status = &board.statuses()["fra1"];
        assert!(!status.connected);
        assert_eq!((status.received, status.reconnects), (100, 1));
        assert_eq!(status.last_error.as_deref(), Some("nothing heard for 5s"));
        let observed = &board.observed()["fra1"];
        assert_eq!(observed.report.as_ref().map(|it| it.revision), Some(7));
        assert_eq!(observed.adopted, Some(true));
    }
}
