//! Epok's options, environment variables and subcommands, and the Host that they mean.

use std::collections::BTreeSet;
use std::env;
use std::net::IpAddr;
use std::path::PathBuf;

use api::host::{ExecutorSpec, Host, HostSpec, SshSpec};
use clap::builder::BoolishValueParser;
use clap::{Args, Parser, Subcommand};

use super::addresses;
use super::host_key::HostKeyOptions;
use crate::declared;
use crate::ending::{Result, refused};

const EXAMPLES: &str = "\
Examples:
  epok -i eth0,wg0 --external-interface eth0 local
  epok -i eth0 ssh --host epok@10.0.0.1 --key /opt/secrets/id_rsa \\
       --host-key \"ssh-ed25519 AAAA...\"
  epok -i eth0 --print-host local      the Host object that these options mean
  epok clean local                     remove every rule, ours and Epok's (also: epok-clean local)

Every option can stand in the environment, as with Epok. What differs is in docs/migrate-epok.md.";

/// Takes Epok's options and does Epok's work: forwards host ports to the cluster's nodes and Pods
/// as the annotations epok.getbetter.ro/... ask for it.
#[derive(Clone, Debug, Parser)]
#[command(name = "epok", version, propagate_version = true, disable_help_subcommand = true)]
#[command(subcommand_value_name = "EXECUTOR", subcommand_help_heading = "Executors")]
#[command(after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct EpokOptions {
    #[command(flatten)]
    pub(crate) machine: MachineOptions,

    #[command(flatten)]
    pub(crate) batch: BatchOptions,

    /// The packet filter: nftables, iptables, or auto for nftables where the host permits it
    #[arg(
        long,
        env = "EPOK_BACKEND",
        hide_env_values = true,
        value_name = "FILTER",
        default_value = "auto"
    )]
    pub(crate) backend: String,

    /// Take objects from this directory instead of the cluster
    #[arg(long, value_name = "DIR")]
    pub(crate) manifests: Option<PathBuf>,

    /// Serve /status, /metrics, /healthz and /readyz here
    #[arg(long, env = "EPOK_LISTEN", hide_env_values = true, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<std::net::SocketAddr>,

    /// Print the Host object that these options mean, and stop
    #[arg(long)]
    pub(crate) print_host: bool,

    #[command(subcommand)]
    pub(crate) executor: Executor,
}

/// Removes every rule of Epok's and ours from a host.
#[derive(Clone, Debug, Parser)]
#[command(name = "epok-clean", version, propagate_version = true, disable_help_subcommand = true)]
#[command(subcommand_value_name = "EXECUTOR", subcommand_help_heading = "Executors")]
pub(crate) struct CleanOptions {
    #[command(flatten)]
    pub(crate) batch: BatchOptions,

    /// Print what would be removed, and remove nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    #[command(subcommand)]
    pub(crate) executor: CleanExecutor,
}

/// The options that say what the host is like.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct MachineOptions {
    /// Comma-separated list of interfaces to forward packets from
    #[arg(
        long,
        short = 'i',
        env = "EPOK_INTERFACES",
        hide_env_values = true,
        value_name = "NAMES"
    )]
    pub(crate) interfaces: Option<String>,

    /// Internal services won't be reachable through this interface
    #[arg(long, env = "EPOK_EXTERNAL_INTERFACE", hide_env_values = true, value_name = "NAME")]
    pub(crate) external_interface: Option<String>,

    /// Internal services will be reachable through these addresses too, as ADDRESS[/LENGTH]
    #[arg(long, env = "EPOK_EXTRA_INTERNAL_IPS", hide_env_values = true, value_name = "ADDRESSES")]
    pub(crate) extra_internal_ips: Option<String>,
}

/// Options that Epok needs and we do not: every change is one transaction.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct BatchOptions {
    /// Accepted for compatibility, without effect: every change is one transaction
    #[arg(
        long,
        env = "EPOK_BATCH_COMMANDS",
        hide_env_values = true,
        value_name = "BOOLEAN",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new(),
    )]
    pub(crate) batch_commands: Option<bool>,

    /// Accepted for compatibility, without effect: no command line depends on the number of rules
    #[arg(long, env = "EPOK_BATCH_SIZE", hide_env_values = true, value_name = "BYTES")]
    pub(crate) batch_size: Option<usize>,
}

/// How to run commands on the host.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Executor {
    /// Run commands on this machine: use it when this program runs on the host itself
    Local,
    /// Run commands over SSH: use it when this program runs inside the cluster
    Ssh(SshOptions),
    /// Remove every rule of Epok's and ours, as epok-clean does
    Clean(CleanOptions),
}

/// How to run commands on the host that is to be cleaned.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum CleanExecutor {
    /// Clean this machine
    Local,
    /// Clean a machine over SSH
    Ssh(SshOptions),
}

/// How to reach the host.
#[derive(Args, Clone, Debug)]
pub(crate) struct SshOptions {
    /// USER@HOST to connect to
    #[arg(
        short = 'H',
        long,
        env = "EPOK_SSH_HOST",
        hide_env_values = true,
        value_name = "USER@HOST"
    )]
    pub(crate) host: String,

    /// The port of the SSH server
    #[arg(short = 'p', long, env = "EPOK_SSH_PORT", hide_env_values = true, default_value = "22")]
    pub(crate) port: u16,

    /// The private key to log in with, as a file
    #[arg(
        short = 'k',
        long = "key",
        env = "EPOK_SSH_KEY",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub(crate) key: PathBuf,

    #[command(flatten)]
    pub(crate) host_key: HostKeyOptions,
}

/// What a reading of the options leaves behind beside the Host.
#[derive(Debug)]
pub(crate) struct Meaning {
    /// The Host.
    pub(crate) host: Host,
    /// What was accepted but means something else than its writer may think.
    pub(crate) remarks: Vec<String>,
}

impl MachineOptions {
    /// Returns the Host that the options mean, with a local executor.
    ///
    /// # Errors
    ///
    /// Refuses values that are no interfaces or addresses, with the flag and the variable.
    pub(crate) fn meaning(&self, name: &str) -> Result<Meaning> {
        let mut remarks = Vec::new();
        let interfaces = self.interfaces(&mut remarks)?;
        let external_interface = given(self.external_interface.as_deref());
        let extra = match given(self.extra_internal_ips.as_deref()) {
            Some(text) if external_interface.is_some() => addresses::expand(&text)?,
            Some(_) => {
                remarks.push(
                    "--extra-internal-ips (EPOK_EXTRA_INTERNAL_IPS) has no effect without \
                     --external-interface, as with Epok"
                        .to_owned(),
                );
                BTreeSet::new()
            }
            None => BTreeSet::new(),
        };
        let spec = HostSpec {
            interfaces,
            external_interface,
            extra_internal_addresses: extra.iter().map(IpAddr::to_string).collect(),
            ..HostSpec::default()
        };
        let host = Host::new(name, spec);
        declared::check(&host, flag)?;
        Ok(Meaning { host, remarks })
    }

    fn interfaces(&self, remarks: &mut Vec<String>) -> Result<Vec<String>> {
        let misspelt = || env::var("EPOK_INTERFACE").ok().and_then(|it| given(Some(&it)));
        let text = match given(self.interfaces.as_deref()) {
            Some(text) => text,
            None => match misspelt() {
                Some(text) => {
                    remarks.push(format!(
                        "EPOK_INTERFACE={text:?} is used, but the variable is EPOK_INTERFACES: \
                         Epok's README misspells it once; rename it"
                    ));
                    text
                }
                None => {
                    return Err(refused(
                        "--interfaces (EPOK_INTERFACES): missing or empty; name the interfaces to \
                         forward from, for example -i eth0,wg0",
                    ));
                }
            },
        };
        let mut interfaces: Vec<String> = Vec::new();
        for name in text.split(',').map(str::trim).filter(|it| !it.is_empty()) {
            if interfaces.iter().any(|it| it == name) {
                remarks.push(format!("--interfaces (EPOK_INTERFACES) names {name:?} twice"));
            } else {
                interfaces.push(name.to_owned());
            }
        }
        Ok(interfaces)
    }
}

impl BatchOptions {
    /// What to say about options without effect.
    pub(crate) fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if self.batch_commands.is_some() {
            let effect =
                "has no effect: every change is one transaction, never a batch of commands";
            remarks.push(format!("--batch-commands (EPOK_BATCH_COMMANDS) {effect}"));
        }
        if self.batch_size.is_some() {
            let effect = "has no effect: no command line grows with the number of rules";
            remarks.push(format!("--batch-size (EPOK_BATCH_SIZE) {effect}"));
        }
        remarks
    }
}

impl SshOptions {
    /// The user and the address to connect to.
    pub(crate) fn user_and_address(&self) -> Result<(String, String)> {
        match self.host.rsplit_once('@') {
            Some((user, address)) => Ok((user.to_owned(), address.to_owned())),
            None => {
                let user = ["USER", "LOGNAME"].iter().find_map(|it| env::var(it).ok());
                let user = user.filter(|it| !it.is_empty()).ok_or_else(|| {
                    refused(format!(
                        "--host (EPOK_SSH_HOST): {:?}: names no user; write USER@HOST",
                        self.host
                    ))
                })?;
                Ok((user, self.host.clone()))
            }
        }
    }

    /// Makes `host` one that is reached over SSH by sudo, as Epok does it.
    pub(crate) fn apply_to(&self, host: &mut Host, host_key: String) -> Result<()> {
        let (user, address) = self.user_and_address()?;
        let key = std::path::absolute(&self.key).unwrap_or_else(|_| self.key.clone());
        let ssh = SshSpec {
            address,
            port: self.port.into(),
            user,
            host_key,
            key_secret_ref: None,
            key_file: Some(key.to_string_lossy().into_owned()),
            mode: "sudo".to_owned(),
            confirm_seconds: None,
        };
        host.spec.executor = ExecutorSpec { local: None, ssh: Some(ssh) };
        declared::check(host, flag)
    }
}

/// An option that is set to nothing, as `envsubst` leaves it behind, is not set.
fn given(text: Option<&str>) -> Option<String> {
    text.map(str::trim).filter(|it| !it.is_empty()).map(str::to_owned)
}

fn flag(field: &str) -> Option<&'static str> {
    match field {
        "spec.interfaces" => Some("--interfaces (EPOK_INTERFACES)"),
        "spec.externalInterface" => Some("--external-interface (EPOK_EXTERNAL_INTERFACE)"),
        "spec.extraInternalAddresses" => Some("--extra-internal-ips (EPOK_EXTRA_INTERNAL_IPS)"),
        "spec.backend" => Some("--backend (EPOK_BACKEND)"),
        "spec.executor.ssh.address" | "spec.executor.ssh.user" => Some("--host (EPOK_SSH_HOST)"),
        "spec.executor.ssh.port" => Some("--port (EPOK_SSH_PORT)"),
        "spec.executor.ssh.keyFile" => Some("--key (EPOK_SSH_KEY)"),
        "spec.executor.ssh.hostKey" => Some("--host-key (EPOK_SSH_HOST_KEY)"),
        _ => None,
    }
}
