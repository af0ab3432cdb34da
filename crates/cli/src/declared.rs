//! A Host that is declared by flags, where there is no Host object for a machine.

use api::host::{Host, HostSpec};
use clap::Args;

use crate::ending::{Result, refused};

/// The flags that declare a Host. Each has the meaning of the field of the same name.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Instead of a Host object")]
pub(crate) struct DeclaredHost {
    /// The interfaces through which forwards are reachable, the external one included
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) interfaces: Vec<String>,

    /// The interface that internal forwards are not reachable through
    #[arg(long, value_name = "NAME", requires = "interfaces")]
    pub(crate) external_interface: Option<String>,

    /// Further destination addresses to forward, beside those of the external interface
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',', requires = "external_interface")]
    pub(crate) extra_internal_addresses: Vec<String>,

    /// The packet filter: nftables or iptables
    #[arg(long, value_name = "FILTER", requires = "interfaces")]
    pub(crate) backend: Option<String>,

    /// Accept forwarded connections even where the forward policy is to drop
    #[arg(long, requires = "interfaces")]
    pub(crate) accept_forwarded: bool,

    /// Give forwarded connections the host's own address as their source
    #[arg(long, requires = "interfaces")]
    pub(crate) masquerade: bool,

    /// Let targets reach host ports that lead back into their own network
    #[arg(long, requires = "interfaces")]
    pub(crate) hairpin: bool,
}

impl DeclaredHost {
    /// Returns the Host, checked; nothing when no flag declares one.
    pub(crate) fn host(&self, name: &str) -> Result<Option<Host>> {
        if self.interfaces.is_empty() {
            return Ok(None);
        }
        let trim = |it: &Vec<String>| it.iter().map(|it| it.trim().to_owned()).collect();
        let mut spec = HostSpec {
            interfaces: trim(&self.interfaces),
            external_interface: self.external_interface.as_ref().map(|it| it.trim().to_owned()),
            extra_internal_addresses: trim(&self.extra_internal_addresses),
            accept_forwarded: self.accept_forwarded,
            masquerade: self.masquerade,
            hairpin: self.hairpin,
            ..HostSpec::default()
        };
        if let Some(backend) = &self.backend {
            spec.backend.clone_from(backend);
        }
        let host = Host::new(name, spec);
        check(&host, flag)?;
        Ok(Some(host))
    }
}

/// Refuses a Host whose fields came from flags, with every problem under the name of its flag.
pub(crate) fn check(host: &Host, flag: fn(&str) -> Option<&'static str>) -> Result<()> {
    let Err(problems) = host.settings() else { return Ok(()) };
    let lines = problems.iter().map(|it| {
        let field = it.field.split_once('[').map_or(it.field.as_str(), |(field, _)| field);
        let name = flag(field).unwrap_or(field);
        format!("{name}: {:?}: {}; {}", it.value, it.problem, it.remedy)
    });
    Err(refused(lines.collect::<Vec<_>>().join("\n")))
}

fn flag(field: &str) -> Option<&'static str> {
    match field {
        "metadata.name" => Some("--host"),
        "spec.interfaces" => Some("--interfaces"),
        "spec.externalInterface" => Some("--external-interface"),
        "spec.extraInternalAddresses" => Some("--extra-internal-addresses"),
        "spec.backend" => Some("--backend"),
        _ => None,
    }
}

/// The host name of this machine, as the name of a Host.
pub(crate) fn this_machine() -> Result<String> {
    const FILE: &str = "/proc/sys/kernel/hostname";
    let name = std::fs::read_to_string(FILE)
        .map_err(|error| refused(format!("{FILE}: {error}; name this machine with --host")))?;
    // A host name may hold upper case letters, the name of an object may not.
    Ok(name.trim().to_lowercase())
}
