//! The cluster's authority: read from a directory or a Secret, and read again for ever.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cluster::secret;
use tokio::sync::watch;
use tokio::time::sleep;
use tunnel::trust::{
    AUTHORITY_FILE, AUTHORITY_SECRET, AgentTrust, Authorities, LocalSigner, NAMESPACE, TrustError,
};
use tunnel_proto::backoff::Backoff;

/// How often the authority is read again, so that a new one counts soon.
const AGAIN: Duration = Duration::from_secs(30);

/// The same where nobody else has to be asked.
const AGAIN_HERE: Duration = Duration::from_secs(5);

/// Where the authority is.
#[derive(Clone)]
pub enum AuthoritySource {
    /// In a directory.
    Directory(PathBuf),
    /// In its Secret.
    Secret(kube::Client),
}

impl std::fmt::Debug for AuthoritySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Directory(path) => f.debug_tuple("Directory").field(path).finish(),
            Self::Secret(_) => f.write_str("Secret"),
        }
    }
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthorityError {
    /// The file cannot be read.
    #[error("{}: {source}; `portcullis gateway create` makes it", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The Secret cannot be read.
    #[error("{0}; `portcullis gateway create` makes it")]
    Secret(secret::SecretError),
    /// What is there is no authority, or does not sign.
    #[error("{0}")]
    Trust(TrustError),
    /// It is another cluster's.
    #[error("the authority is of cluster `{found}`, but --cluster says `{expected}`")]
    WrongCluster {
        /// What the command line says.
        expected: String,
        /// What the authority says.
        found: String,
    },
}

/// The agent's certificate, once there is one; renewed for ever.
pub(crate) async fn keep(
    source: AuthoritySource,
    cluster: Option<String>,
    agent: String,
    trust: watch::Sender<Result<Arc<AgentTrust>, String>>,
) {
    let mut backoff = Backoff::new();
    let (signer, held) = loop {
        match first(&source, cluster.as_deref(), &agent).await {
            Ok(both) => break both,
            Err(error) => {
                let message = error.to_string();
                trust.send_if_modified(|it| {
                    let is_news = !matches!(it, Err(before) if *before == message);
                    if is_news {
                        tracing::error!("no certificate for gateways: {message}");
                        *it = Err(message);
                    }
                    is_news
                });
                sleep(backoff.wait(Duration::ZERO, rand::random())).await;
            }
        }
    };
    let names = held.identity().to_string();
    tracing::info!(identity = names, "has a certificate");
    let _before = trust.send_replace(Ok(Arc::clone(&held)));
    let again = match source {
        AuthoritySource::Directory(_) => AGAIN_HERE,
        AuthoritySource::Secret(_) => AGAIN,
    };
    loop {
        sleep(again).await;
        match read(&source, cluster.as_deref()).await {
            Ok(authorities) => signer.replace(authorities),
            // What was read before is still good.
            Err(error) => tracing::debug!(%error, "the authority cannot be read"),
        }
        match held.refresh(SystemTime::now()).await {
            Ok(true) => {
                tracing::info!("the cluster's authorities have changed");
                // The same value, but news for sessions: they tell their gateways.
                let _before = trust.send_replace(Ok(Arc::clone(&held)));
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "the certificate cannot be renewed"),
        }
    }
}

async fn first(
    source: &AuthoritySource,
    cluster: Option<&str>,
    agent: &str,
) -> Result<(Arc<LocalSigner>, Arc<AgentTrust>), AuthorityError> {
    let signer = LocalSigner::new(read(source, cluster).await?);
    let trust = AgentTrust::new(Arc::clone(&signer) as _, agent).await;
    Ok((signer, trust.map_err(AuthorityError::Trust)?))
}

async fn read(
    source: &AuthoritySource,
    cluster: Option<&str>,
) -> Result<Authorities, AuthorityError> {
    let (place, text) = match source {
        AuthoritySource::Directory(directory) => {
            let path = directory.join(AUTHORITY_FILE);
            (path.display().to_string(), read_file(&path).await?)
        }
        AuthoritySource::Secret(client) => {
            let text = secret::read(client, NAMESPACE, AUTHORITY_SECRET, AUTHORITY_FILE).await;
            (
                format!("Secret {NAMESPACE}/{AUTHORITY_SECRET}"),
                text.map_err(AuthorityError::Secret)?,
            )
        }
    };
    let authorities = Authorities::from_pem(&place, &text).map_err(AuthorityError::Trust)?;
    match cluster {
        Some(expected) if expected != authorities.cluster() => Err(AuthorityError::WrongCluster {
            expected: expected.to_owned(),
            found: authorities.cluster().to_owned(),
        }),
        Some(_) | None => Ok(authorities),
    }
}

async fn read_file(path: &Path) -> Result<String, AuthorityError> {
    let failed = |source| AuthorityError::File { path: path.to_owned(), source };
    tokio::fs::read_to_string(path).await.map_err(failed)
}
