//! Checks of certificates: who signed, for which role, in which cluster.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::DigitallySignedStruct;
use rustls::Error as TlsError;
use rustls::SignatureScheme;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::identity::cluster_of_authority;
use super::{Identity, Pin, Role, TrustError, identity_of, provider};

/// The most authorities that one cluster has at a time.
pub(super) const MOST_AUTHORITIES: usize = 8;

/// Checks that one of `authorities` has signed `certificate` for this very role, and that it
/// counts at `now`; returns whose it is.
pub(super) fn verify(
    certificate: &CertificateDer<'_>,
    authorities: &[CertificateDer<'_>],
    now: SystemTime,
) -> Result<Identity, TrustError> {
    let identity = identity_of(certificate)?;
    let cluster = identity.cluster();
    let why = |why: String| TrustError::WrongAuthority { cluster: cluster.to_owned(), why };
    let anchors = authorities.iter().map(|it| webpki::anchor_from_trusted_cert(it));
    let anchors: Vec<_> = anchors.filter_map(Result::ok).collect();
    let usage = match identity.role() {
        Role::Agent => KeyUsage::client_auth(),
        Role::Gateway => KeyUsage::server_auth(),
    };
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let parsed = EndEntityCert::try_from(certificate).map_err(TrustError::certificate)?;
    parsed
        .verify_for_usage(
            provider().signature_verification_algorithms.all,
            &anchors,
            &[],
            UnixTime::since_unix_epoch(since),
            usage,
            None,
            None,
        )
        .map_err(|error| why(error.to_string()))?;
    Ok(identity)
}

/// Which of the `offered` authorities may be trusted: those that are known, those that are pinned,
/// and those that one of these has signed as its successor.
///
/// So whoever holds an agent's key, but not the authority's, can make nobody trust an authority of
/// their own.
pub(super) fn acceptable(
    cluster: &str,
    known: &[CertificateDer<'static>],
    pins: &[Pin],
    offered: &[CertificateDer<'_>],
) -> Vec<CertificateDer<'static>> {
    let ours = |it: &&CertificateDer<'_>| cluster_of_authority(it).is_ok_and(|it| it == cluster);
    let mut open: Vec<_> = offered
        .iter()
        .take(MOST_AUTHORITIES)
        .filter(ours)
        .map(|it| it.clone().into_owned())
        .collect();
    let mut trusted = known.to_vec();
    let mut accepted = Vec::new();
    loop {
        let (good, rest): (Vec<_>, Vec<_>) = open.into_iter().partition(|it| {
            known.contains(it)
                || pins.contains(&Pin::of(it))
                || trusted.iter().any(|predecessor| signed_by(it, predecessor))
        });
        if good.is_empty() {
            return accepted;
        }
        trusted.extend(good.iter().cloned());
        accepted.extend(good);
        open = rest;
    }
}

fn signed_by(certificate: &CertificateDer<'_>, authority: &CertificateDer<'_>) -> bool {
    let certificate = X509Certificate::from_der(certificate.as_ref());
    let authority = X509Certificate::from_der(authority.as_ref());
    let (Ok((_, certificate)), Ok((_, authority))) = (certificate, authority) else {
        return false;
    };
    certificate.issuer() == authority.subject()
        && certificate.verify_signature(Some(authority.public_key())).is_ok()
}

/// Accepts the one gateway that was dialled.
#[derive(Debug)]
pub(super) struct ExpectedGateway {
    pub(super) expected: Identity,
    pub(super) authorities: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for ExpectedGateway {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs());
        let found = verify(certificate, &self.authorities, now).map_err(refused)?;
        if found != self.expected {
            let expected = self.expected.to_string();
            return Err(refused(TrustError::WrongIdentity { expected, found }));
        }
        Ok(ServerCertVerified::assertion())
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

/// Accepts every gateway: what it is worth, the adoption itself finds out.
#[derive(Debug)]
pub(super) struct UnprovenGateway;

impl ServerCertVerifier for UnprovenGateway {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
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

pub(super) fn signature_of(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, TlsError> {
    let algorithms = provider().signature_verification_algorithms;
    rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
}

pub(super) fn only_tls13() -> TlsError {
    TlsError::PeerIncompatible(rustls::PeerIncompatible::Tls13RequiredForQuic)
}

/// Says to the TLS library why a certificate is refused. Our words stay with us; the other side
/// gets an alert.
pub(super) fn refused(error: TrustError) -> TlsError {
    TlsError::InvalidCertificate(rustls::CertificateError::Other(rustls::OtherError(Arc::new(
        error,
    ))))
}
