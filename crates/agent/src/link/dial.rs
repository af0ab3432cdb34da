//! One try to reach a gateway: a session, or adoption and then a session.

use std::sync::Arc;

use api::edge_gateway::{Carrier, EdgeGatewaySettings, SecretSource};
use tunnel::adoption;
use tunnel::dialler::{self, DialError, DiallerSettings, Endpoint};
use tunnel::session::AgentSession;
use tunnel::trust::{AgentTrust, OneTimeSecret};

use super::Shared;

/// Dials once.
///
/// # Errors
///
/// Why there is no session, for people.
pub(super) async fn dial(
    gateway: &str,
    settings: &EdgeGatewaySettings,
    trust: &Arc<AgentTrust>,
    shared: &Shared,
) -> Result<AgentSession, String> {
    let endpoints: Vec<Endpoint> = settings
        .endpoints
        .iter()
        .map(|it| Endpoint { host: it.host.to_string(), port: it.port.get() })
        .collect();
    if let Carrier::Ssh(_) = settings.carrier {
        return Err("spec.ssh: this program cannot carry tunnels over SSH yet".to_owned());
    }
    let handshakes = trust.handshakes(gateway).map_err(|error| chain(&error))?;
    let mut dialler = DiallerSettings::new(endpoints, handshakes, &shared.agent);
    dialler.node.clone_from(&shared.node);
    let error = match session(&settings.carrier, &dialler, shared).await {
        Ok(session) => return Ok(session),
        Err(error) => error,
    };
    if !adoption::wants_adoption(&error) {
        return Err(chain(&error));
    }
    shared.board.not_adopted(gateway);
    let Some(source) = &settings.adoption else {
        return Err(format!(
            "the gateway holds no certificate of this cluster, and spec.adoption names no one-time \
             secret; make one with `portcullis gateway rotate {gateway}`"
        ));
    };
    let secret = one_time_secret(source, shared).await?;
    let unproven = adoption::dial(&dialler.endpoints, trust, gateway).await;
    let adopted = match unproven {
        Ok(unproven) => adoption::adopt(unproven, trust, secret).await,
        Err(error) => Err(error),
    };
    adopted.map_err(|error| format!("the gateway cannot be adopted: {}", chain(&error)))?;
    tracing::info!(gateway, "adopted the gateway");
    session(&settings.carrier, &dialler, shared).await.map_err(|error| chain(&error))
}

async fn session(
    carrier: &Carrier,
    dialler: &DiallerSettings,
    shared: &Shared,
) -> Result<AgentSession, DialError> {
    match carrier {
        Carrier::Auto | Carrier::Quic | Carrier::Tls | Carrier::Ssh(_) => {
            dialler::dial(dialler, shared.epochs.next()).await
        }
    }
}

async fn one_time_secret(source: &SecretSource, shared: &Shared) -> Result<OneTimeSecret, String> {
    let text = match (source, &shared.client) {
        (SecretSource::File(file), _) => tokio::fs::read_to_string(file.as_str())
            .await
            .map_err(|error| format!("spec.adoption.secretFile: {}: {error}", file.as_str()))?,
        (SecretSource::Secret { namespace, name, key }, Some(client)) => {
            let read = cluster::secret::read(client, namespace, name, key).await;
            read.map_err(|error| format!("spec.adoption.secretRef: {error}"))?
        }
        (SecretSource::Secret { .. }, None) => {
            return Err("spec.adoption.secretRef: there are no Secrets without a cluster; use \
                        secretFile"
                .to_owned());
        }
    };
    text.parse().map_err(|error: tunnel::trust::TrustError| format!("spec.adoption: {error}"))
}

/// The error with its causes, none repeated.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
