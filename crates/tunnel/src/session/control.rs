//! The control channel in motion: messages out, messages in, and whether the other end lives.

use std::fmt;
use std::io;
use std::time::Duration;

use futures::future::BoxFuture;
use minicbor::{Decode, Encode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tunnel_proto::liveness::{DEAD_AFTER, Due, Liveness};
use tunnel_proto::message::{ToAgent, ToGateway};

use super::channel::{Channel, Receiving, Sending};
use super::{Ended, Status};

/// Messages that may wait for whoever takes them, in either direction.
const WAITING: usize = 1024;

/// How long an end that closes waits for what it said to be sent.
const PARTING: Duration = Duration::from_secs(1);

/// A message of one direction.
pub trait Message:
    fmt::Debug + Encode<()> + for<'b> Decode<'b, ()> + Send + Sync + 'static
{
    /// Asks for a [`Self::pong`].
    fn ping(number: u64) -> Self;
    /// Answers a ping.
    fn pong(number: u64) -> Self;
    /// What it says to the control channel itself, if it does.
    fn signal(&self) -> Option<Signal>;
}

/// What a message can say to the control channel itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Signal {
    /// Wants a pong.
    Ping(u64),
    /// Answers a ping.
    Pong(u64),
    /// A newer session, with this epoch, has taken over.
    Evicted(u64),
}

impl Message for ToGateway {
    fn ping(number: u64) -> Self {
        Self::Ping(number)
    }

    fn pong(number: u64) -> Self {
        Self::Pong(number)
    }

    fn signal(&self) -> Option<Signal> {
        match self {
            Self::Ping(number) => Some(Signal::Ping(*number)),
            Self::Pong(number) => Some(Signal::Pong(*number)),
            Self::Hello(_)
            | Self::Desired(_)
            | Self::Serving(_)
            | Self::Drain
            | Self::Certificate(_)
            | Self::Adopt(_)
            | Self::Reveal(_) => None,
        }
    }
}

impl Message for ToAgent {
    fn ping(number: u64) -> Self {
        Self::Ping(number)
    }

    fn pong(number: u64) -> Self {
        Self::Pong(number)
    }

    fn signal(&self) -> Option<Signal> {
        match self {
            Self::Ping(number) => Some(Signal::Ping(*number)),
            Self::Pong(number) => Some(Signal::Pong(*number)),
            Self::Evicted { by } => Some(Signal::Evicted(*by)),
            Self::Welcome(_)
            | Self::Report(_)
            | Self::Drain
            | Self::CertificateWanted(_)
            | Self::Adopting(_)
            | Self::Spare(_) => None,
        }
    }
}

/// One end of a session's control channel.
#[derive(Debug)]
pub struct Control<Out, In> {
    outbox: Outbox<Out>,
    inbox: mpsc::Receiver<In>,
    status: Status,
}

impl<Out: Message, In: Message> Control<Out, In> {
    /// Sets a channel in motion. It stays so until the session ends, which it does too when this
    /// value is dropped.
    pub(crate) fn start<R, W>(channel: Channel<R, W>, status: Status) -> Self
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        Self::prepare(channel, status, |_| false).start()
    }

    /// Makes ready to set a channel in motion. Messages that `taken` says yes to go no further.
    pub(crate) fn prepare<R, W>(
        channel: Channel<R, W>,
        status: Status,
        taken: impl FnMut(&In) -> bool + Send + 'static,
    ) -> Prepared<Out, In>
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let (outbox, outgoing) = mpsc::channel(WAITING);
        let (inbox, received) = mpsc::channel(WAITING);
        let outbox = Outbox { queue: outbox, status: status.clone() };
        let inbox = Inbox { inbox, taken };
        let pump = pump(channel, status.clone(), outbox.clone(), outgoing, inbox);
        Prepared { control: Self { outbox, inbox: received, status }, pump: Box::pin(pump) }
    }

    /// The next message; `None` when the session has ended and nothing is left.
    pub async fn receive(&mut self) -> Option<In> {
        self.inbox.recv().await
    }

    /// Queues a message. Never waits; a queue that is full ends the session.
    ///
    /// # Errors
    ///
    /// Why the session has ended, when it has.
    pub fn send(&self, message: Out) -> Result<(), Ended> {
        self.outbox.send(message)
    }

    /// The sending part, to keep elsewhere.
    #[must_use]
    pub fn outbox(&self) -> &Outbox<Out> {
        &self.outbox
    }

    /// How the session does, to keep elsewhere.
    #[must_use]
    pub fn status(&self) -> &Status {
        &self.status
    }
}

impl<Out, In> Drop for Control<Out, In> {
    fn drop(&mut self) {
        self.status.end(Ended::Here);
    }
}

/// A control channel that does not move yet. What is sent now is the first that the other end
/// hears.
pub(crate) struct Prepared<Out, In> {
    pub(crate) control: Control<Out, In>,
    pump: BoxFuture<'static, ()>,
}

impl<Out, In> Prepared<Out, In> {
    /// Sets it in motion.
    pub(crate) fn start(self) -> Control<Out, In> {
        tokio::spawn(self.pump);
        self.control
    }
}

/// Takes messages for the other end.
pub struct Outbox<M> {
    queue: mpsc::Sender<M>,
    status: Status,
}

impl<M> Outbox<M> {
    /// Queues a message. Never waits; a queue that is full ends the session.
    ///
    /// # Errors
    ///
    /// Why the session has ended, when it has.
    pub fn send(&self, message: M) -> Result<(), Ended> {
        if let Some(ended) = self.status.ended() {
            return Err(ended);
        }
        self.queue.try_send(message).map_err(|_| {
            self.status.end(Ended::Overrun);
            self.status.ended().unwrap_or(Ended::Overrun)
        })
    }
}

impl<M> Clone for Outbox<M> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), status: self.status.clone() }
    }
}

impl<M> fmt::Debug for Outbox<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("waiting", &(WAITING - self.queue.capacity())).finish()
    }
}

/// Where messages go that came.
struct Inbox<In, F> {
    inbox: mpsc::Sender<In>,
    taken: F,
}

async fn pump<R, W, Out: Message, In: Message, F: FnMut(&In) -> bool>(
    channel: Channel<R, W>,
    status: Status,
    outbox: Outbox<Out>,
    mut outgoing: mpsc::Receiver<Out>,
    mut inbox: Inbox<In, F>,
) where
    R: AsyncRead + Send + Unpin,
    W: AsyncWrite + Send + Unpin,
{
    let Channel { mut receiving, sending } = channel;
    let (pongs, answered) = mpsc::unbounded_channel();
    let alive = keep_alive(&status, &outbox, answered);
    let received = receive(&mut receiving, &status, &outbox, &mut inbox, pongs);
    let sent = send(sending, &status, &mut outgoing);
    tokio::pin!(sent);
    let ended = tokio::select! {
        ended = alive => ended,
        ended = received => ended,
        // Having said everything after the end was said, or never.
        ended = &mut sent => {
            status.end(ended);
            return;
        }
        ended = status.until_ended() => ended,
    };
    status.end(ended.clone());
    drop(inbox);
    if !matches!(ended, Ended::Silent(_) | Ended::Broken(_)) {
        let _said_or_not = tokio::time::timeout(PARTING, sent).await;
    }
}

/// Sends what is queued; after the end, what is left, and that nothing follows.
async fn send<W: AsyncWrite + Unpin, Out: Message>(
    mut sending: Sending<W>,
    status: &Status,
    outgoing: &mut mpsc::Receiver<Out>,
) -> Ended {
    loop {
        let message = tokio::select! {
            biased;
            message = outgoing.recv() => message,
            _ = status.until_ended() => None,
        };
        let sent = match message {
            Some(message) => sending.send(&message).await,
            None => {
                let _gone = sending.finish().await;
                return status.ended().unwrap_or(Ended::Here);
            }
        };
        if let Err(error) = sent {
            return broken(&error);
        }
    }
}

async fn receive<R: AsyncRead + Unpin, Out: Message, In: Message, F: FnMut(&In) -> bool>(
    receiving: &mut Receiving<R>,
    status: &Status,
    outbox: &Outbox<Out>,
    inbox: &mut Inbox<In, F>,
    pongs: mpsc::UnboundedSender<u64>,
) -> Ended {
    loop {
        let message = match receiving.next::<In>(|| status.heard()).await {
            Ok(Some(message)) => message,
            Ok(None) => return Ended::There,
            Err(error) => return broken(&error),
        };
        match message.signal() {
            Some(Signal::Ping(number)) => {
                if let Err(ended) = outbox.send(Out::pong(number)) {
                    return ended;
                }
            }
            Some(Signal::Pong(number)) => {
                // Whoever takes them lives as long as this.
                let _taken = pongs.send(number);
            }
            Some(Signal::Evicted(by)) => return Ended::Evicted { by },
            None => {
                if !(inbox.taken)(&message) && inbox.inbox.try_send(message).is_err() {
                    return Ended::Overrun;
                }
            }
        }
    }
}

async fn keep_alive<Out: Message>(
    status: &Status,
    outbox: &Outbox<Out>,
    mut answered: mpsc::UnboundedReceiver<u64>,
) -> Ended {
    let mut liveness = Liveness::new(Duration::ZERO);
    loop {
        // Bytes on every connection of the session count.
        liveness.received(status.last_heard());
        while let Some(due) = liveness.handle_timeout(status.age()) {
            match due {
                Due::Ping(number) => {
                    if let Err(ended) = outbox.send(Out::ping(number)) {
                        return ended;
                    }
                }
                Due::Dead => return Ended::Silent(DEAD_AFTER),
            }
        }
        tokio::select! {
            () = tokio::time::sleep_until(status.began() + liveness.poll_timeout()) => {}
            () = status.until_doubted() => liveness.ask(status.age()),
            Some(number) = answered.recv() => {
                liveness.handle_pong(number, status.age());
                if let Some(round_trip) = liveness.round_trip() {
                    status.measured(round_trip);
                }
            }
        }
    }
}

fn broken(error: &io::Error) -> Ended {
    if error.kind() == io::ErrorKind::InvalidData {
        Ended::Nonsense(error.to_string())
    } else {
        Ended::Broken(error.to_string())
    }
}
