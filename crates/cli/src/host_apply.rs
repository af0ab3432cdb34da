//! `portcullis host-apply`: the other end of a forced command. sshd starts it; people do not.
//!
//! What the client asked sshd for is not looked at. Commands come in on standard input, and only
//! those run that this program could have written itself.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use command::Command;
use host::Local;
use host::host_apply::{HostApply, rollback_main, serve};

use crate::cleanup::RUNTIME_DIRECTORY;
use crate::ending::{Ending, Result};

/// How it was started.
#[derive(Args, Debug)]
pub(crate) struct HostApplyArguments {
    /// Wait for the confirmation of one change, and take it back when that does not come
    #[arg(long, hide = true)]
    rollback: bool,

    /// Where unconfirmed changes are noted: a directory that only this account can enter
    #[arg(long, value_name = "DIR", default_value = RUNTIME_DIRECTORY)]
    runtime_directory: PathBuf,
}

/// Answers requests until the connection ends.
pub(crate) async fn run(arguments: &HostApplyArguments) -> Result {
    let program = std::env::current_exe().context("cannot find out where this program is")?;
    let rollback: [OsString; 5] = [
        program.into(),
        "host-apply".into(),
        "--rollback".into(),
        "--runtime-directory".into(),
        arguments.runtime_directory.clone().into(),
    ];
    let host_apply = HostApply {
        runtime_dir: arguments.runtime_directory.clone(),
        rollback_program: rollback.into(),
        local: Local::new(),
    };
    if arguments.rollback {
        rollback_main(&host_apply, std::io::stdin(), std::io::stdout(), permitted).await?;
    } else {
        serve(tokio::io::stdin(), tokio::io::stdout(), &host_apply, permitted).await?;
    }
    Ok(Ending::Done)
}

fn permitted(command: &Command) -> Result<(), String> {
    firewall::guard::check(command).map_err(|refusal| refusal.to_string())
}
