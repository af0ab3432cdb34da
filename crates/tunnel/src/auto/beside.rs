//! The agent's end of a QUIC connection that joins a session over TLS.

use tokio::sync::mpsc;
use tokio::time::Instant;
use tunnel_proto::backoff::Backoff;

use crate::dialler::DiallerSettings;
use crate::link::Incoming;
use crate::quic;
use crate::session::{AgentSession, Status};

/// Where UDP does not pass it is tried so much more rarely than a session is.
const RARER: u32 = 6;

/// Keeps a QUIC connection beside the session, as long as the session lives.
pub(super) fn keep(settings: DiallerSettings, session: &AgentSession) {
    let beside = Beside {
        settings,
        gateway: session.welcome.gateway.clone(),
        token: session.welcome.token,
        status: session.control.status().clone(),
        flows: session.more.clone(),
    };
    tokio::spawn(beside.run());
}

struct Beside {
    settings: DiallerSettings,
    gateway: String,
    token: [u8; 16],
    status: Status,
    flows: mpsc::WeakSender<Incoming>,
}

impl Beside {
    async fn run(self) {
        let mut backoff = Backoff::new();
        let mut told = false;
        loop {
            let begun = Instant::now();
            let joined = tokio::select! {
                joined = quic::join(&self.settings, self.token, &self.status) => joined,
                _ = self.status.until_ended() => return,
            };
            match joined {
                Ok(joined) => {
                    tracing::info!(gateway = self.gateway, "quic carries datagrams");
                    told = false;
                    let Some(flows) = self.flows.upgrade() else { return };
                    joined.take_flows(flows).await;
                    if self.status.ended().is_some() {
                        return;
                    }
                    tracing::info!(gateway = self.gateway, "quic is lost, tls carries datagrams");
                }
                Err(error) if told => {
                    tracing::debug!(gateway = self.gateway, %error, "no quic");
                }
                Err(error) => {
                    told = true;
                    let error: &dyn std::error::Error = &error;
                    tracing::info!(gateway = self.gateway, error, "no quic, tls carries datagrams");
                }
            }
            let wait = backoff.wait(begun.elapsed(), rand::random()) * RARER;
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = self.status.until_ended() => return,
            }
        }
    }
}
