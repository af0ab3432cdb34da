//! The agent's side: its own certificate, and whom it dials.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ConfigBuilder, WantsVerifier};

use tunnel_proto::message::Certificate;

use super::credentials::{Credentials, Requested};
use super::verify::{ExpectedGateway, UnprovenGateway, verify};
use super::{Identity, LIFETIME, Lifespan, Role, Signer, TrustError, alpn, provider, system_clock};
use crate::peer::ClientHandshakes;

/// The certificate of an agent, and what it trusts.
#[derive(Debug)]
pub struct AgentTrust {
    identity: Identity,
    signer: Arc<dyn Signer>,
    lifetime: Duration,
    current: RwLock<Current>,
}

#[derive(Debug)]
struct Current {
    credentials: Credentials,
    authorities: Vec<CertificateDer<'static>>,
    /// One configuration for each gateway: with it goes what resumption needs.
    configs: BTreeMap<String, Arc<ClientConfig>>,
}

/// What a connection to a gateway that has no certificate needs.
#[derive(Clone, Debug)]
pub struct Dial {
    /// The configuration.
    pub config: Arc<ClientConfig>,
    /// The name to ask for.
    pub server_name: ServerName<'static>,
    /// Who should answer.
    pub gateway: Identity,
}

impl AgentTrust {
    /// Makes a key and has a certificate signed for it.
    ///
    /// # Errors
    ///
    /// When the name is not acceptable or the signer does not sign.
    pub async fn new(signer: Arc<dyn Signer>, name: &str) -> Result<Arc<Self>, TrustError> {
        Self::with_lifetime(signer, name, LIFETIME).await
    }

    /// As [`AgentTrust::new`], with certificates that live for `lifetime`.
    ///
    /// # Errors
    ///
    /// As [`AgentTrust::new`].
    pub async fn with_lifetime(
        signer: Arc<dyn Signer>,
        name: &str,
        lifetime: Duration,
    ) -> Result<Arc<Self>, TrustError> {
        let identity = Identity::new(&signer.cluster(), Role::Agent, name)?;
        let current = obtain(&*signer, &identity, lifetime).await?;
        Ok(Arc::new(Self { identity, signer, lifetime, current: RwLock::new(current) }))
    }

    /// Who the agent is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Who signs, for agents and gateways alike.
    #[must_use]
    pub fn signer(&self) -> &Arc<dyn Signer> {
        &self.signer
    }

    /// How long certificates live that it asks for.
    #[must_use]
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// From when until when its certificate counts.
    #[must_use]
    pub fn lifespan(&self) -> Lifespan {
        self.read().credentials.lifespan
    }

    /// Every authority that is trusted; the one that signs comes first.
    #[must_use]
    pub fn authorities(&self) -> Vec<CertificateDer<'static>> {
        self.read().authorities.clone()
    }

    /// A new key and a new certificate. Connections that are open go on.
    ///
    /// # Errors
    ///
    /// When the signer does not sign; the present certificate stays.
    pub async fn renew(&self) -> Result<(), TrustError> {
        let current = obtain(&*self.signer, &self.identity, self.lifetime).await?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = current;
        Ok(())
    }

    /// Renews the certificate if two thirds of its life are over at `now` or another authority signs
    /// than the one that has signed it, and looks whether the authorities have changed; `true` when
    /// they have. Gateways should hear of it then.
    ///
    /// # Errors
    ///
    /// When the signer does not answer; everything stays.
    pub async fn refresh(&self, now: SystemTime) -> Result<bool, TrustError> {
        let authorities = self.signer.authorities().await?;
        let before = self.authorities();
        if self.lifespan().renewal() <= now || !self.is_signed_by(authorities.first()) {
            self.renew().await?;
        } else if authorities != before {
            let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
            current.authorities = authorities;
            current.configs.clear();
        }
        Ok(self.authorities() != before)
    }

    fn is_signed_by(&self, authority: Option<&CertificateDer<'static>>) -> bool {
        let current = self.read();
        let Credentials { certificate, lifespan, .. } = &current.credentials;
        verify(certificate, authority.map_or(&[], std::slice::from_ref), lifespan.begin).is_ok()
    }

    /// Answers a gateway that wants a certificate: for its own key, under the name that it has
    /// proved to have.
    ///
    /// # Errors
    ///
    /// When the request is unusable or the signer does not sign.
    pub async fn certify(
        &self,
        gateway: &Identity,
        request: Vec<u8>,
    ) -> Result<Certificate, TrustError> {
        if gateway.role() != Role::Gateway {
            let expected = "a gateway".to_owned();
            return Err(TrustError::WrongIdentity { expected, found: gateway.clone() });
        }
        let issued = self.signer.sign(request, gateway.clone(), self.lifetime).await?;
        Ok(given(&issued.certificate, &issued.authorities))
    }

    /// Tells a gateway of the authorities to trust from now on, while its certificate stays: for
    /// every gateway, after [`AgentTrust::refresh`] has said that they have changed.
    #[must_use]
    pub fn announcement(&self) -> Certificate {
        given(&[], &self.authorities())
    }

    /// What handshakes with this gateway of the cluster need, with whatever certificate the agent
    /// has at the time.
    ///
    /// # Errors
    ///
    /// When the gateway's name is not acceptable.
    pub fn handshakes(
        self: &Arc<Self>,
        gateway: &str,
    ) -> Result<Arc<dyn ClientHandshakes>, TrustError> {
        let gateway = Identity::new(self.identity.cluster(), Role::Gateway, gateway)?;
        Ok(Arc::new(GatewayHandshakes { trust: Arc::clone(self), gateway }))
    }

    pub(super) fn config(&self, gateway: &Identity) -> Arc<ClientConfig> {
        if let Some(config) = self.read().configs.get(gateway.name()) {
            return Arc::clone(config);
        }
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let verifier = Arc::new(ExpectedGateway {
            expected: gateway.clone(),
            authorities: current.authorities.clone(),
        });
        // While one authority follows another, the gateway may know the older alone: it is shown
        // the newer one, which the older has signed.
        let shown = match current.authorities.len() {
            0 | 1 => Err(()),
            _ => current.credentials.tls_with(&current.authorities).map_err(|_| ()),
        };
        let shown = shown.map_or_else(|()| current.credentials.tls(), Arc::new);
        let mut config = only_tls13()
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(resolver(shown));
        config.resumption = Resumption::in_memory_sessions(2);
        // The carrier over TLS has a record layer of its own.
        config.enable_secret_extraction = true;
        let config = Arc::new(config);
        current.configs.insert(gateway.name().to_owned(), Arc::clone(&config));
        config
    }

    /// How to dial a gateway that has no certificate yet. The configuration accepts everyone who
    /// answers; only [`crate::adoption`] may follow.
    ///
    /// # Errors
    ///
    /// When the gateway's name is not acceptable.
    pub fn dial_unproven(&self, gateway: &str) -> Result<Dial, TrustError> {
        let gateway = Identity::new(self.identity.cluster(), Role::Gateway, gateway)?;
        let current = self.read();
        // The gateway has pins and no certificates: it needs to see those.
        let shown = current.credentials.tls_with(&current.authorities)?;
        let mut config = only_tls13()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(UnprovenGateway))
            .with_client_cert_resolver(resolver(Arc::new(shown)));
        config.alpn_protocols = vec![alpn::ADOPT.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Dial { config: Arc::new(config), server_name: gateway.server_name(), gateway })
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The handshakes with one gateway.
#[derive(Debug)]
struct GatewayHandshakes {
    trust: Arc<AgentTrust>,
    gateway: Identity,
}

impl ClientHandshakes for GatewayHandshakes {
    fn config(&self) -> Arc<ClientConfig> {
        self.trust.config(&self.gateway)
    }

    fn server_name(&self) -> ServerName<'static> {
        self.gateway.server_name()
    }

    /// Checks again: a resumed connection shows certificates that nobody has checked today.
    fn peer(&self, chain: &[CertificateDer<'_>]) -> Option<Identity> {
        let authorities = self.trust.authorities();
        let found = verify(chain.first()?, &authorities, system_clock());
        let found = found.inspect_err(|error| tracing::info!(%error, "a gateway is refused"));
        found.ok().filter(|it| *it == self.gateway)
    }
}

fn given(certificate: &[u8], authorities: &[CertificateDer<'_>]) -> Certificate {
    let authorities = authorities.iter().map(|it| it.to_vec().into()).collect();
    Certificate { certificate: certificate.to_vec(), authorities }
}

fn only_tls13() -> ConfigBuilder<ClientConfig, WantsVerifier> {
    // The provider has nothing else.
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap_or_else(|error| unreachable!("the provider speaks TLS 1.3: {error}"))
}

async fn obtain(
    signer: &dyn Signer,
    identity: &Identity,
    lifetime: Duration,
) -> Result<Current, TrustError> {
    let requested = Requested::new(identity)?;
    let issued = signer.sign(requested.request.clone(), identity.clone(), lifetime).await?;
    if !requested.answers(&issued.certificate) {
        return Err(TrustError::Signer("it signed another key than ours".to_owned()));
    }
    Ok(Current {
        credentials: Credentials::new(&requested.key, issued.certificate)?,
        authorities: issued.authorities,
        configs: BTreeMap::new(),
    })
}

fn resolver(certified: Arc<CertifiedKey>) -> Arc<SingleCertAndKey> {
    Arc::new(SingleCertAndKey::from(certified))
}
