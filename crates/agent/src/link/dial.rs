//! One try to reach a gateway: a session, or adoption and then a session.

use std::sync::Arc;

use api::edge_gateway::{Carrier, EdgeGatewaySettings, SshCarrier};
use api::host::KeySource;
use tunnel::adoption;
use tunnel::auto::Auto;
use tunnel::dialler::{self, DialError, DiallerSettings, Endpoint};
use tunnel::quic;
use tunnel::session::AgentSession;
use tunnel::ssh::{self, SshServer, Timing};
use tunnel::trust::{AgentTrust, Identity, Role};

use super::Shared;
use super::redemption::Kept;

/// Dials once, for the session with this epoch.
///
/// # Errors
///
/// Why there is no session, for people.
pub(super) async fn dial(
    gateway: &str,
    settings: &EdgeGatewaySettings,
    auto: &Auto,
    trust: &Arc<AgentTrust>,
    epoch: u64,
    shared: &Shared,
) -> Result<AgentSession, String> {
    let dialler = dialler(gateway, settings, trust, shared)?;
    let error = match session(&settings.carrier, auto, &dialler, epoch).await {
        Ok(session) => return Ok(session),
        Err(error) => error,
    };
    if !adoption::wants_adoption(&error) {
        return Err(chain(&error));
    }
    shared.board.not_adopted(gateway);
    let Some(source) = &settings.adoption else {
        return Err(
            "the gateway holds no certificate of this cluster, and spec.adoption names no \
                    one-time secret; declare it with `portcullis gateway create`"
                .to_owned(),
        );
    };
    let kept = Kept::read(source, shared).await?;
    let unproven = adoption::dial(&dialler.endpoints, trust, gateway).await;
    let adopted = match unproven {
        Ok(unproven) => {
            let burn = kept.burn(&shared.agent);
            adoption::adopt(unproven, trust, kept.secret.clone(), burn).await
        }
        Err(error) => Err(error),
    };
    adopted.map_err(|error| format!("the gateway cannot be adopted: {}", chain(&error)))?;
    tracing::info!(gateway, "adopted the gateway");
    let session = session(&settings.carrier, auto, &dialler, epoch).await;
    session.map_err(|error| chain(&error))
}

/// Completes when a session over `session`'s carrier should be replaced, and says why.
pub(super) async fn until_better(
    gateway: &str,
    settings: &EdgeGatewaySettings,
    auto: &Auto,
    carrier: tunnel::link::Carrier,
    shared: &Shared,
) -> String {
    let held = shared.trust.borrow().clone();
    if let (Carrier::Auto, Ok(trust)) = (&settings.carrier, &held)
        && let Ok(dialler) = dialler(gateway, settings, trust, shared)
    {
        return auto.until_better(&dialler, carrier).await;
    }
    std::future::pending().await
}

/// Logs in to a plain OpenSSH server.
///
/// # Errors
///
/// Why there is no session, for people.
pub(super) async fn dial_ssh(
    gateway: &str,
    settings: &EdgeGatewaySettings,
    carrier: &SshCarrier,
    shared: &Shared,
) -> Result<AgentSession, String> {
    let key = match &carrier.key {
        KeySource::File(file) => read_file("spec.ssh.keyFile", file.as_str()).await?,
        KeySource::Secret { namespace, name, key } => {
            read_secret("spec.ssh.keySecretRef", [namespace, name, key], shared).await?
        }
    };
    let server = SshServer {
        endpoints: settings
            .endpoints
            .iter()
            .map(|it| Endpoint { host: it.host.to_string(), port: carrier.port.get() })
            .collect(),
        user: carrier.user.to_string(),
        host_key: carrier
            .host_key
            .to_string()
            .parse()
            .map_err(|error: ssh::KeyError| format!("spec.ssh.hostKey: {error}"))?,
        client_key: key.parse().map_err(|error: ssh::KeyError| format!("spec.ssh: {error}"))?,
        timing: Timing::default(),
    };
    let cluster = shared.cluster.as_deref().unwrap_or("cluster");
    let identity = Identity::new(cluster, Role::Gateway, gateway).map_err(|it| chain(&it))?;
    ssh::dial(&server, identity, &shared.agent).await.map_err(|error| chain(&error))
}

fn dialler(
    gateway: &str,
    settings: &EdgeGatewaySettings,
    trust: &Arc<AgentTrust>,
    shared: &Shared,
) -> Result<DiallerSettings, String> {
    let endpoints = settings
        .endpoints
        .iter()
        .map(|it| Endpoint { host: it.host.to_string(), port: it.port.get() });
    let handshakes = trust.handshakes(gateway).map_err(|error| chain(&error))?;
    let mut dialler = DiallerSettings::new(endpoints.collect(), handshakes, &shared.agent);
    dialler.node.clone_from(&shared.node);
    Ok(dialler)
}

async fn session(
    carrier: &Carrier,
    auto: &Auto,
    dialler: &DiallerSettings,
    epoch: u64,
) -> Result<AgentSession, DialError> {
    match carrier {
        Carrier::Auto => auto.dial(dialler, epoch).await,
        Carrier::Quic => quic::dial(dialler, epoch).await,
        Carrier::Tls | Carrier::Ssh(_) => dialler::dial(dialler, epoch).await,
    }
}

async fn read_file(field: &str, path: &str) -> Result<String, String> {
    let text = tokio::fs::read_to_string(path).await;
    text.map_err(|error| format!("{field}: {path}: {error}"))
}

async fn read_secret(
    field: &str,
    [namespace, name, key]: [&str; 3],
    shared: &Shared,
) -> Result<String, String> {
    let Some(client) = &shared.client else {
        return Err(format!("{field}: there are no Secrets without a cluster; name a file"));
    };
    let text = cluster::secret::read(client, namespace, name, key).await;
    text.map_err(|error| format!("{field}: {error}"))
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
