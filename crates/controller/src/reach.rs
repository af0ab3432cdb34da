//! How to reach the host that a Host object describes.

use api::host::{Executor as Way, HostSettings, KeySource, SshMode, SshSettings};
use host::{ClientKey, Executor, HostKey, KeyError, Local, Mode, Ssh, SshHost};

/// Where the private keys are that Hosts name.
#[derive(Clone)]
pub struct Keys(Option<kube::Client>);

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Keys(cluster, files)" } else { "Keys(files)" })
    }
}

impl Keys {
    /// In the Secrets of a cluster, and in files.
    #[must_use]
    pub fn in_cluster(client: &kube::Client) -> Self {
        Self(Some(client.clone()))
    }

    /// In files alone: there is no cluster.
    #[must_use]
    pub fn in_files() -> Self {
        Self(None)
    }

    async fn read(&self, source: &KeySource) -> Result<String, Problem> {
        match (source, &self.0) {
            (KeySource::File(file), _) => {
                tokio::fs::read_to_string(file.as_str()).await.map_err(|error| Problem {
                    field: "keyFile",
                    text: format!("{file}: {error}; name a readable private key"),
                })
            }
            (KeySource::Secret { namespace, name, key }, Some(client)) => {
                let value = cluster::secret::read(client, namespace, name, key).await;
                value.map_err(|error| Problem { field: "keySecretRef", text: error.to_string() })
            }
            (KeySource::Secret { namespace, name, .. }, None) => {
                let problem = "is in a cluster, but objects come from files; write keyFile";
                let text = format!("Secret {namespace}/{name} {problem}");
                Err(Problem { field: "keySecretRef", text })
            }
        }
    }
}

struct Problem {
    field: &'static str,
    text: String,
}

/// Why a host cannot be reached in the way that its Host describes.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("Host {host}: spec.executor.ssh.{field}: {problem}")]
pub struct ReachError {
    /// The name of the Host.
    pub host: String,
    /// The field below `spec.executor.ssh` to look at.
    pub field: &'static str,
    /// What is wrong, and what to do.
    pub problem: String,
}

/// Returns the SSH settings of a host, with its key.
///
/// # Errors
///
/// Fails when the key to log in with cannot be read.
pub async fn ssh_host(
    settings: &HostSettings,
    ssh: &SshSettings,
    keys: &Keys,
) -> Result<SshHost, ReachError> {
    let host = settings.name.as_str();
    let wrong = |field, problem: String| ReachError { host: host.to_owned(), field, problem };
    let text = keys.read(&ssh.key).await.map_err(|it| wrong(it.field, it.text))?;
    let field = match &ssh.key {
        KeySource::File(_) => "keyFile",
        KeySource::Secret { .. } => "keySecretRef",
    };
    let client_key = ClientKey::from_text(&text).map_err(|it| wrong(field, it.to_string()))?;
    let host_key: HostKey =
        ssh.host_key.as_str().parse().map_err(|it: KeyError| wrong("hostKey", it.to_string()))?;
    let mut host = SshHost::new(ssh.address.as_str(), ssh.user.as_str(), host_key, client_key);
    host.port = ssh.port.get();
    host.mode = match ssh.mode {
        SshMode::ForcedCommand => Mode::ForcedCommand,
        SshMode::Sudo => Mode::Sudo,
    };
    Ok(host)
}

/// Returns what runs commands on the host. Whether it answers shows with the first command.
///
/// # Errors
///
/// Fails when the key to log in with cannot be read.
pub async fn executor(
    settings: &HostSettings,
    keys: &Keys,
) -> Result<Box<dyn Executor>, ReachError> {
    match &settings.executor {
        Way::Local => Ok(Box::new(Local::new())),
        Way::Ssh(ssh) => Ok(Box::new(Ssh::new(ssh_host(settings, ssh, keys).await?))),
    }
}

/// How people know the way: `this machine`, or `ssh user@address:port`.
#[must_use]
pub fn describe(settings: &HostSettings) -> String {
    match &settings.executor {
        Way::Local => "this machine".to_owned(),
        Way::Ssh(ssh) => format!("ssh {}@{}:{}", ssh.user, ssh.address, ssh.port),
    }
}
