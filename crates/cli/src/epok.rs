//! Epok's command line: `portcullis epok ...`, and this program called by the name `epok` or
//! `epok-clean`.

mod addresses;
mod host_key;
pub(crate) mod options;

use api::host::Host;

use self::options::{CleanOptions, EpokOptions, Executor};
use crate::arguments::Output;
use crate::ending::{Ending, Result, refused};
use crate::{declared, manifest, print};

/// Does what Epok does with these options.
pub(crate) async fn run(options: &EpokOptions, output: Output) -> Result {
    let host = host(options).await?;
    if options.print_host {
        manifest::print(&host, output)?;
        return Ok(Ending::Done);
    }
    Err(refused("not yet"))
}

/// Does what epok-clean does.
pub(crate) async fn clean(_options: &CleanOptions, _output: Output) -> Result {
    Err(refused("not yet"))
}

/// Returns the Host that the options mean, and says what they do not mean.
async fn host(options: &EpokOptions) -> Result<Host> {
    let name = match &options.executor {
        Executor::Ssh(ssh) => ssh.user_and_address()?.1.to_lowercase(),
        Executor::Local | Executor::Clean(_) => declared::this_machine()?,
    };
    // An address of IPv6 is no name for an object.
    let name = match name.parse::<api::name::ObjectName>() {
        Ok(name) => name.to_string(),
        Err(_) => "epok".to_owned(),
    };
    let mut meaning = options.machine.meaning(&name)?;
    meaning.remarks.extend(options.batch.remarks());
    for remark in &meaning.remarks {
        print::note(format_args!("note: {remark}"));
    }
    let mut host = meaning.host;
    match options.backend.as_str() {
        "auto" | "nftables" => {}
        "iptables" => host.spec.backend = "iptables".to_owned(),
        other => {
            return Err(refused(format!(
                "--backend (EPOK_BACKEND): {other:?}: not a packet filter that can be programmed; \
                 write nftables, iptables or auto"
            )));
        }
    }
    if let Executor::Ssh(ssh) = &options.executor {
        // Everything else is checked before the host is asked for its key.
        let placeholder =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        ssh.apply_to(&mut host, placeholder.to_owned())?;
        let key = host_key::pinned(ssh).await?;
        ssh.apply_to(&mut host, key)?;
    }
    Ok(host)
}
