//! Whoever signs certificates.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use rustls::pki_types::CertificateDer;

use super::{Authorities, Identity, Issued, TrustError};

/// Signs certificates for agents and gateways of one cluster.
pub trait Signer: fmt::Debug + Send + Sync {
    /// The cluster.
    fn cluster(&self) -> String;

    /// Signs a request (PKCS #10, DER) for `identity`. What the request says about names is not
    /// looked at; who may have which name, the caller knows.
    fn sign(
        &self,
        request: Vec<u8>,
        identity: Identity,
        lifetime: Duration,
    ) -> BoxFuture<'_, Result<Issued, TrustError>>;

    /// Every authority to trust now; the one that signs comes first.
    fn authorities(&self) -> BoxFuture<'_, Result<Vec<CertificateDer<'static>>, TrustError>>;
}

/// Signs with keys that are here. The keys can be replaced, as when a Secret or a file changes.
#[derive(Debug)]
pub struct LocalSigner(RwLock<Arc<Authorities>>);

impl LocalSigner {
    /// Signs with these.
    #[must_use]
    pub fn new(authorities: Authorities) -> Arc<Self> {
        Arc::new(Self(RwLock::new(Arc::new(authorities))))
    }

    /// Signs with these from now on.
    pub fn replace(&self, authorities: Authorities) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(authorities);
    }

    fn current(&self) -> Arc<Authorities> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Signer for LocalSigner {
    fn cluster(&self) -> String {
        self.current().cluster().to_owned()
    }

    fn sign(
        &self,
        request: Vec<u8>,
        identity: Identity,
        lifetime: Duration,
    ) -> BoxFuture<'_, Result<Issued, TrustError>> {
        let authorities = self.current();
        Box::pin(async move { authorities.sign(&request, &identity, lifetime, SystemTime::now()) })
    }

    fn authorities(&self) -> BoxFuture<'_, Result<Vec<CertificateDer<'static>>, TrustError>> {
        let authorities = self.current();
        Box::pin(async move { Ok(authorities.trusted(SystemTime::now())) })
    }
}
