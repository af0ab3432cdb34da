//! What every way to a host can do. Nothing here knows how any of them does it.

use std::time::Duration;

use command::{Command, Output};
use futures::future::BoxFuture;

use crate::ExecuteError;

/// Runs commands on one host, one after the other.
///
/// Dropping a future that was returned from here is safe: the executor stays usable, and what the
/// command had begun on the host either happened as a whole or not at all, because every change
/// that we send is one transaction of the kernel.
pub trait Executor: Send {
    /// Runs `command` to its end and returns what it left behind, whatever its exit status.
    ///
    /// # Errors
    ///
    /// Fails when the program did not run to its end: it could not be started, was not permitted,
    /// wrote too much, or the host did not answer within the executor's deadline.
    fn run<'a>(&'a mut self, command: &'a Command) -> BoxFuture<'a, Result<Output, ExecuteError>>;

    /// Runs a change that takes itself back unless the host can still be reached afterwards.
    ///
    /// Returns what each command of [`ConfirmedChange::apply`] left behind. When one of them ends
    /// with a status other than zero, those before it are rolled back at once, those after it do
    /// not run, and its output is the last one returned.
    ///
    /// The default is for hosts that no change of ours can cut off: it needs no confirmation.
    ///
    /// # Errors
    ///
    /// As for [`run`](Self::run), and [`ExecuteError::NotConfirmed`] when the change was applied
    /// but could not be confirmed over a fresh connection; the host then rolls it back.
    fn run_confirmed<'a>(
        &'a mut self,
        change: &'a ConfirmedChange,
    ) -> BoxFuture<'a, Result<Vec<Output>, ExecuteError>> {
        Box::pin(async move {
            let mut outputs = Vec::with_capacity(change.apply.len());
            for command in &change.apply {
                let output = self.run(command).await;
                if matches!(&output, Ok(output) if output.succeeded()) {
                    outputs.extend(output);
                    continue;
                }
                if !outputs.is_empty() {
                    for command in &change.rollback {
                        self.run(command).await?;
                    }
                }
                outputs.push(output?);
                break;
            }
            Ok(outputs)
        })
    }
}

/// A change together with its way back.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfirmedChange {
    /// What makes the change, in this order.
    pub apply: Vec<Command>,
    /// What restores the state from before the change, whichever part of it was applied.
    pub rollback: Vec<Command>,
    /// How long the host waits for the confirmation before it rolls back; whole milliseconds.
    pub within: Duration,
}
