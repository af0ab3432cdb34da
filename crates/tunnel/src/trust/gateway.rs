//! The gateway's side: a certificate and a trust of its own for each cluster that it serves.

mod door;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use tunnel_proto::message::Certificate;

use super::credentials::{Credentials, Requested, self_signed};
use super::verify::{MOST_AUTHORITIES, acceptable, verify};
use super::{
    Identity, Lifespan, OneTimeSecret, Pin, Role, SecretOffer, StateDirectory, TrustError, alpn,
    provider,
};
use crate::peer::ServerHandshakes;

/// What a gateway's configuration says about one cluster.
#[derive(Clone, Debug)]
pub struct ClusterTrust {
    /// The cluster's name.
    pub cluster: String,
    /// The gateway's own name there.
    pub gateway: String,
    /// The cluster's authorities, as far as the gateway was told when it was set up. They count
    /// until it has been adopted; then it knows better.
    pub pins: Vec<Pin>,
    /// Who may adopt it.
    pub offer: Option<SecretOffer>,
}

/// How a gateway stands with one cluster.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Standing {
    /// Who it is there.
    pub identity: Identity,
    /// From when until when its certificate counts; `None` before it has been adopted.
    pub certificate: Option<Lifespan>,
    /// The authorities that it trusts.
    pub authorities: Vec<Pin>,
    /// Whether it can be adopted at the moment.
    pub adoptable: bool,
}

/// Certificates and trust of a gateway. Everything here can change while connections go on.
#[derive(Debug)]
pub struct GatewayTrust {
    directory: StateDirectory,
    members: RwLock<BTreeMap<String, Member>>,
    /// What it shows while it is adopted.
    unproven: Arc<CertifiedKey>,
    /// Held while something new is checked and saved.
    saving: Mutex<()>,
}

#[derive(Debug)]
struct Member {
    identity: Identity,
    pins: Vec<Pin>,
    offer: Option<SecretOffer>,
    credentials: Option<Credentials>,
    authorities: Vec<CertificateDer<'static>>,
    /// The request that has not been answered yet.
    requested: Option<Requested>,
}

impl GatewayTrust {
    /// Reads what the directory has about these clusters.
    ///
    /// # Errors
    ///
    /// When two clusters have one name, a name is not acceptable, or a file cannot be read.
    pub fn open(
        directory: StateDirectory,
        clusters: Vec<ClusterTrust>,
    ) -> Result<Arc<Self>, TrustError> {
        let trust = Self {
            directory,
            members: RwLock::new(BTreeMap::new()),
            unproven: Arc::new(self_signed()?),
            saving: Mutex::default(),
        };
        trust.configure(clusters)?;
        Ok(Arc::new(trust))
    }

    /// Serves these clusters from now on, and no others. What has been learnt about a cluster that
    /// stays is kept.
    ///
    /// # Errors
    ///
    /// As [`GatewayTrust::open`]; nothing changes then.
    pub fn configure(&self, clusters: Vec<ClusterTrust>) -> Result<(), TrustError> {
        let mut members = BTreeMap::new();
        for ClusterTrust { cluster, gateway, pins, offer } in clusters {
            let identity = Identity::new(&cluster, Role::Gateway, &gateway)?;
            let kept = self.directory.load(&cluster)?;
            let (credentials, authorities) =
                kept.map_or((None, Vec::new()), |it| (Some(it.credentials), it.authorities));
            let member =
                Member { identity, pins, offer, credentials, authorities, requested: None };
            if members.insert(cluster.clone(), member).is_some() {
                let why = "the gateway's configuration has two clusters of this name";
                return Err(TrustError::Identity { text: cluster, why });
            }
        }
        *self.write() = members;
        Ok(())
    }

    /// What the TLS handshakes of every carrier need. ALPN lists everything in [`alpn`]; each
    /// carrier takes what is its own.
    ///
    /// # Errors
    ///
    /// When the system gives no randomness.
    pub fn handshakes(self: &Arc<Self>) -> Result<Arc<dyn ServerHandshakes>, TrustError> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(TrustError::make)?
            .with_client_cert_verifier(Arc::new(door::Agents(Arc::clone(self))))
            .with_cert_resolver(Arc::new(door::Certificates(Arc::clone(self))));
        config.alpn_protocols = alpn::ALL.iter().map(|it| it.to_vec()).collect();
        // Resumption saves flow connections the certificates; nothing is kept here for it. Whoever
        // accepts asks `peer` again, because a ticket outlives what it was given for. No early
        // data: it could be replayed.
        config.ticketer = Ticketer::new().map_err(TrustError::make)?;
        config.send_tls13_tickets = 1;
        config.max_early_data_size = 0;
        Ok(Arc::new(door::Door { trust: Arc::clone(self), config: Arc::new(config) }))
    }

    /// Whose certificates these are, if they are an agent's of a cluster that is served here.
    /// For every accepted connection, because a resumed one shows certificates that nobody has
    /// checked today.
    ///
    /// # Errors
    ///
    /// When there is none, or one that does not count (any more).
    pub fn agent(
        &self,
        chain: &[CertificateDer<'_>],
        now: SystemTime,
    ) -> Result<Identity, TrustError> {
        let (certificate, others) = chain
            .split_first()
            .ok_or_else(|| TrustError::Certificate("the other side shows none".to_owned()))?;
        let claimed = super::identity_of(certificate)?;
        let members = self.read();
        let member = find(&members, claimed.cluster())?;
        let mut authorities = member.authorities.clone();
        // An authority that a known one has signed counts before anybody has told of it: else an
        // agent that starts while authorities change could tell nobody.
        if !others.is_empty() {
            let counts = member.pins_count(&self.directory, now);
            let pins = if counts { member.pins.as_slice() } else { &[] };
            let cluster = claimed.cluster();
            authorities.extend(acceptable(cluster, &member.authorities, pins, others));
        }
        let identity = verify(certificate, &authorities, now)?;
        match identity.role() {
            Role::Agent => Ok(identity),
            Role::Gateway => {
                let expected = format!("an agent of cluster {}", identity.cluster());
                Err(TrustError::WrongIdentity { expected, found: identity })
            }
        }
    }

    /// How the gateway stands with each cluster.
    #[must_use]
    pub fn standings(&self, now: SystemTime) -> Vec<Standing> {
        let members = self.read();
        let standings = members.values().map(|it| Standing {
            identity: it.identity.clone(),
            certificate: it.credentials.as_ref().map(|it| it.lifespan),
            authorities: it.authorities.iter().map(Pin::of).collect(),
            adoptable: it.open_offer(&self.directory, now).is_some(),
        });
        standings.collect()
    }

    /// Who the gateway is in this cluster.
    ///
    /// # Errors
    ///
    /// When the cluster is not served here.
    pub fn identity(&self, cluster: &str) -> Result<Identity, TrustError> {
        Ok(find(&self.read(), cluster)?.identity.clone())
    }

    /// When the next certificate should be renewed, of whichever cluster.
    #[must_use]
    pub fn next_renewal(&self) -> Option<SystemTime> {
        let members = self.read();
        members.values().filter_map(Member::renewal).min()
    }

    /// The request to ask an agent of this cluster with, when the certificate should be renewed
    /// at `now`: two thirds of its life are over, or an authority has begun to sign that did not
    /// sign it. The same request until it is answered, so that several agents may be asked.
    ///
    /// # Errors
    ///
    /// When the cluster is not served here, or no key can be made.
    pub fn renewal(&self, cluster: &str, now: SystemTime) -> Result<Option<Vec<u8>>, TrustError> {
        let due = find(&self.read(), cluster)?.renewal().is_some_and(|it| it <= now);
        if due { self.request(cluster).map(Some) } else { Ok(None) }
    }

    /// A request for a certificate in this cluster, for a key that never leaves the gateway.
    ///
    /// # Errors
    ///
    /// When the cluster is not served here, or no key can be made.
    pub fn request(&self, cluster: &str) -> Result<Vec<u8>, TrustError> {
        let mut members = self.write();
        let member = members.get_mut(cluster).ok_or_else(|| unknown(cluster))?;
        if member.requested.is_none() {
            member.requested = Some(Requested::new(&member.identity)?);
        }
        Ok(member.requested.as_ref().map(|it| it.request.clone()).unwrap_or_default())
    }

    /// Takes a certificate and the authorities to trust from an agent of this cluster: the answer
    /// to a request, or new authorities alone, and the present certificate stays. It is on disk when
    /// this returns, and every new connection shows it. Says whether anything is new in it.
    ///
    /// # Errors
    ///
    /// When nobody asked, when it is not the gateway's own, when none of the authorities signed
    /// it, or when one of these is neither known nor the signed successor of a known one. Nothing
    /// changes then.
    pub fn install(
        &self,
        cluster: &str,
        given: &Certificate,
        now: SystemTime,
    ) -> Result<bool, TrustError> {
        let _one_at_a_time = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let authorities: Vec<_> =
            given.authorities.iter().map(|it| CertificateDer::from(it.to_vec())).collect();
        let credentials = {
            let members = self.read();
            let member = find(&members, cluster)?;
            let credentials = member.check(&self.directory, given, now)?;
            let before = member.credentials.as_ref().map(|it| &it.certificate);
            if before == Some(&credentials.certificate) && authorities == member.authorities {
                return Ok(false);
            }
            credentials
        };
        // Handshakes wait for nothing here: a busy disk takes its time.
        self.directory.save(cluster, &credentials, &authorities)?;
        let mut members = self.write();
        let member = members.get_mut(cluster).ok_or_else(|| unknown(cluster))?;
        if member.requested.as_ref().is_some_and(|it| it.answers(&credentials.certificate)) {
            member.requested = None;
        }
        member.credentials = Some(credentials);
        member.authorities = authorities;
        Ok(true)
    }

    /// Says whether [`GatewayTrust::install`] would take it.
    ///
    /// # Errors
    ///
    /// As [`GatewayTrust::install`].
    pub fn check(
        &self,
        cluster: &str,
        given: &Certificate,
        now: SystemTime,
    ) -> Result<(), TrustError> {
        find(&self.read(), cluster)?.check(&self.directory, given, now).map(|_| ())
    }

    /// The offer under which this cluster may adopt the gateway at `now`, if there is one.
    #[must_use]
    pub fn open_offer(&self, cluster: &str, now: SystemTime) -> Option<SecretOffer> {
        self.read().get(cluster).and_then(|it| it.open_offer(&self.directory, now))
    }

    /// Burns one use of the cluster's one-time secret; `false` when `secret` is not it, or it has
    /// no use left or no time. On disk when this returns.
    ///
    /// # Errors
    ///
    /// When the cluster is not served here, or the disk does not take it.
    pub fn redeem(
        &self,
        cluster: &str,
        secret: &OneTimeSecret,
        now: SystemTime,
    ) -> Result<bool, TrustError> {
        let offer = find(&self.read(), cluster)?.open_offer(&self.directory, now);
        match offer {
            Some(offer) if offer.hash.matches(secret) => self.directory.redeem(cluster, &offer),
            Some(_) | None => Ok(false),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<String, Member>> {
        self.members.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<String, Member>> {
        self.members.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member {
    fn open_offer(&self, directory: &StateDirectory, now: SystemTime) -> Option<SecretOffer> {
        let cluster = self.identity.cluster();
        self.offer.filter(|it| now < it.expires && directory.redemptions_left(cluster, it) > 0)
    }

    /// A pin from the day the gateway was set up must not outlive the authority that it names.
    fn pins_count(&self, directory: &StateDirectory, now: SystemTime) -> bool {
        self.authorities.is_empty() || self.open_offer(directory, now).is_some()
    }

    fn renewal(&self) -> Option<SystemTime> {
        let credentials = self.credentials.as_ref()?;
        let signer = self.authorities.first()?;
        let begin = credentials.lifespan.begin;
        // By the authority that signs now, or it is time.
        match verify(&credentials.certificate, std::slice::from_ref(signer), begin) {
            Ok(_) => Some(credentials.lifespan.renewal()),
            Err(_) => Some(begin),
        }
    }

    fn check(
        &self,
        directory: &StateDirectory,
        given: &Certificate,
        now: SystemTime,
    ) -> Result<Credentials, TrustError> {
        let cluster = self.identity.cluster();
        let certificate = CertificateDer::from(given.certificate.clone());
        let credentials = match (&self.requested, &self.credentials) {
            (_, Some(present))
                if given.certificate.is_empty() || present.certificate == certificate =>
            {
                present.clone()
            }
            (Some(it), _) if it.answers(&certificate) => Credentials::new(&it.key, certificate)?,
            _ => return Err(TrustError::NotWanted),
        };
        let authorities: Vec<_> =
            given.authorities.iter().map(|it| CertificateDer::from(it.as_slice())).collect();
        let pins = if self.pins_count(directory, now) { self.pins.as_slice() } else { &[] };
        let accepted = acceptable(cluster, &self.authorities, pins, &authorities);
        if authorities.len() > MOST_AUTHORITIES
            || !authorities.iter().all(|it| accepted.iter().any(|accepted| accepted == it))
        {
            let why = "an authority came along that no trusted one has signed".to_owned();
            return Err(TrustError::WrongAuthority { cluster: cluster.to_owned(), why });
        }
        let found = verify(&credentials.certificate, &authorities, now)?;
        if found != self.identity {
            let expected = self.identity.to_string();
            return Err(TrustError::WrongIdentity { expected, found });
        }
        Ok(credentials)
    }
}

fn find<'a>(
    members: &'a BTreeMap<String, Member>,
    cluster: &str,
) -> Result<&'a Member, TrustError> {
    members.get(cluster).ok_or_else(|| unknown(cluster))
}

fn unknown(cluster: &str) -> TrustError {
    TrustError::UnknownCluster(cluster.to_owned())
}
