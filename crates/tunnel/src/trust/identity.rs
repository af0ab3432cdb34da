//! Names in certificates.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use rustls::pki_types::{CertificateDer, ServerName};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::TrustError;
use crate::peer::{Identity, Role};

const SCHEME: &str = "portcullis://";

impl Identity {
    /// Puts an identity together; in certificates it is `portcullis://CLUSTER/agent/NAME` or
    /// `portcullis://CLUSTER/gateway/NAME`, as a URI in the subject alternative name (RFC 5280
    /// section 4.2.1.6). An agent's name is its pod's, a gateway's that of the `EdgeGateway`.
    ///
    /// # Errors
    ///
    /// When the cluster is not a DNS label, or the name not a DNS subdomain (RFC 1123, lower case).
    pub fn new(cluster: &str, role: Role, name: &str) -> Result<Self, TrustError> {
        let refuse = |text: &str, why| TrustError::Identity { text: text.to_owned(), why };
        if !is_cluster_name(cluster) {
            return Err(refuse(
                cluster,
                "a cluster has a name of up to 63 lower case letters, digits and -",
            ));
        }
        if name.len() > 253 || !name.split('.').all(is_label) {
            return Err(refuse(name, "expected lower case letters, digits, - and ."));
        }
        Ok(Self::of(cluster, role, name))
    }

    /// The name that a dialler asks for in its TLS greeting, by which a gateway of several
    /// clusters finds the right certificate. A digest: who watches the wire learns no names.
    #[must_use]
    pub fn server_name(&self) -> ServerName<'static> {
        let digest = digest::digest(&digest::SHA256, self.to_string().as_bytes());
        let label = hex(&digest.as_ref()[..16]);
        ServerName::try_from(format!("{label}.portcullis.internal"))
            .unwrap_or(ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into()))
    }
}

impl FromStr for Identity {
    type Err = TrustError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = |why| TrustError::Identity { text: text.chars().take(200).collect(), why };
        let rest = text.strip_prefix(SCHEME).ok_or(refuse("expected portcullis://"))?;
        let mut parts = rest.splitn(3, '/');
        let (Some(cluster), Some(role), Some(name)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(refuse("expected portcullis://CLUSTER/ROLE/NAME"));
        };
        let role = match role {
            "agent" => Role::Agent,
            "gateway" => Role::Gateway,
            _ => return Err(refuse("expected the role agent or gateway")),
        };
        Self::new(cluster, role, name)
    }
}

/// Whether a cluster may be called so.
pub(super) fn is_cluster_name(text: &str) -> bool {
    is_label(text)
}

/// A DNS label of RFC 1123 in lower case.
fn is_label(text: &str) -> bool {
    let plain = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(plain)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// The URI of the authority of a cluster.
pub(super) fn authority_uri(cluster: &str) -> String {
    format!("{SCHEME}{cluster}")
}

/// Whose certificate it is. Says nothing about whether somebody trustworthy has signed it.
///
/// # Errors
///
/// When it does not hold exactly one URI, and that an [`Identity`].
pub fn identity_of(certificate: &CertificateDer<'_>) -> Result<Identity, TrustError> {
    uri_of(certificate)?.parse()
}

/// The cluster whose authority has this certificate.
pub(super) fn cluster_of_authority(certificate: &CertificateDer<'_>) -> Result<String, TrustError> {
    let uri = uri_of(certificate)?;
    let cluster = uri.strip_prefix(SCHEME).filter(|it| is_cluster_name(it));
    let cluster = cluster.ok_or_else(|| TrustError::Identity {
        text: uri.chars().take(200).collect(),
        why: "expected the URI of an authority, portcullis://CLUSTER",
    })?;
    if !parse(certificate)?.is_ca() {
        return Err(TrustError::certificate("it is not the certificate of an authority"));
    }
    Ok(cluster.to_owned())
}

fn uri_of(certificate: &CertificateDer<'_>) -> Result<String, TrustError> {
    let parsed = parse(certificate)?;
    let names = parsed.subject_alternative_name().map_err(TrustError::certificate)?;
    let names = names.map(|it| it.value.general_names.as_slice()).unwrap_or_default();
    match names {
        [GeneralName::URI(uri)] => Ok((*uri).to_owned()),
        [] => Err(TrustError::certificate("it names nobody")),
        _ => Err(TrustError::certificate("it holds other names than one URI")),
    }
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, TrustError> {
    let (rest, parsed) =
        X509Certificate::from_der(certificate.as_ref()).map_err(TrustError::certificate)?;
    if !rest.is_empty() {
        return Err(TrustError::certificate("something follows it"));
    }
    Ok(parsed)
}

/// From when until when a certificate counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Lifespan {
    /// From this second on.
    pub begin: SystemTime,
    /// Until this second.
    pub end: SystemTime,
}

impl Lifespan {
    /// When it should be renewed: after two thirds.
    #[must_use]
    pub fn renewal(&self) -> SystemTime {
        let whole = self.end.duration_since(self.begin).unwrap_or_default();
        self.begin + whole * 2 / 3
    }

    /// Whether it counts at `now`.
    #[must_use]
    pub fn holds(&self, now: SystemTime) -> bool {
        (self.begin..=self.end).contains(&now)
    }
}

/// From when until when a certificate counts.
///
/// # Errors
///
/// When it is no certificate.
pub fn lifespan_of(certificate: &CertificateDer<'_>) -> Result<Lifespan, TrustError> {
    let parsed = parse(certificate)?;
    let at = |seconds: i64| {
        SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
    };
    let validity = parsed.validity();
    Ok(Lifespan {
        begin: at(validity.not_before.timestamp()),
        end: at(validity.not_after.timestamp()),
    })
}

/// The public key of a certificate (SubjectPublicKeyInfo, DER).
pub(super) fn public_key_of(certificate: &CertificateDer<'_>) -> Result<Vec<u8>, TrustError> {
    Ok(parse(certificate)?.public_key().raw.to_vec())
}

/// The name for people in a certificate.
pub(super) fn common_name_of(certificate: &CertificateDer<'_>) -> Result<String, TrustError> {
    let parsed = parse(certificate)?;
    let name = parsed.subject().iter_common_name().next().and_then(|it| it.as_str().ok());
    name.map(str::to_owned).ok_or_else(|| TrustError::certificate("it has no common name"))
}

/// The SHA-256 digest of an authority's certificate (DER): `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Pin([u8; 32]);

impl Pin {
    /// The pin of this certificate.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(sha256(certificate.as_ref()))
    }

    /// From a digest that was read elsewhere.
    #[must_use]
    pub fn from_digest(digest: [u8; 32]) -> Self {
        Self(digest)
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex(&self.0))
    }
}

impl FromStr for Pin {
    type Err = TrustError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        digest_from(text).map(Self)
    }
}

/// Reads `sha256:` and 64 hexadecimal digits.
pub(super) fn digest_from(text: &str) -> Result<[u8; 32], TrustError> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    unhex(digits).ok_or_else(|| TrustError::Digest(text.chars().take(100).collect()))
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut result = [0; 32];
    result.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    result
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|it| format!("{it:02x}")).collect()
}

pub(super) fn unhex(digits: &str) -> Option<[u8; 32]> {
    if digits.len() != 64 || !digits.bytes().all(|it| it.is_ascii_hexdigit()) {
        return None;
    }
    let mut result = [0; 32];
    for (byte, pair) in result.iter_mut().zip(digits.as_bytes().chunks(2)) {
        let pair = std::str::from_utf8(pair).ok()?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(result)
}
