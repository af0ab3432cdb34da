//! What a gateway keeps on its disk: for each cluster one file with key, certificate and
//! authorities, and the one-time secrets that were redeemed.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;

use super::credentials::{Credentials, Section, certificate_pem, key_pair, sections};
use super::{SecretOffer, TrustError};

/// A directory that nobody but the gateway's own account can read.
///
/// ```text
/// clusters/CLUSTER/identity.pem         the gateway's key and certificate there, then the authorities
/// clusters/CLUSTER/redeemed/HASH-N      the Nth use of the one-time secret with this hash
/// ```
///
/// Files are replaced whole: after a crash there is the old one or the new one. Two processes may
/// use the directory at the same time, as they do while one hands over to the next.
#[derive(Clone, Debug)]
pub struct StateDirectory(PathBuf);

/// What is kept about one cluster.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) credentials: Credentials,
    pub(super) authorities: Vec<CertificateDer<'static>>,
}

impl StateDirectory {
    /// Uses the directory at `path`, and makes it if it is not there.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, TrustError> {
        let directory = Self(path.into());
        make_directory(&directory.0.join("clusters"))?;
        Ok(directory)
    }

    fn cluster(&self, cluster: &str) -> PathBuf {
        self.0.join("clusters").join(cluster)
    }

    pub(super) fn load(&self, cluster: &str) -> Result<Option<Kept>, TrustError> {
        let path = self.cluster(cluster).join("identity.pem");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(TrustError::File { verb: "read", path, source }),
        };
        let place = path.display().to_string();
        let mut parts = sections(&place, &text)?.into_iter();
        let (Some(Section::Key(key)), Some(Section::Certificate(certificate))) =
            (parts.next(), parts.next())
        else {
            let why = "expected a key, then its certificate".to_owned();
            return Err(TrustError::Pem { place, why });
        };
        let authorities = parts.filter_map(|it| match it {
            Section::Certificate(it) => Some(it),
            Section::Key(_) => None,
        });
        let authorities = authorities.collect();
        Ok(Some(Kept {
            credentials: Credentials::new(&key_pair(&key)?, certificate)?,
            authorities,
        }))
    }

    pub(super) fn save(
        &self,
        cluster: &str,
        credentials: &Credentials,
        authorities: &[CertificateDer<'static>],
    ) -> Result<(), TrustError> {
        let directory = self.cluster(cluster);
        make_directory(&directory)?;
        let authorities: String = authorities.iter().map(|it| certificate_pem(it)).collect();
        replace(&directory.join("identity.pem"), &format!("{}{authorities}", credentials.to_pem()))
    }

    /// How often the secret of this offer may still be redeemed on this machine.
    pub(super) fn redemptions_left(&self, cluster: &str, offer: &SecretOffer) -> u32 {
        let used = (0..offer.redemptions).filter(|it| self.redeemed(cluster, offer, *it).exists());
        offer.redemptions - u32::try_from(used.count()).unwrap_or(offer.redemptions)
    }

    /// Notes one more use of the secret; `false` when there is none left. On disk when this
    /// returns.
    pub(super) fn redeem(&self, cluster: &str, offer: &SecretOffer) -> Result<bool, TrustError> {
        let directory = self.cluster(cluster).join("redeemed");
        make_directory(&directory)?;
        for number in 0..offer.redemptions {
            let path = self.redeemed(cluster, offer, number);
            // Only one of two processes can make the file.
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => {
                    let synced = file.sync_all().and_then(|()| sync(&directory));
                    synced.map_err(|source| TrustError::File { verb: "write", path, source })?;
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(TrustError::File { verb: "make", path, source }),
            }
        }
        Ok(false)
    }

    fn redeemed(&self, cluster: &str, offer: &SecretOffer, number: u32) -> PathBuf {
        let name = format!("{}-{number}", offer.hash.digits());
        self.cluster(cluster).join("redeemed").join(name)
    }
}

fn make_directory(path: &Path) -> Result<(), TrustError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| TrustError::File { verb: "make", path: path.to_owned(), source })
}

/// Replaces a file whole. Only its owner can read it.
fn replace(path: &Path, text: &str) -> Result<(), TrustError> {
    let temporary = path.with_extension(format!("{}.new", std::process::id()));
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        path.parent().map_or(Ok(()), sync)
    };
    write().map_err(|source| TrustError::File { verb: "write", path: path.to_owned(), source })
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
