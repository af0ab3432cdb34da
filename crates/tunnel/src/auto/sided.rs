//! The gateway's end of a session with two carriers: chooses one for each new flow.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::{Instant, timeout};
use tunnel_proto::carrier_choice::{Choice, Figures, Health, Which};
use tunnel_proto::choice::answer_deadline;
use tunnel_proto::message::{Open, Protocol};

use crate::link::{Carrier, Flow, Link, Measured, OpenError};
use crate::peer::Identity;
use crate::quic::QuicLink;
use crate::session::Status;

/// How often what was measured is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// A session over TLS, and the QUIC connection that may have joined it.
pub(crate) struct Sided {
    pub(crate) peer: Identity,
    pub(crate) status: Status,
    tls: Arc<dyn Link>,
    began: Instant,
    state: Mutex<State>,
}

struct State {
    quic: Option<Arc<QuicLink>>,
    /// TLS is preferred.
    bytes: Choice,
    /// QUIC is preferred; `None` before it was there for the first time.
    datagrams: Option<Choice>,
    looked: Option<Duration>,
}

impl Sided {
    pub(crate) fn new(peer: Identity, status: Status, tls: Arc<dyn Link>) -> Self {
        let bytes = Choice::new("tls", "quic");
        let state = State { quic: None, bytes, datagrams: None, looked: None };
        Self { peer, status, tls, began: Instant::now(), state: Mutex::new(state) }
    }

    /// A connection has joined, in place of the one before.
    pub(crate) fn attach(&self, quic: Arc<QuicLink>) {
        let before = {
            let mut state = self.state();
            state.looked = None;
            state.datagrams.get_or_insert_with(|| Choice::new("quic", "tls"));
            state.quic.replace(quic)
        };
        if let Some(before) = before {
            before.retire();
        }
    }

    /// The carrier for a flow, and the one to fall back to.
    fn pick(&self, protocol: Protocol) -> (Option<Arc<QuicLink>>, bool) {
        let mut state = self.state();
        if state.quic.as_ref().is_some_and(|it| !it.is_up()) {
            state.quic = None;
            state.looked = None;
        }
        self.look(&mut state);
        let quic_first = match protocol {
            Protocol::Tcp => state.bytes.serving() == Which::Other,
            Protocol::Udp => {
                state.datagrams.as_ref().is_some_and(|it| it.serving() == Which::Preferred)
            }
        };
        (state.quic.clone(), quic_first)
    }

    fn look(&self, state: &mut State) {
        let now = self.began.elapsed();
        if state.looked.is_some_and(|it| now < it + LOOK) {
            return;
        }
        state.looked = Some(now);
        let tls = match self.status.ended() {
            Some(ended) => Health::Down(ended.to_string()),
            None => {
                Health::Up(Figures { round_trip: self.status.round_trip(), ..Figures::default() })
            }
        };
        let quic = match &state.quic {
            None => Health::Down("it is not connected".to_owned()),
            Some(quic) => {
                let measured = quic.measured();
                Health::Up(Figures {
                    round_trip: measured.round_trip,
                    sent: measured.packets_sent,
                    lost: measured.packets_lost,
                })
            }
        };
        let agent = &self.peer;
        if let Some(moved) = state.bytes.observe(now, &tls, &quic) {
            let to = if moved.to == Which::Preferred { "tls" } else { "quic" };
            tracing::info!(%agent, to, why = moved.reason, "flows of bytes move");
        }
        if let Some(moved) = state.datagrams.as_mut().and_then(|it| it.observe(now, &quic, &tls)) {
            let to = if moved.to == Which::Preferred { "quic" } else { "tls" };
            tracing::info!(%agent, to, why = moved.reason, "flows of datagrams move");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link for Sided {
    fn carrier(&self) -> Carrier {
        self.tls.carrier()
    }

    fn open(&self, open: Open) -> BoxFuture<'_, Result<Box<dyn Flow>, OpenError>> {
        let (quic, quic_first) = self.pick(open.protocol);
        let Some(quic) = quic else { return self.tls.open(open) };
        Box::pin(async move {
            if !quic_first {
                return match self.tls.open(open.clone()).await {
                    Err(OpenError::NoneReady) => quic.open(open).await,
                    answer => answer,
                };
            }
            // An agent takes a flow of datagrams at once; a flow of bytes waits for the backend.
            let patience = match open.protocol {
                Protocol::Udp => answer_deadline(quic.measured().round_trip),
                Protocol::Tcp => Duration::MAX,
            };
            match timeout(patience, quic.open(open.clone())).await {
                Ok(Err(OpenError::Ended | OpenError::NoneReady)) | Err(_) => {
                    self.tls.open(open).await
                }
                Ok(answer) => answer,
            }
        })
    }

    fn is_ready(&self) -> bool {
        let state = self.state();
        let by_quic = state.bytes.serving() == Which::Other;
        (by_quic && state.quic.as_ref().is_some_and(|it| it.is_up())) || self.tls.is_ready()
    }

    fn measured(&self) -> Measured {
        let tls = self.tls.measured();
        let Some(quic) = self.state().quic.as_ref().map(|it| it.measured()) else { return tls };
        Measured {
            round_trip: tls.round_trip,
            packets_sent: quic.packets_sent,
            packets_lost: quic.packets_lost,
            bytes: tls.bytes + quic.bytes,
            flows: tls.flows + quic.flows,
        }
    }

    fn close(&self) {
        // Ends the session, and with it what has joined it.
        self.tls.close();
    }
}

impl fmt::Debug for Sided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sided")
            .field("peer", &self.peer)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

/// Sessions that a QUIC connection may join, by token.
#[derive(Default)]
pub(crate) struct Sides(Mutex<HashMap<[u8; 16], Weak<Sided>>>);

impl Sides {
    /// Remembers a session, as long as it lives.
    pub(crate) fn expect(&self, token: [u8; 16], session: &Arc<Sided>) {
        let mut sides = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sides.retain(|_, it| it.strong_count() > 0);
        sides.insert(token, Arc::downgrade(session));
    }

    /// The session with this token.
    pub(crate) fn get(&self, token: &[u8; 16]) -> Option<Arc<Sided>> {
        let sides = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sides.get(token).and_then(Weak::upgrade)
    }
}
