//! One flow on a connection, and what becomes of the connection afterwards.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::net::TcpStream;
use tunnel_proto::frame::Kind;

use super::connection::Connection;
use super::datagrams::Datagrams;
use super::relay::{self, Relayed};
use super::scratch::CHUNK;
use crate::link::{DatagramFlow, Ending, Flow, Meter};
use crate::session::Status;

/// How long a connection may take to come to rest after its flow was broken off.
const SETTLE: Duration = Duration::from_secs(2);

/// The session that a flow connection belongs to, and where it goes after each flow.
pub(super) trait Home: fmt::Debug + Send + Sync {
    /// Takes back a connection whose flow has ended and that is at rest.
    fn welcome(self: Arc<Self>, connection: Connection);

    /// What is shared by everything in the session.
    fn session(&self) -> &Shared;
}

/// What is shared by everything in a session.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) status: Status,
    pub(super) meter: Meter,
    pub(super) flows: AtomicU64,
}

impl Shared {
    pub(super) fn new(status: Status) -> Self {
        Self { status, meter: Meter::default(), flows: AtomicU64::new(0) }
    }

    /// Flows open now.
    pub(super) fn flows(&self) -> u64 {
        self.flows.load(Ordering::Relaxed)
    }

    /// Bytes of flows so far, both directions.
    pub(super) fn bytes(&self) -> u64 {
        self.meter.out.load(Ordering::Relaxed) + self.meter.back.load(Ordering::Relaxed)
    }
}

/// An open flow on a connection.
#[derive(Debug)]
pub(super) struct TlsFlow {
    connection: Connection,
    home: Counted,
}

/// Counts as a flow of its home, as long as it lives.
#[derive(Debug)]
pub(super) struct Counted(Arc<dyn Home>);

impl Counted {
    fn new(home: Arc<dyn Home>) -> Self {
        home.session().flows.fetch_add(1, Ordering::Relaxed);
        Self(home)
    }

    /// The session.
    pub(super) fn session(&self) -> &Shared {
        self.0.session()
    }

    /// The flow is over and its connection at rest.
    pub(super) fn welcome(self, connection: Connection) {
        Arc::clone(&self.0).welcome(connection);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.session().flows.fetch_sub(1, Ordering::Relaxed);
    }
}

impl TlsFlow {
    pub(super) fn new(connection: Connection, home: Arc<dyn Home>) -> Self {
        Self { connection, home: Counted::new(home) }
    }
}

impl Flow for TlsFlow {
    fn relay(
        self: Box<Self>,
        mut plain: TcpStream,
        first: Bytes,
        meter: Arc<Meter>,
    ) -> BoxFuture<'static, Ending> {
        Box::pin(async move {
            let Self { mut connection, home } = *self;
            let status = home.session().status.clone();
            let relayed = async {
                let meters = [&*meter, &home.session().meter];
                match send_first(&mut connection, first, meters).await {
                    Ok(()) => relay::relay(&mut connection, &mut plain, meters).await,
                    Err(_) => LOST,
                }
            };
            let relayed = tokio::select! {
                biased;
                relayed = relayed => relayed,
                () = status.until_dead() => LOST,
            };
            match relayed.ending {
                Ending::Closed => drop(plain),
                Ending::PlainReset | Ending::FarReset | Ending::Lost => relay::reset(plain),
            }
            match relayed.ending {
                Ending::Closed => home.welcome(connection),
                Ending::PlainReset => break_off(connection, home, true, !relayed.there_ended),
                Ending::FarReset => break_off(connection, home, !relayed.here_ended, false),
                Ending::Lost => connection.abort(),
            }
            relayed.ending
        })
    }

    fn into_datagrams(self: Box<Self>) -> Box<dyn DatagramFlow> {
        let Self { connection, home } = *self;
        Box::new(Datagrams::start(connection, home))
    }
}

const LOST: Relayed = Relayed { ending: Ending::Lost, here_ended: false, there_ended: false };

async fn send_first(
    connection: &mut Connection,
    first: Bytes,
    meters: [&Meter; 2],
) -> io::Result<()> {
    for part in first.chunks(CHUNK) {
        connection.flush().await?;
        connection.send(Kind::Data, part)?;
        meters.iter().for_each(|it| it.add_out(part.len()));
    }
    Ok(())
}

/// Ends a flow that broke: says so if the other end does not know, waits for its last word if that
/// has not come, and takes the connection home when it is at rest soon.
///
/// An end that has said `Fin` may still say `Reset`. The other end may have ended the flow by then;
/// a `Reset` outside of a flow means nothing.
fn break_off(mut connection: Connection, home: Counted, say: bool, wait: bool) {
    // With bytes on the way in between, a broken connection is the faster messenger.
    if connection.has_unsent() || (say && connection.send(Kind::Reset, &[]).is_err()) {
        return connection.abort();
    }
    if !wait && connection.is_at_rest() {
        return home.welcome(connection);
    }
    tokio::spawn(async move {
        let settled = tokio::time::timeout(SETTLE, async {
            connection.flush().await?;
            if wait && !matches!(connection.next_frame().await?.0, Kind::Fin | Kind::Reset) {
                return Err(io::Error::from(io::ErrorKind::InvalidData));
            }
            Ok(())
        });
        match settled.await {
            Ok(Ok(())) if !connection.has_unsent() => home.welcome(connection),
            _ => connection.abort(),
        }
    });
}
