//! What the TLS library asks while somebody comes in.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error as TlsError, ServerConfig, SignatureScheme,
};

use super::GatewayTrust;
use crate::peer::{Identity, ServerHandshakes};
use crate::trust::verify::{only_tls13, refused, signature_of};
use crate::trust::{alpn, provider, system_clock};

/// What carriers ask for each connection.
pub(super) struct Door {
    pub(super) trust: Arc<GatewayTrust>,
    pub(super) config: Arc<ServerConfig>,
}

impl ServerHandshakes for Door {
    fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    fn peer(&self, chain: &[CertificateDer<'_>]) -> Option<Identity> {
        let agent = self.trust.agent(chain, system_clock());
        agent.inspect_err(|error| tracing::info!(%error, "an agent is refused")).ok()
    }
}

/// Which certificate the gateway shows: the one for the cluster that the agent asks for.
pub(super) struct Certificates(pub(super) Arc<GatewayTrust>);

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if hello.alpn().is_some_and(|mut it| it.any(|it| it == alpn::ADOPT)) {
            return Some(Arc::clone(&self.0.unproven));
        }
        let wanted = hello.server_name()?;
        let members = self.0.read();
        let member = members
            .values()
            .find(|it| it.identity.server_name().to_str().eq_ignore_ascii_case(wanted))?;
        member.credentials.as_ref().map(crate::trust::credentials::Credentials::tls)
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificates(..)")
    }
}

/// Whom the gateway lets in: agents of clusters that it serves.
pub(super) struct Agents(pub(super) Arc<GatewayTrust>);

impl ClientCertVerifier for Agents {
    /// None: who knocks without a certificate learns not whom the gateway serves.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs());
        let chain: Vec<_> = std::iter::once(certificate).chain(intermediates).cloned().collect();
        self.0.agent(&chain, now).map_err(refused)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        signature_of(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

impl fmt::Debug for Agents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Agents(..)")
    }
}
