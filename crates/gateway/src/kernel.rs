//! Keeps the kernel's part of the limits as wished, where it lets us.

use std::time::Duration;

use command::{Command, Program};
use host::{Local, LocalChange, LocalChanges};
use tokio::time::Instant;

use crate::filter::{Filter, removal};

/// How long one transaction may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// How often it is tried again after the kernel refused.
const AGAIN: Duration = Duration::from_secs(60);

/// The kernel's table, as far as we know it.
#[derive(Debug)]
pub(crate) struct Kernel {
    executor: Local,
    /// What the kernel has; `None` when that is not known.
    applied: Option<Filter>,
    /// Whether there may be a table of ours that is to be removed.
    may_be_there: bool,
    refused: Option<(String, Instant)>,
    changes: Option<LocalChanges>,
}

impl Kernel {
    /// Nothing is known of the kernel yet.
    pub(crate) fn new() -> Self {
        Self {
            executor: Local::new(),
            applied: None,
            may_be_there: false,
            refused: None,
            changes: None,
        }
    }

    /// Makes the kernel's table as wanted. Returns whether it is.
    pub(crate) async fn apply(&mut self, wanted: &Filter) -> bool {
        let nothing = *wanted == Filter::default();
        let text = match &self.applied {
            Some(applied) => wanted.change_from(applied),
            None if nothing => self.may_be_there.then(removal),
            None => wanted.whole(),
        };
        let Some(text) = text else {
            if nothing {
                self.refused = None;
                self.applied = Some(Filter::default());
            }
            return self.applied.is_some();
        };
        if self.refused.as_ref().is_some_and(|(_, at)| at.elapsed() < AGAIN) && !nothing {
            return false;
        }
        match self.run(text).await {
            Ok(()) => {
                self.applied = Some(wanted.clone());
                self.may_be_there = !nothing;
                self.refused = None;
                if self.changes.is_none() && !nothing {
                    // Without it, what others do to our table is not seen.
                    self.changes = LocalChanges::watch(self.executor.own_processes()).ok();
                }
                true
            }
            Err(why) => {
                if self.refused.is_none() {
                    tracing::warn!(%why, "the kernel keeps no limits for us; this program does");
                }
                self.applied = None;
                self.refused = Some((why, Instant::now()));
                false
            }
        }
    }

    /// Removes our table, if there is one.
    pub(crate) async fn remove(&mut self) {
        if self.may_be_there
            && let Err(why) = self.run(removal()).await
        {
            tracing::warn!(%why, "our table stays in the kernel");
        }
    }

    /// Why the kernel keeps no limits, if it was asked to and does not.
    pub(crate) fn refused(&self) -> Option<&str> {
        self.refused.as_ref().map(|(why, _)| why.as_str())
    }

    /// Waits until somebody else has changed the kernel's rules; then nothing is known of them.
    pub(crate) async fn disturbed(&mut self) {
        loop {
            let Some(changes) = &mut self.changes else { return std::future::pending().await };
            match changes.next().await {
                Ok(LocalChange::Firewall(by)) => {
                    tracing::debug!(?by, "somebody changed the kernel's rules");
                    self.applied = None;
                    return;
                }
                Ok(LocalChange::Addresses) => {}
                Err(error) => {
                    tracing::warn!(%error, "changes of the kernel's rules are not seen any more");
                    self.changes = None;
                }
            }
        }
    }

    async fn run(&self, text: String) -> Result<(), String> {
        let command = Command::new(Program::Nft).args(["-f", "-"]).stdin(text);
        match self.executor.run_within(&command, DEADLINE).await {
            Ok(output) if output.succeeded() => Ok(()),
            Ok(output) => Err(first_line(&output.stderr)),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or("nft failed and did not say why").trim().to_owned()
}
