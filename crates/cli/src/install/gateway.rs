//! What the machine of a gateway starts with: a systemd unit, cloud-init's user data, or a whole
//! machine for Terraform.
//!
//! Nothing of it is a shell script, and nothing in it is secret.

mod cloud_init;
mod terraform;

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use gateway::config::{Config, GrantedPorts, Sha256};

use super::{Document, plain_path, replace};
use crate::ending::{Result, refused};

/// Checked in, so that they can be read and used without the program.
const UNIT: &str = include_str!("../../../../deploy/systemd/portcullis-gateway.service");
const PROGRAM_UNIT: &str = include_str!("../../../../deploy/systemd/portcullis-program.service");
const SYSCTL: &str = include_str!("../../../../deploy/systemd/portcullis-gateway.sysctl");

/// Where the kernel's limits are.
const LIMITS: &str = "/etc/sysctl.d/60-portcullis.conf";

const PROGRAM: &str = "/usr/local/bin/portcullis-gateway";
const PROGRAM_URL: &str = "https://releases.example.com/portcullis-gateway";
const BOTH: &str = "CAP_NET_BIND_SERVICE CAP_NET_ADMIN";

const HELP: &str = "\
`portcullis gateway create` declares the gateway in the cluster and prints the same documents, with
everything filled in.";

/// What to print.
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(crate) struct GatewayArguments {
    /// What to print
    #[arg(long, value_name = "FORM", default_value = "cloud-init")]
    format: Format,

    /// The gateway's configuration, which every form but systemd and sysctl needs; `portcullis
    /// gateway create --format config` prints one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    machine: MachineOptions,
}

/// The form of the document.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Format {
    /// User data for a machine that boots with cloud-init.
    CloudInit,
    /// The systemd unit alone, for a machine that is there already.
    Systemd,
    /// The kernel's limits alone, for such a machine and for nodes with agents in their own network.
    Sysctl,
    /// Security group, address, DNS record and machine at AWS.
    TerraformAws,
    /// Firewall, addresses, DNS records and machine at Hetzner Cloud.
    TerraformHetzner,
    /// The configuration file alone.
    Config,
}

/// What the machine is like.
#[derive(Args, Debug)]
pub(crate) struct MachineOptions {
    /// Where the program portcullis-gateway is on the machine
    #[arg(long, value_name = "PATH", default_value = PROGRAM, value_parser = plain_path)]
    program: String,

    /// Where the machine fetches the program portcullis-gateway from; without it, its image must have
    /// the program
    #[arg(long, value_name = "URL", requires = "program_sha256", value_parser = url)]
    program_url: Option<String>,

    /// The SHA-256 of the program; nothing else is started
    #[arg(long, value_name = "DIGEST", requires = "program_url")]
    program_sha256: Option<Sha256>,

    /// Run without CAP_NET_ADMIN: allow lists, limits and a quota's rate are then kept by the program
    /// and not by the kernel's packet filter
    #[arg(long)]
    no_packet_filter: bool,
}

/// What a machine is to be set up for.
pub(crate) struct Provision {
    /// The text of its configuration file.
    pub(crate) config: String,
    /// The gateway's name.
    pub(crate) name: String,
    /// The port that agents dial.
    pub(crate) tunnel_port: u16,
    /// What it is called in DNS.
    pub(crate) dns_name: Option<String>,
    /// The ports that firewalls before it must let through; empty for 80 and 443.
    pub(crate) published: Vec<GrantedPorts>,
}

/// Returns the document.
pub(super) fn document(arguments: &GatewayArguments) -> Result<Document> {
    let provision = arguments.config.as_deref().map(read).transpose()?;
    arguments.machine.document(arguments.format, provision.as_ref())
}

fn read(path: &Path) -> Result<Provision> {
    let config = Config::read(path).map_err(|error| refused(format!("--config: {error}")))?;
    let text = std::fs::read_to_string(path)
        .map_err(|error| refused(format!("--config: {}: {error}", path.display())))?;
    let grants = config.clusters.iter().filter_map(|it| it.grants.as_ref()).flatten();
    let tunnel_port = config.listen.first().map_or(gateway::config::TUNNEL_PORT, |it| it.port());
    Ok(Provision {
        config: text,
        name: config.name,
        tunnel_port,
        dns_name: None,
        published: grants.flat_map(|it| it.ports.clone()).collect(),
    })
}

impl MachineOptions {
    /// Returns the document of this form.
    pub(crate) fn document(
        &self,
        format: Format,
        provision: Option<&Provision>,
    ) -> Result<Document> {
        if format == Format::Systemd {
            return Ok(Document {
                kind: "gatewaySystemd",
                place: "/etc/systemd/system/portcullis-gateway.service".to_owned(),
                text: self.unit()?,
                steps: vec![
                    format!("put the program portcullis-gateway there, as {}", self.program),
                    "make the account: useradd --system --no-create-home --shell \
                     /usr/sbin/nologin portcullis"
                        .to_owned(),
                    "put the configuration into /etc/portcullis/gateway.toml: portcullis gateway \
                     create NAME --endpoint HOST --format config"
                        .to_owned(),
                    format!(
                        "let connections be fast over long paths: portcullis install gateway \
                         --format sysctl > {LIMITS} && sysctl --load={LIMITS}"
                    ),
                    "save it as /etc/systemd/system/portcullis-gateway.service, then systemctl \
                     daemon-reload && systemctl enable --now portcullis-gateway"
                        .to_owned(),
                ],
            });
        }
        if format == Format::Sysctl {
            return Ok(Document {
                kind: "gatewaySysctl",
                place: LIMITS.to_owned(),
                text: SYSCTL.to_owned(),
                steps: vec![format!("save it as {LIMITS}, then sysctl --load={LIMITS}")],
            });
        }
        let provision = provision.ok_or_else(|| {
            refused(
                "--config: is missing: this form holds the gateway's configuration; `portcullis \
                 gateway create NAME --endpoint HOST --format ...` makes both in one go",
            )
        })?;
        match format {
            Format::CloudInit => self.cloud_init(provision),
            Format::TerraformAws => terraform::aws(provision, &self.cloud_init(provision)?),
            Format::TerraformHetzner => terraform::hetzner(provision, &self.cloud_init(provision)?),
            Format::Systemd | Format::Sysctl | Format::Config => Ok(Document {
                kind: "gatewayConfig",
                place: "/etc/portcullis/gateway.toml".to_owned(),
                text: provision.config.clone(),
                steps: vec!["save it as /etc/portcullis/gateway.toml on the machine".to_owned()],
            }),
        }
    }

    fn cloud_init(&self, provision: &Provision) -> Result<Document> {
        let fetch = match (&self.program_url, &self.program_sha256) {
            (Some(url), Some(digest)) => Some(cloud_init::Fetch {
                unit: self.program_unit(url)?,
                digest: digest.to_string(),
            }),
            _ => None,
        };
        let mut steps = vec!["start the machine with it as its user data".to_owned()];
        if fetch.is_none() {
            steps.push(format!(
                "the machine's image must have the program as {}; or let it be fetched, with \
                 --program-url and --program-sha256",
                self.program
            ));
        }
        Ok(Document {
            kind: "gatewayCloudInit",
            place: "the machine's user data".to_owned(),
            text: cloud_init::text(&provision.config, &self.unit()?, fetch.as_ref()),
            steps,
        })
    }

    fn unit(&self) -> Result<String> {
        let mut unit = replace(UNIT, PROGRAM, &self.program)?;
        if self.no_packet_filter {
            unit = replace(&unit, BOTH, "CAP_NET_BIND_SERVICE")?;
            let both = "# The first: ports below 1024. The second: allow lists and limits in the \
                        kernel (nftables).\n";
            unit = replace(&unit, both, "# Ports below 1024.\n")?;
        }
        Ok(unit)
    }

    fn program_unit(&self, url: &str) -> Result<String> {
        // systemd would expand a single one.
        let unit = replace(PROGRAM_UNIT, PROGRAM_URL, &url.replace('%', "%%"))?;
        replace(&unit, PROGRAM, &self.program)
    }
}

/// Accepts an HTTPS address that needs no quoting in a unit.
fn url(text: &str) -> Result<String, String> {
    let known = |it: char| it.is_ascii_alphanumeric() || "/:._~-?=&+@%,".contains(it);
    let rest = text.strip_prefix("https://").unwrap_or_default();
    if rest.starts_with(|it: char| it.is_ascii_alphanumeric()) && rest.chars().all(known) {
        return Ok(text.to_owned());
    }
    Err("expected an https:// address without spaces and quotes".to_owned())
}
