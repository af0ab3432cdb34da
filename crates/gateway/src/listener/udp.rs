//! Visitors over UDP: a flow for each address and port that datagrams come from, and for each of
//! our addresses that they came to.

mod packet;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until};
use tunnel::link::DatagramFlow;
use tunnel_proto::choice::Failure;
use tunnel_proto::flow_table::UNANSWERED;
use tunnel_proto::message::{Open, Protocol, Route};

use super::{Listener, OpenFlow, Rejected, Visit};
use crate::admission::Admitted;
use crate::{opening, probe};
use packet::{Packet, Way};

/// Datagrams of one flow that are kept until an agent has taken it.
const MOST_KEPT: usize = 16;

/// Flows of one port that wait for an agent. Beyond, datagrams of new visitors are dropped: their
/// sources may be forged.
const MOST_OPENING: usize = 1024;

/// Flows of one port.
const MOST_FLOWS: usize = 65_536;

/// Larger than any datagram.
const LARGEST: usize = 65_536;

/// The flows of one socket.
struct Flows {
    listener: Arc<Listener>,
    socket: Arc<UdpSocket>,
    flows: Mutex<HashMap<Key, Arc<UdpFlow>>>,
    opening: AtomicUsize,
    began: Instant,
}

/// The visitor, and which of our addresses it reaches.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Key {
    visitor: SocketAddr,
    local: IpAddr,
}

struct UdpFlow {
    state: Mutex<State>,
    /// When the last datagram came or went, in milliseconds since [`Flows::began`].
    active: AtomicU64,
    answered: AtomicBool,
}

enum State {
    Opening(Vec<Bytes>),
    Open(Arc<dyn DatagramFlow>),
}

/// Takes datagrams until aborted.
pub(super) async fn receive(listener: Arc<Listener>, socket: Arc<UdpSocket>) {
    let flows = Arc::new(Flows {
        listener,
        socket: Arc::clone(&socket),
        flows: Mutex::default(),
        opening: AtomicUsize::new(0),
        began: Instant::now(),
    });
    let mut buffer = vec![0; LARGEST];
    loop {
        match socket.async_io(Interest::READABLE, || packet::receive(&*socket, &mut buffer)).await {
            Ok(Packet { length, visitor, way }) => {
                let payload = buffer.get(..length).unwrap_or_default();
                flows.take(visitor, way, payload);
            }
            // What an earlier datagram met on its way (ICMP) is told by the next call.
            Err(error) => tracing::debug!(%error, "no datagram can be taken"),
        }
    }
}

impl Flows {
    fn take(self: &Arc<Self>, visitor: SocketAddr, way: Way, payload: &[u8]) {
        if self.listener.cluster.rate().is_some_and(|it| !it.now(payload.len())) {
            return;
        }
        let key = Key { visitor, local: way.local };
        let flow = lock(&self.flows).get(&key).map(Arc::clone);
        match flow {
            Some(flow) => flow.forward(self, payload),
            None => self.begin(key, way, payload),
        }
    }

    fn begin(self: &Arc<Self>, key: Key, way: Way, payload: &[u8]) {
        let listener = &self.listener;
        if let Some(tell) = listener.probes.take(key.visitor) {
            let listener = Arc::clone(listener);
            tokio::spawn(async move {
                // The probe waits no longer; its own deadline says so.
                let _gone = tell.send(probe::behind(&listener, key.visitor).await);
            });
            return;
        }
        let wished = listener.wish();
        let Route::Backend(backend) = &wished.port.route else {
            return listener.counters.reject(Rejected::Nowhere);
        };
        let admitted = match listener.admit(key.visitor.ip(), &wished) {
            Ok(admitted) => admitted,
            Err(why) => return listener.counters.reject(why),
        };
        let full = lock(&self.flows).len() >= MOST_FLOWS;
        if full || self.opening.fetch_add(1, Ordering::Relaxed) >= MOST_OPENING {
            if !full {
                self.opening.fetch_sub(1, Ordering::Relaxed);
            }
            return listener.counters.reject(Rejected::Busy);
        }
        let flow = Arc::new(UdpFlow {
            state: Mutex::new(State::Opening(Vec::new())),
            active: AtomicU64::new(0),
            answered: AtomicBool::new(false),
        });
        flow.forward(self, payload);
        lock(&self.flows).insert(key, Arc::clone(&flow));
        let open = Open {
            backend: backend.clone(),
            protocol: Protocol::Udp,
            visitor: key.visitor,
            dialled: SocketAddr::new(key.local, listener.key.port),
            server_name: None,
            probe: false,
        };
        let counted = (Visit::count(&listener.house), admitted);
        tokio::spawn(Arc::clone(self).serve(key, way, flow, open, counted));
    }

    async fn serve(
        self: Arc<Self>,
        key: Key,
        way: Way,
        flow: Arc<UdpFlow>,
        open: Open,
        counted: (Visit, Admitted),
    ) {
        let listener = &self.listener;
        let began = Instant::now();
        // Much memory, and gone by the time that the flow waits for datagrams.
        let opening = opening::open(&listener.cluster, &open, listener.house.hold());
        let opened = tokio::select! {
            opened = Box::pin(opening) => opened,
            () = listener.until_withdrawn() => Err(Failure::NoLink),
        };
        self.opening.fetch_sub(1, Ordering::Relaxed);
        match opened {
            Ok(opened) => {
                drop(open);
                listener.house.opened.observe(began.elapsed());
                listener.probes.passed(began.elapsed());
                let counted = (OpenFlow::count(listener), opened.counted, counted);
                let datagrams: Arc<dyn DatagramFlow> = Arc::from(opened.flow.into_datagrams());
                flow.opened(&self, &datagrams);
                let cut = listener.cluster.cut();
                tokio::select! {
                    () = self.send_back(&flow, &*datagrams, key.visitor, way) => {}
                    () = self.idle(&flow) => {}
                    () = cut.wait() => {}
                    () = listener.until_withdrawn() => {}
                }
                drop(counted);
            }
            Err(failure) => {
                listener.counters.failed.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(port = %listener.key, %failure, "no agent took a flow");
            }
        }
        lock(&self.flows).remove(&key);
    }

    /// Carries datagrams to the visitor, from the address that it dialled.
    async fn send_back(
        &self,
        flow: &UdpFlow,
        datagrams: &dyn DatagramFlow,
        visitor: SocketAddr,
        way: Way,
    ) {
        while let Some(payload) = datagrams.receive().await {
            if self.listener.cluster.rate().is_some_and(|it| !it.now(payload.len())) {
                continue;
            }
            flow.touch(self);
            flow.answered.store(true, Ordering::Relaxed);
            let sent = self
                .socket
                .async_io(Interest::WRITABLE, || {
                    packet::send(&*self.socket, &payload, visitor, way)
                })
                .await;
            match sent {
                Ok(()) => self.listener.meter.add_back(payload.len()),
                Err(error) => tracing::debug!(%error, %visitor, "a datagram cannot be sent"),
            }
        }
    }

    /// Ends when no datagram has come or gone for long enough.
    async fn idle(&self, flow: &UdpFlow) {
        loop {
            let mut idle = self.listener.wish().idle();
            if !flow.answered.load(Ordering::Relaxed) {
                // So look datagrams with forged senders.
                idle = idle.min(UNANSWERED);
            }
            let active = std::time::Duration::from_millis(flow.active.load(Ordering::Relaxed));
            let end = self.began + active + idle;
            if end <= Instant::now() {
                return;
            }
            sleep_until(end).await;
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl UdpFlow {
    fn touch(&self, flows: &Flows) {
        self.active.store(flows.now(), Ordering::Relaxed);
    }

    /// Carries a datagram to the agent, or keeps it until there is one.
    fn forward(&self, flows: &Flows, payload: &[u8]) {
        self.touch(flows);
        match &mut *lock(&self.state) {
            State::Open(datagrams) => {
                flows.listener.meter.add_out(payload.len());
                drop_if_full(datagrams.send(payload));
            }
            State::Opening(kept) if kept.len() < MOST_KEPT => {
                kept.push(Bytes::copy_from_slice(payload));
            }
            State::Opening(_) => {}
        }
    }

    /// An agent has taken the flow: what was kept goes first.
    fn opened(&self, flows: &Flows, datagrams: &Arc<dyn DatagramFlow>) {
        let mut state = lock(&self.state);
        if let State::Opening(kept) = &mut *state {
            for payload in kept.drain(..) {
                flows.listener.meter.add_out(payload.len());
                drop_if_full(datagrams.send(&payload));
            }
        }
        *state = State::Open(Arc::clone(datagrams));
    }
}

/// Datagrams may be lost; the flow's end is told where datagrams are received.
fn drop_if_full(sent: io::Result<()>) {
    if let Err(error) = sent {
        tracing::trace!(%error, "a datagram is dropped");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
