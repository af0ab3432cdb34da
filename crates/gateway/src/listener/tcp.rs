//! Visitors over TCP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};
use tunnel::cut::Cut;
use tunnel::link::Ending;
use tunnel_proto::choice::Failure;
use tunnel_proto::message::{Open, Protocol, Route};
use tunnel_proto::server_name::{Greeting, LONGEST, read};

use super::{Listener, OpenFlow, Rejected, Visit, Wished};
use crate::admission::Admitted;
use crate::cluster::Counted;
use crate::port::canonical;
use crate::socket::reset_on_close;
use crate::{opening, probe};

/// How long a visitor may take for its TLS greeting.
const GREETING: Duration = Duration::from_secs(5);

/// Visitors whose greeting is waited for, of the whole gateway. Each has a descriptor, and memory
/// once its first byte is there.
const MOST_GREETING: usize = 4096;

/// How long accepting rests when the system has no descriptors left.
const EXHAUSTED: Duration = Duration::from_millis(50);

/// Takes visitors until aborted.
pub(super) async fn accept(listener: Arc<Listener>, socket: Arc<TcpListener>) {
    loop {
        match socket.accept().await {
            Ok((stream, visitor)) => {
                let visit = Visit::count(&listener.house);
                let listener = Arc::clone(&listener);
                tokio::spawn(serve(visit, listener, stream, canonical(visitor)));
            }
            // The visitor is gone already.
            Err(error) if is_visitors(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "no visitor can be taken");
                tokio::time::sleep(EXHAUSTED).await;
            }
        }
    }
}

fn is_visitors(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

async fn serve(_visit: Visit, listener: Arc<Listener>, stream: TcpStream, visitor: SocketAddr) {
    // What leads to a flow takes much more memory than a flow that waits for bytes: it is on the
    // heap, and gone by then.
    if let Some(flow) = Box::pin(lead_to_flow(listener, stream, visitor)).await {
        let Carried { relay, cut, counted } = flow;
        tokio::select! {
            biased;
            _ending = relay => {}
            () = cut.wait() => {}
        }
        drop(counted);
    }
}

/// A flow on its way.
struct Carried {
    relay: BoxFuture<'static, Ending>,
    /// Given when it must end.
    cut: Arc<Cut>,
    /// Everywhere that it counts as open.
    counted: (OpenFlow, Counted, Admitted),
}

async fn lead_to_flow(
    listener: Arc<Listener>,
    mut stream: TcpStream,
    visitor: SocketAddr,
) -> Option<Carried> {
    if let Some(tell) = listener.probes.take(visitor) {
        let reached = probe::behind(&listener, visitor).await;
        reset_on_close(&stream);
        // The probe waits no longer; its own deadline says so.
        let _gone = tell.send(reached);
        return None;
    }
    let wished = listener.wish();
    let rejected = |stream: &TcpStream, why| {
        reject(&listener, stream, why);
        None
    };
    let admitted = match listener.admit(visitor.ip(), &wished) {
        Ok(admitted) => admitted,
        Err(why) => return rejected(&stream, why),
    };
    let lead = match lead(&wished, &mut stream).await {
        Ok(lead) => lead,
        Err(why) => return rejected(&stream, why),
    };
    let Some(_waiting) = listener.house.wait() else { return rejected(&stream, Rejected::Busy) };
    let open = Open {
        backend: lead.backend,
        protocol: Protocol::Tcp,
        visitor,
        dialled: canonical(stream.local_addr().ok()?),
        server_name: lead.server_name,
        probe: false,
    };
    let began = Instant::now();
    let opened = match opening::open(&listener.cluster, &open, listener.house.hold()).await {
        Ok(opened) => opened,
        Err(failure) => {
            listener.counters.failed.fetch_add(1, Ordering::Relaxed);
            log(&listener, &open, &failure);
            reset_on_close(&stream);
            return None;
        }
    };
    listener.house.opened.observe(began.elapsed());
    listener.probes.passed(began.elapsed());
    if let Some(rate) = listener.cluster.rate() {
        let slow = rate.through(stream).await;
        let noted =
            slow.inspect_err(|error| tracing::warn!(%error, "a flow cannot be slowed down"));
        stream = noted.ok()?;
    }
    Some(Carried {
        relay: opened.flow.relay(stream, lead.first, Arc::clone(&listener.meter)),
        cut: listener.cluster.cut(),
        counted: (OpenFlow::count(&listener), opened.counted, admitted),
    })
}

fn log(listener: &Listener, open: &Open, failure: &Failure) {
    tracing::debug!(
        cluster = %listener.cluster.name, port = %listener.key, backend = open.backend, %failure,
        "no agent took a flow"
    );
}

fn reject(listener: &Listener, stream: &TcpStream, why: Rejected) {
    listener.counters.reject(why);
    // An unknown name is no exception: the Gateway API wants such connections rejected without a
    // word of TLS, which is the backends' to speak.
    reset_on_close(stream);
}

/// Where a visitor is led.
struct Lead {
    backend: String,
    server_name: Option<String>,
    /// What was read of the visitor to find out.
    first: Bytes,
}

async fn lead(wished: &Wished, stream: &mut TcpStream) -> Result<Lead, Rejected> {
    match (&wished.port.route, &wished.names) {
        (Route::Backend(backend), _) => {
            Ok(Lead { backend: backend.clone(), server_name: None, first: Bytes::new() })
        }
        (Route::ServerName(_), Some(names)) => {
            let (server_name, first) = greeting(stream).await?;
            match names.pick(server_name.as_deref()) {
                Some(backend) => Ok(Lead { backend: backend.to_owned(), server_name, first }),
                None => Err(Rejected::UnknownName),
            }
        }
        (Route::ServerName(_), None) | (Route::Nowhere, _) => Err(Rejected::Nowhere),
    }
}

/// Reads a visitor's TLS greeting: the name in it, and every byte that was read.
async fn greeting(stream: &mut TcpStream) -> Result<(Option<String>, Bytes), Rejected> {
    static WAITED_FOR: AtomicUsize = AtomicUsize::new(0);
    struct Waiting;
    impl Drop for Waiting {
        fn drop(&mut self) {
            WAITED_FOR.fetch_sub(1, Ordering::Relaxed);
        }
    }
    let before = WAITED_FOR.fetch_add(1, Ordering::Relaxed);
    let _waiting = Waiting;
    if before >= MOST_GREETING {
        return Err(Rejected::Busy);
    }
    let name = timeout(GREETING, async {
        // Memory for those who have said something.
        stream.readable().await.map_err(|_| Rejected::NoGreeting)?;
        let mut bytes = BytesMut::with_capacity(2048);
        loop {
            match stream.read_buf(&mut bytes).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Err(Rejected::NoGreeting),
            }
            match read(&bytes) {
                Greeting::Name(name) => return Ok((Some(name), bytes.freeze())),
                Greeting::NoName => return Ok((None, bytes.freeze())),
                Greeting::Incomplete if bytes.len() < LONGEST => bytes.reserve(2048),
                Greeting::Incomplete | Greeting::NotTls(_) => return Err(Rejected::NoGreeting),
            }
        }
    });
    name.await.unwrap_or(Err(Rejected::NoGreeting))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With ten thousand idle flows, every hundred bytes here are a megabyte.
    #[test]
    fn a_flow_that_waits_for_bytes_is_small() {
        fn size<A, B, C, D, F: Future>(_: impl Fn(A, B, C, D) -> F) -> usize {
            size_of::<F>()
        }
        let bytes = size(serve);
        assert!(bytes <= 512, "{bytes} bytes");
    }
}
