//! The one task that opens and closes sockets, keeps the kernel's rules and counts traffic.
//!
//! Wishes come here in the order in which agents say them; one that has been replaced before its
//! turn comes is never carried out.

mod accounts;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};
use tunnel::windows::Windows;
use tunnel_proto::message::Desired;

use crate::config::{ClusterName, Config};
use crate::inner::{Inner, Note};
use crate::kernel::Kernel;
use crate::socket::UDP_BUFFER;
use accounts::Accounts;

/// How often traffic is counted and what failed is tried again.
const TICK: Duration = Duration::from_secs(1);

/// Every so many ticks, what failed is tried again.
const RETRY: u64 = 2;

/// Every so many ticks, what is no longer needed is forgotten, and traffic is kept.
const TIDY: u64 = 30;

/// Something to do.
#[derive(Debug)]
pub(crate) enum Errand {
    /// A cluster wishes something, as its agent of this name says.
    Wish(ClusterName, String, Desired),
    /// An agent of a cluster has left.
    Left(ClusterName, String),
    /// The configuration has changed.
    Configure(Box<Config>),
    /// Takes visitors on sockets that were handed over, until now only held.
    TakeVisitors,
    /// Keeps traffic on disk for the next process; what is counted from now on is not kept, unless
    /// [`Errand::KeepOn`] says that there is no next process after all.
    HandCounts(oneshot::Sender<()>),
    /// Keeps traffic as before.
    KeepOn,
    /// Keeps everything that must be kept, and does nothing more. `true`: the kernel's rules go
    /// too, `false`: another process has taken them over.
    End(bool, oneshot::Sender<()>),
}

/// Works until told to end.
pub(crate) async fn keep(inner: Arc<Inner>, mut errands: mpsc::UnboundedReceiver<Errand>) {
    let mut kernel = Kernel::new();
    let mut accounts = Accounts::open(&inner);
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ticks: u64 = 0;
    note_windows(&inner);
    settle(&inner, &mut kernel, &accounts).await;
    loop {
        tokio::select! {
            errand = errands.recv() => {
                let Some(errand) = errand else { return };
                let mut taken = BTreeMap::new();
                let mut next = Some(errand);
                while let Some(errand) = next {
                    match errand {
                        Errand::Wish(cluster, by, desired) => {
                            match inner.table().wish(&cluster, desired.clone(), &by) {
                                Ok(()) => {
                                    taken.insert(cluster, desired);
                                }
                                Err(why) => {
                                    tracing::info!(%cluster, by, %why, "a wish is not taken");
                                }
                            }
                        }
                        Errand::Left(cluster, agent) => inner.table().left(&cluster, &agent),
                        Errand::Configure(config) => {
                            inner.configure(*config);
                            accounts.configure(&inner);
                        }
                        Errand::TakeVisitors => inner.table().take_visitors(),
                        Errand::HandCounts(done) => {
                            accounts.hand_over(&inner);
                            // Whoever asked may be gone.
                            let _gone = done.send(());
                        }
                        Errand::KeepOn => accounts.keep_on(),
                        Errand::End(remove, done) => {
                            accounts.keep(&inner);
                            if remove {
                                kernel.remove().await;
                            }
                            // Whoever asked may be gone.
                            let _gone = done.send(());
                            return;
                        }
                    }
                    next = errands.try_recv().ok();
                }
                for (cluster, desired) in taken {
                    keep_wish(&inner, cluster, desired).await;
                }
                accounts.configure(&inner);
                settle(&inner, &mut kernel, &accounts).await;
            }
            _ = tick.tick() => {
                ticks += 1;
                let changed = accounts.count(&inner);
                if ticks.is_multiple_of(TIDY) {
                    accounts.keep(&inner);
                    inner.table().listeners().for_each(|it| it.tidy());
                    note_windows(&inner);
                }
                let retry = ticks.is_multiple_of(RETRY)
                    && (inner.table().lacks_something() || kernel.refused().is_some());
                if changed || retry {
                    settle(&inner, &mut kernel, &accounts).await;
                }
            }
            () = kernel.disturbed() => settle(&inner, &mut kernel, &accounts).await,
        }
    }
}

/// Keeps a wish for the next start.
async fn keep_wish(inner: &Inner, cluster: ClusterName, desired: Desired) {
    let state = inner.state.clone();
    let kept = tokio::task::spawn_blocking({
        let cluster = cluster.clone();
        move || state.keep_desired(&cluster, &desired)
    });
    if let Ok(Err(error)) = kept.await {
        tracing::error!(%cluster, %error, "a wish cannot be kept; it is lost with a restart");
    }
}

async fn settle(inner: &Arc<Inner>, kernel: &mut Kernel, accounts: &Accounts) {
    if inner.table().is_closed() {
        return;
    }
    let before = inner.states();
    inner.table().settle();
    let mut filter = inner.table().filter();
    filter.shaped = accounts.shaped(inner);
    let ours = inner.table().takes_visitors();
    let kept = ours && kernel.apply(&filter).await;
    for (name, cluster) in inner.clusters() {
        let shaped = filter.shaped.get(name.as_str()).filter(|_| !kept);
        cluster.slow_down(shaped.map(|it| it.bits_per_second));
    }
    for listener in inner.table().listeners() {
        listener.set_kernel_limits(kept && filter.ports.contains_key(&listener.key));
    }
    inner.note(Note::KernelLimits, kernel.refused().map(|why| {
        format!(
            "limits are kept by the program and not by the kernel ({why}); install nft and give \
             the gateway CAP_NET_ADMIN"
        )
    }));
    if inner.states() != before {
        crate::descriptors::keep(inner);
        let small = inner.table().udp_buffer().filter(|it| *it < UDP_BUFFER);
        inner.note(Note::UdpBuffer, small.map(|it| {
            format!(
                "receive buffers of UDP sockets have {it} bytes, {UDP_BUFFER} are asked for; set \
                 net.core.rmem_max to {UDP_BUFFER}, or datagrams are lost when many come at once"
            )
        }));
        inner.clusters().values().for_each(|it| it.tell());
    }
}

/// Small windows of this machine are a thing to know where agents are far away.
fn note_windows(inner: &Inner) {
    let windows = Windows::here();
    let small = windows.and_then(|it| it.remedy().map(|remedy| format!("{it}; {remedy}")));
    inner.note(Note::Windows, small);
}
