//! Who saw what when, independent of the controller: the kernel's own announcements, and a watch of
//! the API server beside the controller's.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use host::{LocalChange, LocalChanges};
use testkit::Machine;
use tokio::sync::oneshot;

/// How long anything may take that should happen at once.
const PATIENCE: Duration = Duration::from_secs(20);

/// Things seen, each with its moment.
pub(crate) struct Seen<T>(pub(crate) Receiver<(T, Instant)>);

impl<T> Seen<T> {
    /// Forgets what was seen so far.
    pub(crate) fn forget(&self) {
        while self.0.try_recv().is_ok() {}
    }

    /// When the first thing since the last call was seen that `is_it` says yes to.
    pub(crate) fn next(&self, what: &str, is_it: impl Fn(&T) -> bool) -> Result<Instant> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.0.recv_timeout(left) {
                Ok((thing, when)) if is_it(&thing) => return Ok(when),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => anyhow::bail!("not within {PATIENCE:?}: {what}"),
                Err(RecvTimeoutError::Disconnected) => {
                    anyhow::bail!("{what}: nobody looks any more")
                }
            }
        }
    }
}

/// Listens where the kernel of a machine announces transactions of nftables.
pub(crate) struct Transactions {
    pub(crate) seen: Seen<()>,
    stop: Option<oneshot::Sender<()>>,
    listening: Option<JoinHandle<()>>,
}

impl Transactions {
    /// Starts to listen.
    pub(crate) fn of(machine: &Machine) -> Result<Self> {
        let (sender, receiver) = channel();
        let (ready, is_ready) = channel();
        let (stop, mut stopped) = oneshot::channel();
        let machine = machine.clone();
        let listening = std::thread::spawn(move || {
            let listen = || -> Result<()> {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(async {
                    // No process is ours: every transaction is told.
                    let mut changes = LocalChanges::watch(host::OwnProcesses::default())?;
                    ready.send(())?;
                    loop {
                        tokio::select! {
                            change = changes.next() => if let LocalChange::Firewall(_) = change? {
                                sender.send(((), Instant::now()))?;
                            },
                            _ = &mut stopped => return Ok(()),
                        }
                    }
                })
            };
            // Whoever waits for announcements learns from the closed channel.
            let _over = machine.enter(listen);
        });
        is_ready.recv().context("the kernel's announcements cannot be heard")?;
        Ok(Self { seen: Seen(receiver), stop: Some(stop), listening: Some(listening) })
    }
}

impl Drop for Transactions {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _over = stop.send(());
        }
        if let Some(listening) = self.listening.take() {
            let _panicked = listening.join();
        }
    }
}
