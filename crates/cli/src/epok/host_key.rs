//! Which key the host must have. Epok trusted any; here somebody has to say it.
//!
//! Without a pin the program does not connect: whoever answers at the host's address would
//! otherwise receive commands for it, and could keep its ports from being forwarded while all
//! looks well. What is printed then shows the key that answers now, so that pinning it after a
//! look at the host takes one paste.

use std::path::{Path, PathBuf};

use clap::Args;
use russh::keys::{Algorithm, PublicKey, known_hosts};

use super::options::SshOptions;
use crate::ending::{Result, refused};
use crate::ssh_scan;

/// How the host proves that it is the host.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct HostKeyOptions {
    /// The host's public key, as in /etc/ssh/ssh_host_ed25519_key.pub there
    #[arg(long, env = "EPOK_SSH_HOST_KEY", hide_env_values = true, value_name = "PUBLIC KEY")]
    pub(crate) host_key: Option<String>,

    /// A file that has the host's key, in place of ~/.ssh/known_hosts and
    /// /etc/ssh/ssh_known_hosts
    #[arg(long, env = "EPOK_SSH_KNOWN_HOSTS", hide_env_values = true, value_name = "FILE")]
    pub(crate) known_hosts: Option<PathBuf>,
}

/// Returns the key that the host must have.
///
/// # Errors
///
/// Refuses to go on when nobody has said it; the message holds the line that says it.
pub(crate) async fn pinned(options: &SshOptions) -> Result<String> {
    if let Some(key) = options.host_key.host_key.as_deref().filter(|it| !it.trim().is_empty()) {
        return Ok(key.trim().to_owned());
    }
    let (_, address) = options.user_and_address()?;
    let files = match &options.host_key.known_hosts {
        Some(file) if !file.is_file() => {
            let file = file.display();
            let flag = "--known-hosts (EPOK_SSH_KNOWN_HOSTS)";
            return Err(refused(format!("{flag}: {file}: no such file; name an existing one")));
        }
        Some(file) => vec![file.clone()],
        None => usual_files(),
    };
    for file in &files {
        if let Some(key) = known(&address, options.port, file)? {
            return Ok(key);
        }
    }
    Err(unpinned(&address, options.port, &files).await)
}

fn usual_files() -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").map(|it| PathBuf::from(it).join(".ssh/known_hosts"));
    let system = PathBuf::from("/etc/ssh/ssh_known_hosts");
    home.into_iter().chain([system]).filter(|it| it.is_file()).collect()
}

/// The Ed25519 key that `file` has for the host, if it has one.
fn known(address: &str, port: u16, file: &Path) -> Result<Option<String>> {
    let keys = known_hosts::known_host_keys_path(address, port, file).map_err(|error| {
        refused(format!("--known-hosts: {}: {error}; correct the file", file.display()))
    })?;
    let key = keys.into_iter().map(|(_, key)| key).find(|it| it.algorithm() == Algorithm::Ed25519);
    Ok(key.as_ref().map(text))
}

async fn unpinned(address: &str, port: u16, files: &[PathBuf]) -> anyhow::Error {
    let searched = match files {
        [] => "there is no known_hosts file".to_owned(),
        files => {
            let files = files.iter().map(|it| it.display().to_string()).collect::<Vec<_>>();
            format!("it has no ssh-ed25519 key in {}", files.join(" or "))
        }
    };
    let start = format!(
        "--host-key (EPOK_SSH_HOST_KEY): missing: the key of {address} port {port} is not pinned, \
         and {searched}; without it anybody could answer in the host's place"
    );
    let hint = match ssh_scan::ed25519_key(address, port).await {
        Ok(key) => format!(
            "\nright now this key answers there, {}:\n  EPOK_SSH_HOST_KEY='{}'\ncompare it with \
             `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on the host, then set it",
            key.fingerprint(russh::keys::HashAlg::Sha256),
            text(&key)
        ),
        Err(error) => format!(
            "\nit could not be asked for its key ({error:#}); copy the key from \
             /etc/ssh/ssh_host_ed25519_key.pub on the host"
        ),
    };
    refused(format!("{start}{hint}"))
}

/// The key without its comment.
fn text(key: &PublicKey) -> String {
    let text = key.to_openssh().unwrap_or_default();
    text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}
