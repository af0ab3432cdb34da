//! The cluster's authority, where it is kept: in a Secret, or in a directory.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context as _;
use clap::Args;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use tunnel::trust::{AUTHORITY_FILE, AUTHORITY_SECRET, Authorities, NAMESPACE};

use crate::connection::ConnectionOptions;
use crate::ending::{Result, refused};

/// Who wrote an object, as the API server keeps it.
pub(super) const MANAGER: &str = "portcullis";

/// Where the cluster's objects and its authority are.
#[derive(Args, Clone, Debug)]
pub(super) struct KeeperOptions {
    /// Work with this directory of manifests instead of a cluster
    #[arg(long, value_name = "DIR", requires = "ca_dir", conflicts_with_all = ["kubeconfig", "context"])]
    pub(super) manifests: Option<PathBuf>,

    /// The directory with the authority and the one-time secrets, which nobody else may read;
    /// without it they are Secrets in the namespace portcullis-system
    #[arg(long, value_name = "DIR")]
    pub(super) ca_dir: Option<PathBuf>,

    #[command(flatten)]
    connection: ConnectionOptions,
}

/// Where the authority is.
pub(super) enum Keeper {
    Directory(PathBuf),
    Cluster(Client),
}

/// The authorities, and the version that they were read as.
pub(super) struct Kept {
    pub(super) authorities: Authorities,
    version: Option<String>,
}

impl KeeperOptions {
    pub(super) async fn keeper(&self) -> Result<Keeper> {
        match &self.ca_dir {
            Some(directory) if self.manifests.is_some() => Ok(Keeper::Directory(directory.clone())),
            Some(_) => Err(refused(
                "--ca-dir: belongs to --manifests; with a cluster the authority is a Secret there",
            )),
            None => Ok(Keeper::Cluster(self.connection.client().await?)),
        }
    }
}

impl Keeper {
    /// The authorities, if there are any.
    pub(super) async fn load(&self) -> Result<Option<Kept>> {
        match self {
            Self::Directory(directory) => {
                let path = directory.join(AUTHORITY_FILE);
                let text = match std::fs::read_to_string(&path) {
                    Ok(text) => text,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                    Err(error) => {
                        return Err(error)
                            .with_context(|| format!("cannot read {}", path.display()));
                    }
                };
                let authorities = Authorities::from_pem(&path.display().to_string(), &text)?;
                Ok(Some(Kept { authorities, version: None }))
            }
            Self::Cluster(client) => {
                let secrets = Api::<Secret>::namespaced(client.clone(), NAMESPACE);
                let place = format!("Secret {NAMESPACE}/{AUTHORITY_SECRET}");
                let secret = secrets.get_opt(AUTHORITY_SECRET).await;
                let Some(secret) = secret.with_context(|| format!("cannot read {place}"))? else {
                    return Ok(None);
                };
                let value = secret.data.unwrap_or_default().remove(AUTHORITY_FILE);
                let value = value.with_context(|| format!("{place} has no {AUTHORITY_FILE}"))?;
                let text = String::from_utf8(value.0)
                    .with_context(|| format!("{AUTHORITY_FILE} of {place} is no text"))?;
                let authorities = Authorities::from_pem(&place, &text)?;
                Ok(Some(Kept { authorities, version: secret.metadata.resource_version }))
            }
        }
    }

    /// The authorities; the first one is made if there is none. Of two that are made at the same
    /// time, one wins.
    pub(super) async fn load_or_create(&self, cluster: Option<&str>) -> Result<Authorities> {
        if let Some(kept) = self.load().await? {
            let found = kept.authorities.cluster();
            if let Some(wanted) = cluster.filter(|it| *it != found) {
                return Err(refused(format!(
                    "--cluster {wanted}: the authority is there already and belongs to cluster \
                     {found}; leave --cluster out"
                )));
            }
            return Ok(kept.authorities);
        }
        let name = self.cluster_name(cluster).await?;
        let authorities = Authorities::create(&name, SystemTime::now())
            .map_err(|error| refused(format!("--cluster: {error}")))?;
        match self {
            Self::Directory(directory) => {
                write_secret(&directory.join(AUTHORITY_FILE), &authorities.to_pem())?;
                Ok(authorities)
            }
            Self::Cluster(client) => {
                namespace(client).await?;
                let secrets = Api::<Secret>::namespaced(client.clone(), NAMESPACE);
                let created = secrets.create(&PostParams::default(), &secret(&authorities)).await;
                match created {
                    Ok(_) => Ok(authorities),
                    Err(kube::Error::Api(status)) if status.code == 409 => {
                        let kept = self.load().await?;
                        Ok(kept.context("the authority has just been removed")?.authorities)
                    }
                    Err(error) => Err(error).context("cannot write the authority"),
                }
            }
        }
    }

    /// Replaces the authorities, unless somebody else has done so since they were read.
    pub(super) async fn replace(&self, kept: &Kept, authorities: &Authorities) -> Result<()> {
        match self {
            Self::Directory(directory) => {
                write_secret(&directory.join(AUTHORITY_FILE), &authorities.to_pem())
            }
            Self::Cluster(client) => {
                let secrets = Api::<Secret>::namespaced(client.clone(), NAMESPACE);
                let mut secret = secret(authorities);
                secret.metadata.resource_version.clone_from(&kept.version);
                let replaced =
                    secrets.replace(AUTHORITY_SECRET, &PostParams::default(), &secret).await;
                replaced.context("cannot write the authority; run it again")?;
                Ok(())
            }
        }
    }

    async fn cluster_name(&self, wanted: Option<&str>) -> Result<String> {
        match (wanted, self) {
            (Some(wanted), _) => Ok(wanted.to_owned()),
            (None, Self::Directory(_)) => Err(refused(
                "--cluster: is missing; the first gateway's authority needs the name of the \
                 cluster, as in --cluster home",
            )),
            (None, Self::Cluster(client)) => {
                // The longest-lived object of a cluster, and unique.
                let system = Api::<Namespace>::all(client.clone()).get("kube-system").await;
                let uid = system.context("cannot read namespace kube-system")?.metadata.uid;
                let uid = uid.unwrap_or_default();
                Ok(format!("cluster-{}", uid.split('-').next().unwrap_or("0")))
            }
        }
    }
}

fn secret(authorities: &Authorities) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(AUTHORITY_SECRET.to_owned()),
            namespace: Some(NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        type_: Some("portcullis.dev/authority".to_owned()),
        data: Some(BTreeMap::from([(
            AUTHORITY_FILE.to_owned(),
            ByteString(authorities.to_pem().into_bytes()),
        )])),
        ..Secret::default()
    }
}

/// Makes our namespace if it is not there.
pub(super) async fn namespace(client: &Client) -> Result<()> {
    let namespaces = Api::<Namespace>::all(client.clone());
    if namespaces.get_opt(NAMESPACE).await.is_ok_and(|it| it.is_some()) {
        return Ok(());
    }
    let namespace = Namespace {
        metadata: ObjectMeta { name: Some(NAMESPACE.to_owned()), ..ObjectMeta::default() },
        ..Namespace::default()
    };
    let applied =
        namespaces.patch(NAMESPACE, &PatchParams::apply(MANAGER), &Patch::Apply(&namespace)).await;
    applied.with_context(|| format!("cannot make namespace {NAMESPACE}"))?;
    Ok(())
}

/// Writes a file that only its owner can read, whole or not at all.
pub(super) fn write_secret(path: &Path, text: &str) -> Result<()> {
    let draft = path.with_extension("new");
    let write = || -> io::Result<()> {
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&draft, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
