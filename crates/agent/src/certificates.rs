//! Certificates for ending TLS: read from Secrets, held in memory, replaced when they change.
//!
//! Keys are parsed once and their text is not kept. Nothing here is printed or logged but names of
//! Secrets and what is wrong with them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use api::object::{ObjectKind, ObjectRef};
use k8s_openapi::api::core::v1::Secret;
use planner::object::{Change, Object};
use planner::publish::{Publication, TlsEnd};
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use webpki::EndEntityCert;

/// What visitors are told to expect inside TLS that ends before HTTP (RFC 7301). Not `h2`: backends
/// that speak it without TLS are few.
const HTTP: &[u8] = b"http/1.1";

/// How TLS ends, ready for visitors, by how it was asked for.
pub(crate) type TlsEnds = BTreeMap<TlsEnd, Arc<ServerConfig>>;

/// Every certificate that is known, and what was made of them.
pub(crate) struct Certificates {
    provider: Arc<CryptoProvider>,
    held: BTreeMap<ObjectRef, Arc<CertifiedKey>>,
    ends: BTreeMap<TlsEnd, (Arc<Chosen>, Arc<ServerConfig>)>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.held.keys()).finish()
    }
}

impl Certificates {
    pub(crate) fn new() -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        Self { provider, held: BTreeMap::new(), ends: BTreeMap::new() }
    }

    /// Takes in a change. Returns the Secrets that look sound and cannot serve, and why.
    pub(crate) fn note(&mut self, change: &Change) -> Vec<(ObjectRef, String)> {
        let mut refused = Vec::new();
        match change {
            Change::Applied(object) => {
                let before = self.held.remove(&object.reference());
                refused.extend(self.apply(object, before));
            }
            Change::Deleted(object) => {
                self.held.remove(object);
            }
            Change::Reset(ObjectKind::Secret, objects) => {
                let mut before = std::mem::take(&mut self.held);
                for object in objects {
                    let before = before.remove(&object.reference());
                    refused.extend(self.apply(object, before));
                }
            }
            Change::Reset(..) => {}
        }
        refused
    }

    fn apply(
        &mut self,
        object: &Object,
        before: Option<Arc<CertifiedKey>>,
    ) -> Option<(ObjectRef, String)> {
        let Object::Secret(secret) = object else { return None };
        let name = object.reference();
        match self.read(secret) {
            Ok(key) => {
                // The same as before stays the same, so that visitors' sessions do too.
                let same = before.filter(|it| it.cert == key.cert);
                self.held.insert(name, same.unwrap_or_else(|| Arc::new(key)));
                None
            }
            Err(why) => Some((name, why)),
        }
    }

    /// A certificate and its key. Errors never tell what the Secret holds.
    fn read(&self, secret: &Secret) -> Result<CertifiedKey, String> {
        let data = |key: &str| {
            let bytes = secret.data.as_ref().and_then(|it| it.get(key)).map(|it| it.0.as_slice());
            let text = secret.string_data.as_ref().and_then(|it| it.get(key));
            bytes.or(text.map(String::as_bytes)).ok_or_else(|| format!("has no `{key}`"))
        };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(data("tls.crt")?).collect();
        let chain = chain.map_err(|_| "has malformed PEM in `tls.crt`".to_owned())?;
        if chain.is_empty() {
            return Err("has no PEM certificate in `tls.crt`".to_owned());
        }
        let key = PrivateKeyDer::from_pem_slice(data("tls.key")?);
        let key = key.map_err(|_| "has malformed PEM in `tls.key`".to_owned())?;
        CertifiedKey::from_der(chain, key, &self.provider)
            .map_err(|error| format!("cannot end TLS: {error}"))
    }

    /// How TLS ends for the backends of a publication, as far as there are certificates. Where
    /// nothing has changed since the last call, visitors can resume their sessions.
    pub(crate) fn ends(&mut self, publication: &Publication) -> TlsEnds {
        let mut before = std::mem::take(&mut self.ends);
        for end in publication.backends.values().filter_map(|it| it.tls.as_ref()) {
            if self.ends.contains_key(end) {
                continue;
            }
            let keys = end.certificates.iter().filter_map(|it| self.held.get(it)).cloned();
            let chosen = Chosen(keys.collect());
            let kept = before.remove(end).filter(|(it, _)| it.is(&chosen));
            let Some(ready) = kept.or_else(|| self.end(end, chosen)) else { continue };
            self.ends.insert(end.clone(), ready);
        }
        self.ends.iter().map(|(end, (_, config))| (end.clone(), Arc::clone(config))).collect()
    }

    fn end(&self, end: &TlsEnd, chosen: Chosen) -> Option<(Arc<Chosen>, Arc<ServerConfig>)> {
        if chosen.0.is_empty() {
            return None;
        }
        let chosen = Arc::new(chosen);
        let config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .ok()?
            .with_no_client_auth();
        let mut config = config.with_cert_resolver(Arc::clone(&chosen) as _);
        if end.http {
            config.alpn_protocols.push(HTTP.to_vec());
        }
        Some((chosen, Arc::new(config)))
    }
}

/// The certificates of one end, the preferred one first.
struct Chosen(Vec<Arc<CertifiedKey>>);

impl Chosen {
    fn is(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(|(a, b)| Arc::ptr_eq(a, b))
    }
}

impl fmt::Debug for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} certificates", self.0.len())
    }
}

impl ResolvesServerCert for Chosen {
    /// The first that is for the name and that the visitor can check; else the first that it can
    /// check: it will say itself that the name is another one.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fits =
            |it: &&Arc<CertifiedKey>| it.key.choose_scheme(hello.signature_schemes()).is_some();
        let name = hello.server_name().and_then(|it| ServerName::try_from(it).ok());
        let is_for = |it: &&Arc<CertifiedKey>| {
            let certificate = it.cert.first().and_then(|it| EndEntityCert::try_from(it).ok());
            certificate.zip(name.as_ref()).is_some_and(|(certificate, name)| {
                certificate.verify_is_valid_for_subject_name(name).is_ok()
            })
        };
        let mut fitting = self.0.iter().filter(fits);
        let found = fitting.clone().find(is_for).or_else(|| fitting.next());
        found.cloned()
    }
}

#[cfg(test)]
pub(crate) mod tests;
