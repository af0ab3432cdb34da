//! The way to one host: an executor, and word of what others change there.

use std::sync::Arc;

use api::host::{Executor as Way, HostSettings, KeySource, SshMode, SshSettings};
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt};
use host::{
    ClientKey, Executor, HostKey, LinkState, Local, LocalChange, LocalChanges, Mode, Ssh, SshHost,
};

/// Reads one value of a Secret.
pub(crate) trait Secrets: Send + Sync {
    /// Returns the text below `key` in the Secret `namespace/name`, or why it cannot be had.
    fn read<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
        key: &'a str,
    ) -> BoxFuture<'a, Result<String, String>>;
}

/// The secrets of a directory of manifests: none, keys are files there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoSecrets;

impl Secrets for NoSecrets {
    fn read<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
        _: &'a str,
    ) -> BoxFuture<'a, Result<String, String>> {
        let reason =
            format!("Secret {namespace}/{name}: there is no cluster to read it from; use keyFile");
        Box::pin(async move { Err(reason) })
    }
}

/// Somebody changed something on the host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Disturbance {
    /// The packet filter, not by us.
    Firewall,
    /// Interfaces or addresses.
    Addresses,
    /// The way to the host is there again.
    Connection,
}

/// The Secrets of a cluster.
pub(crate) struct ClusterSecrets(pub(crate) kube::Client);

impl Secrets for ClusterSecrets {
    fn read<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
        key: &'a str,
    ) -> BoxFuture<'a, Result<String, String>> {
        Box::pin(async move {
            let value = cluster::secret::read(&self.0, namespace, name, key).await;
            value.map_err(|error| error.to_string())
        })
    }
}

/// An open way to a host.
pub(crate) struct Opened {
    pub(crate) executor: Box<dyn Executor>,
    pub(crate) disturbances: BoxStream<'static, Disturbance>,
}

/// Opens the way that the Host's settings describe.
///
/// Connecting is not part of it: an SSH executor connects by itself and for ever.
pub(crate) async fn open(settings: &HostSettings, secrets: &dyn Secrets) -> Result<Opened, String> {
    match &settings.executor {
        Way::Local => Ok(open_local()),
        Way::Ssh(ssh) => open_ssh(ssh, secrets).await,
    }
}

/// How people know the way: `local`, or `ssh user@address:port`.
pub(crate) fn describe(settings: &HostSettings) -> String {
    match &settings.executor {
        Way::Local => "local".to_owned(),
        Way::Ssh(ssh) => format!("ssh {}@{}:{}", ssh.user, ssh.address, ssh.port),
    }
}

fn open_local() -> Opened {
    let executor = Local::new();
    let disturbances = match LocalChanges::watch(executor.own_processes()) {
        Ok(changes) => stream::unfold(changes, next_change).boxed(),
        Err(error) => {
            tracing::warn!(%error, "changes by others are only noticed at the next look");
            stream::pending().boxed()
        }
    };
    Opened { executor: Box::new(executor), disturbances }
}

async fn next_change(mut changes: LocalChanges) -> Option<(Disturbance, LocalChanges)> {
    match changes.next().await {
        Ok(LocalChange::Firewall(by)) => {
            tracing::debug!(?by, "somebody else changed the packet filter");
            Some((Disturbance::Firewall, changes))
        }
        Ok(LocalChange::Addresses) => Some((Disturbance::Addresses, changes)),
        Err(error) => {
            tracing::warn!(%error, "changes by others are only noticed at the next look");
            None
        }
    }
}

async fn open_ssh(ssh: &SshSettings, secrets: &dyn Secrets) -> Result<Opened, String> {
    let key = match &ssh.key {
        KeySource::Secret { namespace, name, key } => secrets.read(namespace, name, key).await?,
        KeySource::File(path) => {
            let path = path.as_str();
            tokio::fs::read_to_string(path)
                .await
                .map_err(|it| format!("cannot read {path}: {it}"))?
        }
    };
    let client_key = ClientKey::from_text(&key).map_err(|it| it.to_string())?;
    let host_key: HostKey =
        ssh.host_key.as_str().parse().map_err(|it: host::KeyError| it.to_string())?;
    let mut host = SshHost::new(ssh.address.as_str(), ssh.user.as_str(), host_key, client_key);
    host.port = ssh.port.get();
    host.mode = match ssh.mode {
        SshMode::ForcedCommand => Mode::ForcedCommand,
        SshMode::Sudo => Mode::Sudo,
    };
    let executor = Ssh::new(host);
    let link = executor.watch_link();
    let disturbances = stream::unfold(link, |mut link| async move {
        // Only a new session is worth a look; what failed before is tried again by itself.
        while link.changed().await? != LinkState::Up {}
        Some((Disturbance::Connection, link))
    });
    Ok(Opened { executor: Box::new(executor), disturbances: disturbances.boxed() })
}

/// Shared by every task that may need a key.
pub(crate) type SharedSecrets = Arc<dyn Secrets>;
