//! Both sides of the conversation on a real connection.

use std::time::SystemTime;

use tokio_rustls::TlsConnector;
use tunnel_proto::message::{ToAgent, ToGateway};

use super::decide::{AgentSide, AgentStep, GatewaySide, GatewayStep};
use super::{AdoptionError, EXPORTER_LABEL, PATIENCE};
use crate::dialler::{Endpoint, connect, resolve};
use crate::session::{Adoption, Channel, Control, Ended, Status};
use crate::trust::{AgentTrust, GatewayTrust, Identity, OneTimeSecret, system_clock};

/// Dials a gateway that may be adopted.
///
/// # Errors
///
/// When nobody answers there, or nobody who can be adopted by this cluster.
pub async fn dial(
    endpoints: &[Endpoint],
    trust: &AgentTrust,
    gateway: &str,
) -> Result<Adoption<ToGateway, ToAgent>, AdoptionError> {
    tokio::time::timeout(PATIENCE, try_dial(endpoints, trust, gateway))
        .await
        .unwrap_or(Err(AdoptionError::Late))
}

async fn try_dial(
    endpoints: &[Endpoint],
    trust: &AgentTrust,
    gateway: &str,
) -> Result<Adoption<ToGateway, ToAgent>, AdoptionError> {
    let dial = trust.dial_unproven(gateway).map_err(AdoptionError::Trust)?;
    let addresses = resolve(endpoints).await.map_err(AdoptionError::Dial)?;
    let stream = connect(&addresses).await.map_err(AdoptionError::Dial)?;
    let address = stream.peer_addr().map_err(AdoptionError::Handshake)?;
    stream.set_nodelay(true).map_err(AdoptionError::Handshake)?;
    let stream = TlsConnector::from(dial.config)
        .connect(dial.server_name, stream)
        .await
        .map_err(AdoptionError::Handshake)?;
    let exporter = stream.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, None);
    let exporter = exporter.map_err(|it| AdoptionError::Handshake(std::io::Error::other(it)))?;
    let control = Control::start(Channel::over(stream), Status::new());
    Ok(Adoption { address, peer: dial.gateway, exporter, control })
}

/// The agent's side: proves, checks, has the gateway's certificate signed, and waits until the
/// gateway has taken it.
///
/// `burn` notes one use of the secret where it is kept, or says why there is none left. It is asked
/// once the gateway has proved itself and before the secret is revealed; after it the use is spent,
/// whatever follows.
///
/// # Errors
///
/// When the gateway could not be adopted.
pub async fn adopt(
    adoption: Adoption<ToGateway, ToAgent>,
    trust: &AgentTrust,
    secret: OneTimeSecret,
    burn: impl Future<Output = Result<(), String>>,
) -> Result<(), AdoptionError> {
    tokio::time::timeout(PATIENCE, try_adopt(adoption, trust, secret, burn))
        .await
        .unwrap_or(Err(AdoptionError::Late))
}

async fn try_adopt(
    mut adoption: Adoption<ToGateway, ToAgent>,
    trust: &AgentTrust,
    secret: OneTimeSecret,
    burn: impl Future<Output = Result<(), String>>,
) -> Result<(), AdoptionError> {
    let mut side = AgentSide::new(secret, adoption.exporter);
    adoption.control.send(side.adopt()).map_err(AdoptionError::Ended)?;
    let request = loop {
        let message = next(&mut adoption.control).await?;
        match side.take(message)? {
            AgentStep::Wait => {}
            AgentStep::Sign(request) => break request,
        }
    };
    let certificate = trust.certify(&adoption.peer, request).await;
    let certificate = certificate.map_err(AdoptionError::Trust)?;
    burn.await.map_err(AdoptionError::Unredeemed)?;
    adoption.control.send(side.reveal()?).map_err(AdoptionError::Ended)?;
    let certificate = ToGateway::Certificate(certificate);
    adoption.control.send(certificate).map_err(AdoptionError::Ended)?;
    // It says so once everything is on its disk.
    if next(&mut adoption.control).await? == ToAgent::Drain {
        Ok(())
    } else {
        Err(AdoptionError::Unexpected { expected: "the end" })
    }
}

/// The gateway's side: proves, checks, burns the secret and takes the certificate. Returns by whom
/// the gateway was adopted.
///
/// # Errors
///
/// When the agent could not prove itself, or what it gave was not acceptable.
pub async fn serve(
    adoption: Adoption<ToAgent, ToGateway>,
    trust: &GatewayTrust,
) -> Result<Identity, AdoptionError> {
    tokio::time::timeout(PATIENCE, try_serve(adoption, trust))
        .await
        .unwrap_or(Err(AdoptionError::Late))
}

async fn try_serve(
    mut adoption: Adoption<ToAgent, ToGateway>,
    trust: &GatewayTrust,
) -> Result<Identity, AdoptionError> {
    let cluster = adoption.peer.cluster().to_owned();
    let Some(offer) = trust.open_offer(&cluster, system_clock()) else {
        return Err(AdoptionError::NoOffer(cluster));
    };
    let mut side = GatewaySide::new(offer.hash, adoption.exporter);
    let control = &mut adoption.control;
    let (secret, certificate) = loop {
        match side.take(next(control).await?)? {
            GatewayStep::Wait => {}
            GatewayStep::Answer(proof) => {
                let request = trust.request(&cluster).map_err(AdoptionError::Trust)?;
                control.send(proof).map_err(AdoptionError::Ended)?;
                let wanted = ToAgent::CertificateWanted(request);
                control.send(wanted).map_err(AdoptionError::Ended)?;
            }
            GatewayStep::Take(secret, certificate) => break (secret, certificate),
        }
    };
    let now: SystemTime = system_clock();
    // First whether it would do: the secret must not burn for nothing.
    trust.check(&cluster, &certificate, now).map_err(AdoptionError::Trust)?;
    if !trust.redeem(&cluster, &secret, now).map_err(AdoptionError::Trust)? {
        return Err(AdoptionError::Secret);
    }
    trust.install(&cluster, &certificate, now).map_err(AdoptionError::Trust)?;
    // That the agent does not hear it changes nothing: it will dial again and see.
    let _gone = control.send(ToAgent::Drain);
    Ok(adoption.peer)
}

async fn next<Out, In>(control: &mut Control<Out, In>) -> Result<In, AdoptionError>
where
    Out: crate::session::Message,
    In: crate::session::Message,
{
    match control.receive().await {
        Some(message) => Ok(message),
        None => Err(AdoptionError::Ended(ended(control))),
    }
}

fn ended<Out, In>(control: &Control<Out, In>) -> Ended
where
    Out: crate::session::Message,
    In: crate::session::Message,
{
    control.status().ended().unwrap_or(Ended::There)
}
