//! The cluster's authority: keys that sign certificates, and how one follows another.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};

use super::credentials::{Section, certificate_pem, key_pair, key_pem, sections};
use super::identity::{
    authority_uri, cluster_of_authority, common_name_of, is_cluster_name, public_key_of,
};
use super::{Identity, LIFETIME, Pin, Role, TrustError, lifespan_of};

/// How long an authority itself lives. Clusters that live longer rotate it earlier anyway.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// How far clocks of machines may lie behind ours, at most; a twenty-fourth of the lifetime of
/// what is signed when that is less.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// What the common name of an authority begins with; its number and its cluster follow.
const COMMON_NAME: &str = "Portcullis authority";

/// The longest request that is looked at, in bytes. Ours have about 200.
const LONGEST_REQUEST: usize = 4096;

/// A key that signs certificates for one cluster, and the certificate of that key.
#[derive(Clone)]
pub struct Authority {
    certificate: CertificateDer<'static>,
    key: Arc<KeyPair>,
}

impl Authority {
    /// Makes one for a cluster: ECDSA on P-256. It signs from `begin` on.
    ///
    /// # Errors
    ///
    /// When the cluster's name is not a DNS label, or the system gives no randomness.
    pub fn create(cluster: &str, begin: SystemTime) -> Result<Self, TrustError> {
        Self::make(cluster, begin, None)
    }

    /// Makes one whose certificate is signed by its predecessor, so that who trusts that one can
    /// trust it.
    fn make(
        cluster: &str,
        begin: SystemTime,
        predecessor: Option<&Self>,
    ) -> Result<Self, TrustError> {
        if !is_cluster_name(cluster) {
            let why = "a cluster has a name of up to 63 lower case letters, digits and -";
            return Err(TrustError::Identity { text: cluster.to_owned(), why });
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(TrustError::make)?;
        // No two authorities of a cluster have the same name: certificates lead to one of them.
        let number = predecessor.map_or(Ok(1), |it| it.number().map(|it| it + 1))?;
        let uri = authority_uri(cluster);
        let mut params = named(&format!("{COMMON_NAME} {number} {cluster}"), &uri)?;
        params.not_before = begin.into();
        params.not_after = (begin + AUTHORITY_LIFETIME).into();
        // It signs certificates of machines and no further authorities.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = match predecessor {
            None => params.self_signed(&key),
            Some(it) => params.signed_by(&key, &it.issuer()?),
        };
        let certificate = certificate.map_err(TrustError::make)?;
        Ok(Self { certificate: certificate.der().clone(), key: Arc::new(key) })
    }

    /// Which one of its cluster it is, counted from 1.
    fn number(&self) -> Result<u32, TrustError> {
        let name = common_name_of(&self.certificate)?;
        let number = name.strip_prefix(COMMON_NAME).and_then(|it| it.split(' ').nth(1));
        number
            .and_then(|it| it.parse().ok())
            .ok_or_else(|| TrustError::certificate("it is not one of our authorities"))
    }

    fn issuer(&self) -> Result<Issuer<'_, &KeyPair>, TrustError> {
        Issuer::from_ca_cert_der(&self.certificate, &*self.key).map_err(TrustError::make)
    }

    /// Its certificate.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Its pin.
    #[must_use]
    pub fn pin(&self) -> Pin {
        Pin::of(&self.certificate)
    }

    fn sign(
        &self,
        request: &[u8],
        identity: &Identity,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<CertificateDer<'static>, TrustError> {
        if request.len() > LONGEST_REQUEST {
            return Err(TrustError::Request("it is too long".to_owned()));
        }
        let request = CertificateSigningRequestDer::from(request);
        let mut request = CertificateSigningRequestParams::from_der(&request)
            .map_err(|error| TrustError::Request(error.to_string()))?;
        if *request.public_key.algorithm() != PKCS_ECDSA_P256_SHA256 {
            return Err(TrustError::Request("expected an ECDSA key on P-256".to_owned()));
        }
        // Only the key is the requester's to say.
        let mut params = named(identity.name(), &identity.to_string())?;
        params.not_before = (now - CLOCK_SKEW.min(lifetime / 24)).into();
        params.not_after = (now + lifetime).into();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match identity.role() {
            Role::Agent => ExtendedKeyUsagePurpose::ClientAuth,
            Role::Gateway => ExtendedKeyUsagePurpose::ServerAuth,
        }];
        params.use_authority_key_identifier_extension = true;
        request.params = params;
        let certificate = request.signed_by(&self.issuer()?).map_err(TrustError::make)?;
        Ok(certificate.der().clone())
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({})", self.pin())
    }
}

/// A certificate, and what to trust with it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Issued {
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// Every authority to trust from now on; the one that signs comes first.
    pub authorities: Vec<CertificateDer<'static>>,
}

/// The authorities of one cluster, one following the other.
///
/// An authority signs from the beginning of its own certificate on, and until then is merely
/// trusted. So a new one is made to begin a [`LIFETIME`] later: by the time it signs, everybody who
/// renewed a certificate knows it. Its predecessor is trusted for another lifetime, until the
/// last certificate that it signed has ended, and then dropped. Nothing has to be remembered
/// between these steps.
///
/// The certificate of each is signed by its predecessor: a gateway accepts a new authority from
/// one that it knows, and from nobody else.
#[derive(Clone, Debug)]
pub struct Authorities {
    cluster: String,
    /// By beginning; never empty.
    all: Vec<Authority>,
}

impl Authorities {
    /// The first authority of a cluster.
    ///
    /// # Errors
    ///
    /// As [`Authority::create`].
    pub fn create(cluster: &str, now: SystemTime) -> Result<Self, TrustError> {
        let first = Authority::create(cluster, now - CLOCK_SKEW)?;
        Ok(Self { cluster: cluster.to_owned(), all: vec![first] })
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The authority that signs at `now`.
    #[must_use]
    pub fn signing(&self, now: SystemTime) -> &Authority {
        let begun = |it: &&Authority| begin(it) <= now;
        let newest = self.all.iter().rev().find(begun);
        newest.or(self.all.first()).unwrap_or_else(|| unreachable!("there is always one"))
    }

    /// The certificates to trust at `now`; that of the authority that signs comes first.
    #[must_use]
    pub fn trusted(&self, now: SystemTime) -> Vec<CertificateDer<'static>> {
        let signing = self.signing(now).certificate.clone();
        let others = self.kept(now).map(|it| it.certificate.clone());
        let others: Vec<_> = others.filter(|it| *it != signing).collect();
        std::iter::once(signing).chain(others).collect()
    }

    /// The pins of what is trusted at `now`, in the same order.
    #[must_use]
    pub fn pins(&self, now: SystemTime) -> Vec<Pin> {
        self.trusted(now).iter().map(Pin::of).collect()
    }

    /// Adds an authority that signs from `begin` on, and drops those that nobody needs any more.
    /// `now + LIFETIME` is the right beginning, unless the present key has been stolen: then
    /// `now`, with [`Authorities::retire`] once every gateway has a new certificate.
    ///
    /// # Errors
    ///
    /// As [`Authority::create`]; and when a new one already waits for its beginning.
    pub fn rotate(&self, begin_at: SystemTime, now: SystemTime) -> Result<Self, TrustError> {
        if self.all.iter().any(|it| begin(it) > now) {
            return Err(TrustError::Rotating);
        }
        let mut all: Vec<_> = self.kept(now).cloned().collect();
        all.push(Authority::make(&self.cluster, begin_at, all.last())?);
        Ok(Self { cluster: self.cluster.clone(), all })
    }

    /// Drops every authority but the one that signs and those that have yet to begin.
    #[must_use]
    pub fn retire(&self, now: SystemTime) -> Self {
        let signing = self.signing(now).pin();
        let keep = |it: &&Authority| it.pin() == signing || begin(it) > now;
        Self { cluster: self.cluster.clone(), all: self.all.iter().filter(keep).cloned().collect() }
    }

    /// When something changes by itself: an authority begins to sign, or one is dropped.
    #[must_use]
    pub fn next_change(&self, now: SystemTime) -> Option<SystemTime> {
        let changes = self.all.iter().skip(1).flat_map(|it| [begin(it), begin(it) + LIFETIME]);
        changes.filter(|it| *it > now).min()
    }

    /// Signs a request (PKCS #10, DER) for `identity`.
    ///
    /// # Errors
    ///
    /// When the request is broken or not signed by its own key, or when the identity belongs to
    /// another cluster.
    pub fn sign(
        &self,
        request: &[u8],
        identity: &Identity,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Issued, TrustError> {
        if identity.cluster() != self.cluster {
            let expected = format!("a member of cluster {}", self.cluster);
            return Err(TrustError::WrongIdentity { expected, found: identity.clone() });
        }
        let certificate = self.signing(now).sign(request, identity, lifetime, now)?;
        Ok(Issued { certificate, authorities: self.trusted(now) })
    }

    /// Certificates and keys as one text (RFC 7468), for a Secret or a file that nobody else
    /// reads.
    #[must_use]
    pub fn to_pem(&self) -> String {
        let pairs = self.all.iter().map(|it| {
            format!("{}{}", certificate_pem(&it.certificate), key_pem(it.key.serialized_der()))
        });
        pairs.collect()
    }

    /// Reads what [`Authorities::to_pem`] wrote. `place` names the text in messages.
    ///
    /// # Errors
    ///
    /// When there is no authority in it, or something else than pairs of a certificate and its
    /// key, or more than one cluster's.
    pub fn from_pem(place: &str, text: &str) -> Result<Self, TrustError> {
        let refuse = |why: &str| TrustError::Pem { place: place.to_owned(), why: why.to_owned() };
        let mut all = Vec::new();
        let mut cluster = None;
        let sections = sections(place, text)?;
        for pair in sections.chunks(2) {
            let [Section::Certificate(certificate), Section::Key(key)] = pair else {
                return Err(refuse("expected a certificate and its key, as often as needed"));
            };
            let key = key_pair(key).map_err(|error| refuse(&error.to_string()))?;
            if public_key_of(certificate)? != rcgen::PublicKeyData::subject_public_key_info(&key) {
                return Err(refuse("a key does not belong to the certificate before it"));
            }
            let found = cluster_of_authority(certificate)?;
            if cluster.get_or_insert_with(|| found.clone()) != &found {
                return Err(refuse("expected the authorities of one cluster"));
            }
            all.push(Authority { certificate: certificate.clone(), key: Arc::new(key) });
        }
        let cluster = cluster.ok_or_else(|| refuse("there is no authority"))?;
        all.sort_by_key(begin);
        Ok(Self { cluster, all })
    }

    /// Those that have not been replaced for longer than a certificate lives.
    fn kept(&self, now: SystemTime) -> impl Iterator<Item = &Authority> {
        let successors = self.all.iter().skip(1).map(Some).chain([None]);
        self.all.iter().zip(successors).filter_map(move |(it, next)| {
            let dropped = next.is_some_and(|next| begin(next) + LIFETIME < now);
            (!dropped).then_some(it)
        })
    }
}

/// When it begins to sign. A certificate that cannot be read begins never.
fn begin(authority: &Authority) -> SystemTime {
    lifespan_of(&authority.certificate)
        .map_or(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(u32::MAX)), |it| it.begin)
}

/// Parameters with a common name for people and one URI for programs.
pub(super) fn named(common_name: &str, uri: &str) -> Result<CertificateParams, TrustError> {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    // The longest that X.520 allows.
    name.push(DnType::CommonName, common_name.chars().take(64).collect::<String>());
    params.distinguished_name = name;
    params.subject_alt_names = vec![SanType::URI(uri.try_into().map_err(TrustError::make)?)];
    Ok(params)
}
