//! Two carriers for one gateway: whichever can be had serves, each does what it is better at.
//!
//! A session goes over TLS where TLS can be had: the kernel's TCP moves bulk data faster and for
//! less processor time. A QUIC connection joins it where UDP passes, and carries the flows of
//! datagrams; where it does not, they go over TLS too. Where only UDP passes, the session goes over QUIC, until TLS
//! can be had. The gateway measures both and moves new flows from one to the other and back when
//! one is in trouble ([`tunnel_proto::carrier_choice`]). Every move is logged with its reason.

mod beside;
mod sided;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tunnel_proto::carrier_choice::Which;
use tunnel_proto::first_carrier::FirstCarrier;

use crate::dialler::{self, DialError, DiallerSettings, Turn};
use crate::link::Carrier;
use crate::quic;
use crate::session::{AgentSession, Ended};

pub(crate) use sided::{Sided, Sides};

/// The carrier of sessions when both can be had.
const PREFERRED: Carrier = Carrier::Tls;

/// How long the carrier that is dialled first has for itself.
const HEAD_START: Duration = Duration::from_millis(500);

/// How long a session over the other carrier lasts, at least, before the preferred one is tried.
const FIRST_TRY: Duration = Duration::from_secs(30);

/// The most that this time grows to, while tries are in vain.
const RAREST_TRY: Duration = Duration::from_secs(600);

/// How long a try may take.
const TRY: Duration = Duration::from_secs(5);

/// What an agent remembers of the carriers to one gateway. Clones remember the same.
#[derive(Clone)]
pub struct Auto(Arc<Inner>);

struct Inner {
    began: Instant,
    state: Mutex<State>,
}

struct State {
    first: FirstCarrier,
    next_try: Duration,
}

impl Default for Auto {
    fn default() -> Self {
        Self::new()
    }
}

impl Auto {
    /// Nothing is known yet.
    #[must_use]
    pub fn new() -> Self {
        let state = State { first: FirstCarrier::new(), next_try: FIRST_TRY };
        Self(Arc::new(Inner { began: Instant::now(), state: Mutex::new(state) }))
    }

    /// Dials a gateway by both carriers, one with a head start. Must be called within a tokio
    /// runtime.
    ///
    /// # Errors
    ///
    /// Why there is no session; what TLS says, when both have something to say.
    pub async fn dial(
        &self,
        settings: &DiallerSettings,
        epoch: u64,
    ) -> Result<AgentSession, DialError> {
        let first = self.state().first.first(self.0.began.elapsed());
        let session = race(settings, epoch, first).await?;
        self.remember(&session);
        if session.carrier == Carrier::Tls {
            beside::keep(settings.clone(), &session);
        }
        Ok(session)
    }

    /// Completes when a session over `carrier` should be replaced by one that is dialled anew, and
    /// says why. Never completes for a session over the preferred carrier.
    pub async fn until_better(&self, settings: &DiallerSettings, carrier: Carrier) -> String {
        if carrier == PREFERRED {
            return std::future::pending().await;
        }
        loop {
            let (wait, avoided) = {
                let mut state = self.state();
                let wait = state.next_try;
                state.next_try = (wait * 2).min(RAREST_TRY);
                (wait, state.first.avoided_until())
            };
            let avoided = avoided.unwrap_or_default().saturating_sub(self.0.began.elapsed());
            sleep(wait.max(avoided)).await;
            if let Ok(true) = timeout(TRY, can_be_had(settings)).await {
                return format!("{PREFERRED} can be had again, better than {carrier}");
            }
        }
    }

    /// Learns from the session's end.
    fn remember(&self, session: &AgentSession) {
        if session.carrier != PREFERRED {
            return;
        }
        self.state().next_try = FIRST_TRY;
        let (auto, status) = (self.clone(), session.control.status().clone());
        let gateway = session.welcome.gateway.clone();
        tokio::spawn(async move {
            let ended = status.until_ended().await;
            let broke = matches!(ended, Ended::Silent(_) | Ended::Broken(_));
            let now = auto.0.began.elapsed();
            let avoided = auto.state().first.ended(now, status.began().elapsed(), broke);
            if let Some(avoided) = avoided {
                tracing::info!(
                    gateway, why = %ended,
                    "{PREFERRED} breaks again and again; the other carrier first for {avoided:?}"
                );
            }
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Auto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auto").field("first", &self.state().first).finish_non_exhaustive()
    }
}

async fn race(
    settings: &DiallerSettings,
    epoch: u64,
    first: Which,
) -> Result<AgentSession, DialError> {
    let turn = Turn::default();
    let tls = dialler::dial_in_turn(settings, epoch, &turn);
    let quic = quic::dial_in_turn(settings, epoch, &turn);
    tokio::pin!(tls, quic);
    let (mut tls_error, mut quic_error) = (None, None);
    let mut head_start = std::pin::pin!(sleep(HEAD_START));
    let mut both = false;
    loop {
        let tls_runs = tls_error.is_none() && (both || first == Which::Preferred);
        let quic_runs = quic_error.is_none() && (both || first == Which::Other);
        if !tls_runs && !quic_runs {
            if !both {
                both = true;
                continue;
            }
            return Err(tls_error.or(quic_error).unwrap_or(DialError::NoEndpoint));
        }
        tokio::select! {
            dialled = &mut tls, if tls_runs => match dialled {
                Ok(session) => return Ok(session),
                Err(error) => tls_error = Some(error),
            },
            dialled = &mut quic, if quic_runs => match dialled {
                Ok(session) => return Ok(session),
                Err(error) => quic_error = Some(error),
            },
            () = &mut head_start, if !both => both = true,
        }
    }
}

/// Whether the preferred carrier gets through: a connection and a handshake on it.
async fn can_be_had(settings: &DiallerSettings) -> bool {
    let Ok(addresses) = dialler::resolve(&settings.endpoints).await else { return false };
    let Ok(stream) = dialler::connect(&addresses).await else { return false };
    crate::tls::try_out(stream, settings).await.is_ok()
}
