//! A key with its certificate, and the text that they are kept in.

use std::fmt;
use std::sync::Arc;

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _};
use rustls::pki_types::pem::{PemObject as _, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;

use super::authority::named;
use super::identity::public_key_of;
use super::{Identity, Lifespan, TrustError, lifespan_of, provider};

/// A key that was just made, and the request for its certificate.
pub(super) struct Requested {
    pub(super) key: KeyPair,
    /// PKCS #10, DER.
    pub(super) request: Vec<u8>,
}

impl Requested {
    pub(super) fn new(identity: &Identity) -> Result<Self, TrustError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(TrustError::make)?;
        let params = named(identity.name(), &identity.to_string())?;
        let request = params.serialize_request(&key).map_err(TrustError::make)?;
        Ok(Self { key, request: request.der().to_vec() })
    }

    pub(super) fn answers(&self, certificate: &CertificateDer<'_>) -> bool {
        public_key_of(certificate).is_ok_and(|it| it == self.key.subject_public_key_info())
    }
}

impl fmt::Debug for Requested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Requested(..)")
    }
}

/// A key with its certificate, ready for TLS.
#[derive(Clone)]
pub(super) struct Credentials {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) lifespan: Lifespan,
    key: Arc<[u8]>,
    tls: Arc<CertifiedKey>,
}

impl Credentials {
    pub(super) fn new(
        key: &KeyPair,
        certificate: CertificateDer<'static>,
    ) -> Result<Self, TrustError> {
        let lifespan = lifespan_of(&certificate)?;
        let key: Arc<[u8]> = key.serialized_der().into();
        let tls = certified(&key, vec![certificate.clone()])?;
        Ok(Self { certificate, lifespan, key, tls: Arc::new(tls) })
    }

    /// For TLS, with the certificate alone.
    pub(super) fn tls(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.tls)
    }

    /// For TLS, with the authorities' certificates behind our own.
    pub(super) fn tls_with(
        &self,
        authorities: &[CertificateDer<'static>],
    ) -> Result<CertifiedKey, TrustError> {
        let chain = std::iter::once(&self.certificate).chain(authorities).cloned();
        certified(&self.key, chain.collect())
    }

    pub(super) fn to_pem(&self) -> String {
        format!("{}{}", key_pem(&self.key), certificate_pem(&self.certificate))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("lifespan", &self.lifespan).finish_non_exhaustive()
    }
}

/// A key with a certificate that it signed itself, for the adoption alone.
pub(super) fn self_signed() -> Result<CertifiedKey, TrustError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(TrustError::make)?;
    let params = named("a gateway without a cluster", "portcullis://")?;
    let certificate = params.self_signed(&key).map_err(TrustError::make)?;
    certified(key.serialized_der(), vec![certificate.der().clone()])
}

fn certified(key: &[u8], chain: Vec<CertificateDer<'static>>) -> Result<CertifiedKey, TrustError> {
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.to_vec()));
    CertifiedKey::from_der(chain, key, &provider()).map_err(TrustError::certificate)
}

/// One part of a text of keys and certificates.
pub(super) enum Section {
    Certificate(CertificateDer<'static>),
    Key(Vec<u8>),
}

/// Takes such a text apart. `place` names it in messages.
pub(super) fn sections(place: &str, text: &str) -> Result<Vec<Section>, TrustError> {
    let refuse = |why: String| TrustError::Pem { place: place.to_owned(), why };
    let parts = <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes());
    let parts = parts.map(|part| {
        let (kind, bytes) = part.map_err(|error| refuse(error.to_string()))?;
        if kind == SectionKind::Certificate {
            Ok(Section::Certificate(bytes.into()))
        } else if kind == SectionKind::PrivateKey {
            Ok(Section::Key(bytes))
        } else {
            Err(refuse(format!("expected no {kind:?}")))
        }
    });
    parts.collect()
}

/// Reads a private key (PKCS #8, DER).
pub(super) fn key_pair(key: &[u8]) -> Result<KeyPair, TrustError> {
    let key = KeyPair::try_from(key).map_err(TrustError::make)?;
    if !key.is_compatible(&PKCS_ECDSA_P256_SHA256) {
        return Err(TrustError::make("expected an ECDSA key on P-256"));
    }
    Ok(key)
}

pub(super) fn certificate_pem(certificate: &CertificateDer<'_>) -> String {
    pem("CERTIFICATE", certificate.as_ref())
}

pub(super) fn key_pem(key: &[u8]) -> String {
    pem("PRIVATE KEY", key)
}

fn pem(label: &str, bytes: &[u8]) -> String {
    let part = pem::Pem::new(label, bytes);
    pem::encode_config(&part, pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF))
}
