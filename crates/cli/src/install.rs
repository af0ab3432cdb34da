//! `portcullis install`: prints what must be installed elsewhere. It changes nothing itself, so
//! that everything can be read before it counts.

mod agent;
mod authorized_keys;
mod epok_permissions;
pub(crate) mod gateway;
mod manifests;
mod sudoers;
mod systemd;

use std::path::Path;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::arguments::Output;
use crate::ending::{Ending, Result, refused};
use crate::print;

const EXAMPLES: &str = "\
Examples:
  portcullis install manifests | kubectl apply -f -
  portcullis install systemd > /etc/systemd/system/portcullis.service
  portcullis install sudoers > /etc/sudoers.d/portcullis && visudo -c
  portcullis install authorized-keys --key \"$(cat key.pub)\" >> ~portcullis/.ssh/authorized_keys";

/// What to print.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct InstallArguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Custom resources, permissions and a Deployment for a cluster
    Manifests(manifests::ManifestsArguments),
    /// The permissions that Epok's own account lacks, for running this program in its place
    EpokPermissions(epok_permissions::EpokPermissionsArguments),
    /// A hardened systemd unit for a controller on the host itself
    Systemd(systemd::SystemdArguments),
    /// Custom resource, permissions and agents for publishing a cluster's Services on gateways
    Agent(agent::AgentArguments),
    /// What the machine of a public gateway starts with
    Gateway(gateway::GatewayArguments),
    /// The sudoers lines for a host that is driven over SSH
    Sudoers(sudoers::SudoersArguments),
    /// The authorized_keys line whose key can do nothing but apply our rules
    AuthorizedKeys(authorized_keys::AuthorizedKeysArguments),
}

/// One printed document, and what is still to be done with it.
#[derive(Serialize)]
pub(crate) struct Document {
    /// What it is: `manifests`, `agent`, `epokPermissions`, `systemd`, `sudoers`, `authorizedKeys`,
    /// `gatewayCloudInit` and so on.
    kind: &'static str,
    /// Where it belongs.
    place: String,
    /// Its whole text.
    pub(crate) text: String,
    /// What to do with it, one step each.
    pub(crate) steps: Vec<String>,
}

/// Prints the document, and on standard error what to do with it.
pub(crate) fn run(arguments: &InstallArguments, output: Output) -> Result {
    let document = match &arguments.what {
        What::Manifests(it) => manifests::document(it)?,
        What::EpokPermissions(it) => epok_permissions::document(it)?,
        What::Systemd(it) => systemd::document(it)?,
        What::Agent(it) => agent::document(it)?,
        What::Gateway(it) => gateway::document(it)?,
        What::Sudoers(it) => sudoers::document(it)?,
        What::AuthorizedKeys(it) => authorized_keys::document(it)?,
    };
    match output {
        Output::Json => print::json(&document)?,
        Output::Text => {
            print::document(&document.text)?;
            for step in &document.steps {
                print::note(format_args!("# {step}"));
            }
        }
    }
    Ok(Ending::Done)
}

/// Accepts an absolute path that needs no quoting in any of the documents.
fn plain_path(text: &str) -> Result<String, String> {
    let known = |it: char| it.is_ascii_alphanumeric() || "/-_.+".contains(it);
    if Path::new(text).is_absolute() && text.chars().all(known) && !text.contains("..") {
        return Ok(text.to_owned());
    }
    Err("expected an absolute path of letters, digits and /-_.+".to_owned())
}

/// Accepts the name of an account as `useradd` does.
fn account(text: &str) -> Result<String, String> {
    let known = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || "-_".contains(it);
    let begins = text.starts_with(|it: char| it.is_ascii_lowercase() || it == '_');
    if begins && text.len() <= 32 && text.chars().all(known) {
        return Ok(text.to_owned());
    }
    Err("expected the name of an account: up to 32 lower case letters, digits, - and _".to_owned())
}

/// Returns `template` with `from` replaced; the templates are ours, so `from` must be in there.
fn replace(template: &str, from: &str, to: &str) -> Result<String> {
    if !template.contains(from) {
        return Err(refused(format!("the built-in document has no {from:?} to replace")));
    }
    Ok(template.replace(from, to))
}
