//! An open way to one host: an executor, and word of what others change there.

use api::host::{Executor as Way, HostSettings};
use futures::stream::{self, BoxStream, StreamExt};
use host::{Executor, LinkState, Local, LocalChange, LocalChanges, Ssh};

use crate::reach::{self, Keys, ReachError};

/// Somebody changed something on the host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Disturbance {
    /// The packet filter, not by us.
    Firewall,
    /// Interfaces or addresses.
    Addresses,
    /// The way to the host is there again.
    Connection,
}

/// An open way to a host.
pub(crate) struct Opened {
    pub(crate) executor: Box<dyn Executor>,
    pub(crate) disturbances: BoxStream<'static, Disturbance>,
}

/// Opens the way that the Host's settings describe.
///
/// Connecting is not part of it: an SSH executor connects by itself and for ever.
pub(crate) async fn open(settings: &HostSettings, keys: &Keys) -> Result<Opened, ReachError> {
    let ssh = match &settings.executor {
        Way::Local => return Ok(open_local()),
        Way::Ssh(ssh) => reach::ssh_host(settings, ssh, keys).await?,
    };
    let executor = Ssh::new(ssh);
    let link = executor.watch_link();
    let disturbances = stream::unfold(link, |mut link| async move {
        // Only a new session is worth a look; what failed before is tried again by itself.
        while link.changed().await? != LinkState::Up {}
        Some((Disturbance::Connection, link))
    });
    Ok(Opened { executor: Box::new(executor), disturbances: disturbances.boxed() })
}

fn open_local() -> Opened {
    let executor = Local::new().keep_ready();
    let disturbances = match LocalChanges::watch(executor.own_processes()) {
        Ok(changes) => stream::unfold(changes, next_change).boxed(),
        Err(error) => {
            tracing::warn!(%error, "changes by others are only noticed at the next look");
            stream::pending().boxed()
        }
    };
    Opened { executor: Box::new(executor), disturbances }
}

async fn next_change(mut changes: LocalChanges) -> Option<(Disturbance, LocalChanges)> {
    match changes.next().await {
        Ok(LocalChange::Firewall(by)) => {
            tracing::debug!(?by, "somebody else changed the packet filter");
            Some((Disturbance::Firewall, changes))
        }
        Ok(LocalChange::Addresses) => Some((Disturbance::Addresses, changes)),
        Err(error) => {
            tracing::warn!(%error, "changes by others are only noticed at the next look");
            None
        }
    }
}
