//! What the flows of one QUIC connection share, and when the connection is closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quinn::{Connection, ConnectionError, SendStream};
use tokio::sync::{Notify, oneshot};

use super::code;
use super::datagrams::Datagrams;
use super::unread::UnreadFlows;
use crate::session::{Ended, Status};

/// How long an end that closes waits until what it said has arrived.
const PARTING: Duration = Duration::from_secs(1);

/// A connection and what is counted of it.
#[derive(Debug)]
pub(super) struct Carried {
    pub(super) connection: Connection,
    pub(super) status: Status,
    pub(super) datagrams: Datagrams,
    pub(super) bytes: AtomicU64,
    flows: AtomicU64,
    none_left: Notify,
    pub(super) unread: UnreadFlows,
    /// The session is this connection; else this one has joined it.
    is_session: bool,
}

impl Carried {
    /// Sets in motion what a connection needs: datagrams are sorted to their flows, and it is
    /// closed when its session has ended. `said` gives the control channel's stream back when the
    /// last message is in it; without, the session has its control channel elsewhere.
    pub(super) fn start(
        connection: Connection,
        status: Status,
        said: Option<oneshot::Receiver<SendStream>>,
    ) -> Arc<Self> {
        let is_session = said.is_some();
        let heard = is_session.then(|| status.clone());
        let carried = Arc::new(Self {
            datagrams: Datagrams::start(&connection, heard),
            connection,
            status,
            is_session,
            bytes: AtomicU64::new(0),
            flows: AtomicU64::new(0),
            none_left: Notify::new(),
            unread: UnreadFlows::default(),
        });
        tokio::spawn(watch(Arc::clone(&carried), said));
        carried
    }

    pub(super) fn flows(&self) -> u64 {
        self.flows.load(Ordering::Relaxed)
    }

    /// Bytes came. Of a connection that has joined, they say nothing about the control channel.
    pub(super) fn heard(&self) {
        if self.is_session {
            self.status.heard();
        }
    }

    pub(super) fn count(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Waits until no flow is open.
    pub(super) async fn idle(&self) {
        loop {
            let left = self.none_left.notified();
            if self.flows() == 0 {
                return;
            }
            left.await;
        }
    }
}

/// Counts a flow of a connection, as long as it lives.
#[derive(Debug)]
pub(super) struct Counted(pub(super) Arc<Carried>);

impl Counted {
    pub(super) fn new(carried: Arc<Carried>) -> Self {
        carried.flows.fetch_add(1, Ordering::Relaxed);
        Self(carried)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.0.flows.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.none_left.notify_waiters();
        }
    }
}

/// Ends the session when the connection is lost, and closes the connection when the session has
/// ended: at once when this end closed it or the other one is silent, else after the last flow.
async fn watch(carried: Arc<Carried>, said: Option<oneshot::Receiver<SendStream>>) {
    let connection = &carried.connection;
    let ended = tokio::select! {
        error = connection.closed() => {
            if carried.is_session {
                carried.status.end(why(&error));
            }
            return;
        }
        ended = carried.status.until_ended() => ended,
    };
    let all_said = async {
        let Some(said) = said else { return };
        if let Ok(mut stream) = said.await {
            let _gone = stream.finish();
            let _gone = stream.stopped().await;
        }
    };
    match ended {
        Ended::Silent(_) => {}
        Ended::Here => {
            let _heard_or_not = tokio::time::timeout(PARTING, all_said).await;
        }
        Ended::There
        | Ended::Evicted { .. }
        | Ended::Broken(_)
        | Ended::Nonsense(_)
        | Ended::Overrun => {
            let arrived = async {
                all_said.await;
                carried.idle().await;
            };
            tokio::select! {
                _ = connection.closed() => return,
                () = arrived => {}
            }
        }
    }
    connection.close(code::OVER, b"");
}

/// Why a connection that was lost was lost.
pub(super) fn why(error: &ConnectionError) -> Ended {
    match error {
        ConnectionError::LocallyClosed => Ended::Here,
        ConnectionError::ApplicationClosed(_) => Ended::There,
        ConnectionError::TimedOut => Ended::Silent(super::setup::IDLE),
        ConnectionError::VersionMismatch
        | ConnectionError::TransportError(_)
        | ConnectionError::ConnectionClosed(_)
        | ConnectionError::Reset
        | ConnectionError::CidsExhausted => Ended::Broken(error.to_string()),
    }
}
