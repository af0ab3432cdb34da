//! Both sides of the conversation, as decisions about messages.

use aws_lc_rs::hmac;
use tunnel_proto::message::{Certificate, Proof, ToAgent, ToGateway};

use super::AdoptionError;
use crate::trust::{OneTimeSecret, Role, SecretHash};

/// What shows that `side` knows the secret with this hash, on the TLS session with this exporter.
#[must_use]
pub fn proof(hash: &SecretHash, exporter: &[u8; 32], side: Role) -> Proof {
    let mut result = [0; 32];
    result.copy_from_slice(hmac::sign(&hash.key(), &input(exporter, side)).as_ref());
    Proof(result)
}

/// Takes the same time for every wrong one.
fn proves(hash: &SecretHash, exporter: &[u8; 32], side: Role, proof: &Proof) -> bool {
    hmac::verify(&hash.key(), &input(exporter, side), &proof.0).is_ok()
}

fn input(exporter: &[u8; 32], side: Role) -> Vec<u8> {
    [exporter.as_slice(), side.to_string().as_bytes()].concat()
}

/// The agent's side.
#[derive(Debug)]
pub struct AgentSide {
    secret: OneTimeSecret,
    exporter: [u8; 32],
    proven: bool,
}

/// What the agent does next.
#[derive(Debug, Eq, PartialEq)]
pub enum AgentStep {
    /// Wait for the next message.
    Wait,
    /// Have this request signed (PKCS #10, DER), then say [`AgentSide::reveal`] and the
    /// certificate. From then on the secret is spent, whatever follows.
    Sign(Vec<u8>),
}

impl AgentSide {
    /// Begins on the TLS session with this exporter.
    #[must_use]
    pub fn new(secret: OneTimeSecret, exporter: [u8; 32]) -> Self {
        Self { secret, exporter, proven: false }
    }

    /// The first message.
    #[must_use]
    pub fn adopt(&self) -> ToGateway {
        ToGateway::Adopt(proof(&self.secret.hash(), &self.exporter, Role::Agent))
    }

    /// Takes a message.
    ///
    /// # Errors
    ///
    /// When the conversation must be given up.
    pub fn take(&mut self, message: ToAgent) -> Result<AgentStep, AdoptionError> {
        match (self.proven, message) {
            (false, ToAgent::Adopting(theirs)) => {
                let hash = self.secret.hash();
                if !proves(&hash, &self.exporter, Role::Gateway, &theirs) {
                    return Err(AdoptionError::Unproven);
                }
                self.proven = true;
                Ok(AgentStep::Wait)
            }
            (true, ToAgent::CertificateWanted(request)) => Ok(AgentStep::Sign(request)),
            (false, _) => Err(AdoptionError::Unexpected { expected: "the gateway's proof" }),
            (true, _) => Err(AdoptionError::Unexpected { expected: "a certificate request" }),
        }
    }

    /// The secret itself. Only for a gateway that has proved itself.
    ///
    /// # Errors
    ///
    /// When it has not.
    pub fn reveal(&self) -> Result<ToGateway, AdoptionError> {
        if self.proven {
            Ok(ToGateway::Reveal(self.secret.bytes().to_vec()))
        } else {
            Err(AdoptionError::Unproven)
        }
    }
}

/// The gateway's side.
#[derive(Debug)]
pub struct GatewaySide {
    hash: SecretHash,
    exporter: [u8; 32],
    state: State,
}

#[derive(Debug)]
enum State {
    Begun,
    Proven,
    Revealed(OneTimeSecret),
    Ended,
}

/// What the gateway does next.
#[derive(Debug, PartialEq)]
pub enum GatewayStep {
    /// Wait for the next message.
    Wait,
    /// Say this, then ask for a certificate.
    Answer(ToAgent),
    /// Burn the secret, take the certificate, close.
    Take(OneTimeSecret, Certificate),
}

impl GatewaySide {
    /// Begins on the TLS session with this exporter, for the secret with this hash.
    #[must_use]
    pub fn new(hash: SecretHash, exporter: [u8; 32]) -> Self {
        Self { hash, exporter, state: State::Begun }
    }

    /// Takes a message.
    ///
    /// # Errors
    ///
    /// When the conversation must be given up. It cannot be taken up again.
    pub fn take(&mut self, message: ToGateway) -> Result<GatewayStep, AdoptionError> {
        match (std::mem::replace(&mut self.state, State::Ended), message) {
            (State::Begun, ToGateway::Adopt(theirs)) => {
                if !proves(&self.hash, &self.exporter, Role::Agent, &theirs) {
                    return Err(AdoptionError::Unproven);
                }
                self.state = State::Proven;
                let ours = proof(&self.hash, &self.exporter, Role::Gateway);
                Ok(GatewayStep::Answer(ToAgent::Adopting(ours)))
            }
            (State::Proven, ToGateway::Reveal(secret)) => {
                let secret = OneTimeSecret::from_bytes(&secret).ok_or(AdoptionError::Secret)?;
                if !self.hash.matches(&secret) {
                    return Err(AdoptionError::Secret);
                }
                self.state = State::Revealed(secret);
                Ok(GatewayStep::Wait)
            }
            (State::Revealed(secret), ToGateway::Certificate(certificate)) => {
                Ok(GatewayStep::Take(secret, certificate))
            }
            (State::Begun, _) => Err(AdoptionError::Unexpected { expected: "the agent's proof" }),
            (State::Proven, _) => Err(AdoptionError::Unexpected { expected: "the secret" }),
            (State::Revealed(_), _) => {
                Err(AdoptionError::Unexpected { expected: "the certificate" })
            }
            (State::Ended, _) => Err(AdoptionError::Unexpected { expected: "nothing more" }),
        }
    }
}
