//! Reaching a host: this machine, or another one over SSH.

use std::path::Path;

use anyhow::{Context as _, bail};
use api::host::{Executor as Way, HostSettings, KeySource, SshMode, SshSettings};
use command::{Command, Output};
use host::{ClientKey, Executor, HostKey, Local, Mode, Ssh, SshHost};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};

use crate::ending::{Result, refused};

/// Returns what runs commands on the host.
///
/// # Errors
///
/// Fails when the key to log in with cannot be read. Whether the host answers shows with the first
/// command.
pub(crate) async fn executor(
    settings: &HostSettings,
    client: Option<&Client>,
) -> Result<Box<dyn Executor>> {
    match &settings.executor {
        Way::Local => Ok(Box::new(Local::new())),
        Way::Ssh(ssh) => {
            let key = client_key(settings, &ssh.key, client).await?;
            Ok(Box::new(Ssh::new(ssh_host(settings, ssh, key)?)))
        }
    }
}

/// How the way to a host reads in output: `this machine` or `ssh user@address:port`.
pub(crate) fn describe(settings: &HostSettings) -> String {
    match &settings.executor {
        Way::Local => "this machine".to_owned(),
        Way::Ssh(ssh) => format!("ssh {}@{}:{}", ssh.user, ssh.address, ssh.port),
    }
}

/// Runs a command and fails unless it succeeded.
pub(crate) async fn succeed(executor: &mut dyn Executor, command: &Command) -> Result<Output> {
    let output = executor.run(command).await?;
    if !output.succeeded() {
        let status = output.status.map_or("a signal".to_owned(), |it| format!("status {it}"));
        bail!("`{command}` ended with {status}: {}", output.stderr.trim());
    }
    Ok(output)
}

fn ssh_host(settings: &HostSettings, ssh: &SshSettings, key: ClientKey) -> Result<SshHost> {
    let host_key: HostKey = ssh.host_key.as_str().parse().map_err(|error| {
        refused(format!("Host {}: spec.executor.ssh.hostKey: {error}", settings.name))
    })?;
    let mut host = SshHost::new(ssh.address.as_str(), ssh.user.as_str(), host_key, key);
    host.port = ssh.port.get();
    host.mode = match ssh.mode {
        SshMode::ForcedCommand => Mode::ForcedCommand,
        SshMode::Sudo => Mode::Sudo,
    };
    Ok(host)
}

async fn client_key(
    settings: &HostSettings,
    source: &KeySource,
    client: Option<&Client>,
) -> Result<ClientKey> {
    let (place, text) = match source {
        KeySource::File(file) => {
            let text = std::fs::read_to_string(Path::new(file.as_str())).map_err(|error| {
                refused(format!(
                    "Host {}: spec.executor.ssh.keyFile: {file}: {error}; name a readable private \
                     key",
                    settings.name
                ))
            })?;
            (file.to_string(), text)
        }
        KeySource::Secret { namespace, name, key } => {
            let place = format!("Secret {namespace}/{name}");
            let client = client.ok_or_else(|| {
                refused(format!(
                    "Host {}: spec.executor.ssh.keySecretRef: {place} is in a cluster, but objects \
                     come from files; write keyFile",
                    settings.name
                ))
            })?;
            let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
            let secret = secrets.get(name).await.with_context(|| format!("cannot read {place}"))?;
            let bytes = secret.data.unwrap_or_default().remove(key);
            let bytes = bytes.with_context(|| format!("{place} has no key {key}"))?;
            (place, String::from_utf8(bytes.0).context("the private key is no text")?)
        }
    };
    ClientKey::from_text(&text).with_context(|| format!("{place} of Host {}", settings.name))
}
