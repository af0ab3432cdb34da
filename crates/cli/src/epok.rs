//! Epok's command line: `portcullis epok ...`, and this program called by the name `epok` or
//! `epok-clean`.

mod addresses;
mod host_key;
pub(crate) mod options;
mod running;

use api::host::{Host, HostSettings};
use firewall::Backend;
use host::ExecuteError;

use self::options::{CleanExecutor, CleanOptions, EpokOptions, Executor, MachineOptions};
use crate::arguments::Output;
use crate::ending::{Ending, Result, refused};
use crate::{cleanup, declared, host_choice, manifest, print, reach, take_over};

/// Does what Epok does with these options.
pub(crate) async fn run(options: &EpokOptions, output: Output) -> Result {
    if let Executor::Clean(clean_options) = &options.executor {
        return clean(clean_options, output).await;
    }
    let mut remarks = Vec::new();
    let host = host(options, &mut remarks).await?;
    for remark in &remarks {
        print::note(format_args!("note: {remark}"));
    }
    if options.print_host {
        manifest::print(&host, output)?;
        return Ok(Ending::Done);
    }
    running::run(options, host).await
}

/// Does what epok-clean does: removes every rule of Epok's, and ours.
pub(crate) async fn clean(options: &CleanOptions, output: Output) -> Result {
    for remark in options.batch.remarks() {
        print::note(format_args!("note: {remark}"));
    }
    let settings = match &options.executor {
        CleanExecutor::Local => cleanup::this_machine()?,
        CleanExecutor::Ssh(ssh) => {
            // Its interfaces do not matter for a clean-up.
            let machine =
                MachineOptions { interfaces: Some("lo".to_owned()), ..MachineOptions::default() };
            let mut host = machine.meaning("host")?.host;
            let key = host_key::pinned(ssh).await?;
            ssh.apply_to(&mut host, key)?;
            settings(&host)?
        }
    };
    let mut executor = reach::executor(&settings, None).await?;
    let left = take_over::find(&mut *executor).await?;
    let mut removed: Vec<String> = left.rules.iter().map(take_over::describe).collect();
    if let Some(removal) = left.removal().filter(|_| !options.dry_run) {
        reach::succeed(&mut *executor, &removal).await?;
    }
    for backend in [Backend::Nftables, Backend::Iptables] {
        removed.extend(cleanup::clean_backend(&mut *executor, backend, options.dry_run).await?);
    }
    for line in &left.unclear {
        print::note(format_args!(
            "warning: left alone, because it is not quite as Epok writes it: {line}"
        ));
    }
    cleanup::print_removed(&settings, removed, options.dry_run, output)?;
    Ok(if left.unclear.is_empty() { Ending::Done } else { Ending::Found })
}

/// Returns the Host that the options mean, and adds what they do not mean to `remarks`.
pub(crate) async fn host(options: &EpokOptions, remarks: &mut Vec<String>) -> Result<Host> {
    let name = match &options.executor {
        Executor::Ssh(ssh) => ssh.user_and_address()?.1.to_lowercase(),
        Executor::Local | Executor::Clean(_) => declared::this_machine()?,
    };
    // An address of IPv6 is no name for an object.
    let name = match name.parse::<api::name::ObjectName>() {
        Ok(name) => name.to_string(),
        Err(_) => "epok".to_owned(),
    };
    let meaning = options.machine.meaning(&name)?;
    remarks.extend(meaning.remarks);
    remarks.extend(options.batch.remarks());
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

/// nftables where the host lets us use it, iptables where its sudoers line permits only that.
pub(crate) async fn choose_backend(host: &mut Host) -> Result<()> {
    let settings = settings(host)?;
    let mut executor = reach::executor(&settings, None).await?;
    let options = host_choice::options(&settings);
    let listed = host_choice::observe(&mut *executor, Backend::Nftables, options).await;
    let Err(error) = listed else { return Ok(()) };
    match error.downcast_ref::<ExecuteError>() {
        Some(
            reason @ (ExecuteError::CannotStart { .. }
            | ExecuteError::SudoRefused { .. }
            | ExecuteError::Refused { .. }),
        ) => {
            print::note(format_args!(
                "warning: nftables cannot be used on the host, so iptables is used instead: {reason}"
            ));
            host.spec.backend = "iptables".to_owned();
            Ok(())
        }
        Some(_) | None => Err(error),
    }
}

fn settings(host: &Host) -> Result<HostSettings> {
    host.settings().map_err(|problems| {
        refused(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    })
}
