//! The certificates of one cluster: an authority, and what it issues.

use std::net::IpAddr;

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

/// A certificate or a public key with its private key, as PEM.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub(super) public: String,
    pub(super) key: String,
}

/// The authority that signs everything in one cluster.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The authority's own certificate and key; the controller-manager signs with them too.
    pub(super) pair: Pair,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes a new authority.
    pub(super) fn new() -> anyhow::Result<Self> {
        let key = KeyPair::generate().context("cannot make a key")?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "portcullis-testbed");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let certificate = params.self_signed(&key).context("cannot sign the authority")?;
        let pair = Pair { public: certificate.pem(), key: key.serialize_pem() };
        Ok(Self { issuer: Issuer::new(params, key), pair })
    }

    /// Issues a server certificate.
    pub(super) fn server(&self, names: &[&str], addresses: &[IpAddr]) -> anyhow::Result<Pair> {
        let mut params =
            CertificateParams::new(names.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>())
                .context("a server's name is not a DNS name")?;
        params.subject_alt_names.extend(addresses.iter().map(|it| SanType::IpAddress(*it)));
        params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        self.issue(params, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// Issues a client certificate: Kubernetes takes the common name for the user and the organisations for groups.
    pub(super) fn client(&self, user: &str, groups: &[&str]) -> anyhow::Result<Pair> {
        // A distinguished name here holds one value per type.
        anyhow::ensure!(groups.len() <= 1, "a test user is in one group at most");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, user);
        for group in groups {
            params.distinguished_name.push(DnType::OrganizationName, *group);
        }
        self.issue(params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn issue(
        &self,
        mut params: CertificateParams,
        usage: ExtendedKeyUsagePurpose,
    ) -> anyhow::Result<Pair> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().context("cannot make a key")?;
        let certificate =
            params.signed_by(&key, &self.issuer).context("cannot sign a certificate")?;
        Ok(Pair { public: certificate.pem(), key: key.serialize_pem() })
    }
}

/// A key pair without a certificate, for service account tokens.
pub(super) fn bare_pair() -> anyhow::Result<Pair> {
    let key = KeyPair::generate().context("cannot make a key")?;
    Ok(Pair { public: key.public_key_pem(), key: key.serialize_pem() })
}
