//! What every carrier of an acceptor shares.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tunnel_proto::message::{Hello, ToAgent, ToGateway, VERSION, Welcome};

use super::{AcceptorSettings, Arrival, HalfOpen, TurnedAway};
use crate::peer::ServerHandshakes;
use crate::peer::{Identity, Role};
use crate::session::{Channel, Control, Prepared, Status};

/// What every carrier of an acceptor shares.
pub(crate) struct Entrance {
    pub(crate) handshakes: Arc<dyn ServerHandshakes>,
    pub(crate) settings: AcceptorSettings,
    pub(crate) half_open: HalfOpen,
    /// Sessions that connections of another carrier may join.
    pub(crate) sides: crate::auto::Sides,
    arrivals: mpsc::Sender<Arrival>,
    pools: Mutex<HashMap<[u8; 16], crate::tls::WeakPool>>,
    busy: AtomicU64,
    failed: AtomicU64,
}

impl Entrance {
    pub(super) fn new(
        handshakes: Arc<dyn ServerHandshakes>,
        settings: AcceptorSettings,
        arrivals: mpsc::Sender<Arrival>,
    ) -> Self {
        let half_open = HalfOpen::new(settings.half_open, settings.half_open_per_source);
        Self {
            handshakes,
            settings,
            half_open,
            sides: crate::auto::Sides::default(),
            arrivals,
            pools: Mutex::default(),
            busy: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    /// Takes the greeting of an agent that is `peer` by its certificate. The carrier makes itself
    /// ready for flows and then says [`Self::welcome`].
    pub(crate) async fn greet<R, W>(
        &self,
        mut channel: Channel<R, W>,
        peer: &Identity,
        status: Status,
    ) -> io::Result<(Hello, Prepared<ToAgent, ToGateway>)>
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let refuse = |why: String| Err(io::Error::new(io::ErrorKind::InvalidData, why));
        if peer.role() != Role::Agent {
            return refuse(format!("{peer} is no agent"));
        }
        let hello = match channel.receiving.next::<ToGateway>(|| ()).await? {
            Some(ToGateway::Hello(hello)) => hello,
            Some(_) => return refuse(format!("{peer} does not greet")),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        };
        if hello.agent != peer.name() {
            return refuse(format!("{peer} says that it is `{}`", hello.agent));
        }
        channel.trust();
        Ok((hello, Control::prepare(channel, status, |_| false)))
    }

    /// Says welcome, which is when flow connections with this token may come, and sets the control
    /// channel in motion.
    pub(crate) fn welcome(
        &self,
        prepared: Prepared<ToAgent, ToGateway>,
        hello: &Hello,
        address: SocketAddr,
        token: [u8; 16],
    ) -> Control<ToAgent, ToGateway> {
        let welcome = ToAgent::Welcome(Welcome {
            version: hello.version.min(VERSION),
            gateway: self.settings.gateway.clone(),
            token,
            agent_address: address,
            spare: self.settings.spare,
            program: self.settings.program.clone(),
        });
        // A session that ended before it began is noticed by whoever takes it.
        let _ended = prepared.control.send(welcome);
        prepared.start()
    }

    /// Hands over who has come. Waits while too many wait.
    pub(crate) async fn arrive(&self, arrival: Arrival) {
        // Nobody accepts any more: the session ends with the value.
        let _nobody = self.arrivals.send(arrival).await;
    }

    /// Remembers to which session flow connections with this token belong, as long as it lives.
    pub(crate) fn expect_flows(&self, token: [u8; 16], pool: crate::tls::WeakPool) {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.retain(|_, it| it.is_alive());
        pools.insert(token, pool);
    }

    /// The session to which flow connections with this token belong.
    pub(crate) fn pool(&self, token: &[u8; 16]) -> Option<crate::tls::WeakPool> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).get(token).cloned()
    }

    /// Counts a connection for which there was no place.
    pub(crate) fn count_busy(&self) {
        self.busy.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection that failed.
    pub(crate) fn count_failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn turned_away(&self) -> TurnedAway {
        TurnedAway {
            busy: self.busy.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }
}

impl fmt::Debug for Entrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entrance").field("settings", &self.settings).finish_non_exhaustive()
    }
}
