//! Reaching a host for a command or two: this machine, or another one over SSH.

use anyhow::bail;
use api::host::HostSettings;
use command::{Command, Output};
use controller::reach::Keys;
pub(crate) use controller::reach::describe;
use host::Executor;
use kube::Client;

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
    let keys = client.map_or_else(Keys::in_files, Keys::in_cluster);
    controller::reach::executor(settings, &keys).await.map_err(|error| refused(error.to_string()))
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
