//! What each cluster has transferred this month, and what follows from it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tunnel_proto::message::{QuotaAction, QuotaWish};
use tunnel_proto::quota::{self, Counted, Quota, Standing};

use crate::clock::now_seconds;
use crate::cluster::Cluster;
use crate::config::ClusterName;
use crate::filter::Shaped;
use crate::inner::Inner;
use crate::traffic::bytes;

/// The accounts of the clusters that have a quota.
#[derive(Debug)]
pub(super) struct Accounts {
    accounts: BTreeMap<ClusterName, Account>,
    /// Another process keeps them on disk.
    handed_over: bool,
}

#[derive(Debug)]
struct Account {
    quota: Quota,
    wish: QuotaWish,
    /// What the meters said when they were last read.
    read: u64,
    standing: Standing,
    kept: Counted,
}

impl Accounts {
    /// Goes on from what was kept.
    pub(super) fn open(inner: &Arc<Inner>) -> Self {
        let mut accounts = Self { accounts: BTreeMap::new(), handed_over: false };
        accounts.configure(inner);
        accounts
    }

    /// Takes the quotas that are in force now.
    pub(super) fn configure(&mut self, inner: &Arc<Inner>) {
        let now = now_seconds();
        let clusters = inner.clusters();
        self.accounts.retain(|name, _| clusters.contains_key(name));
        for (name, cluster) in clusters {
            let Some(wish) = wish(inner, &name, &cluster) else {
                if self.accounts.remove(&name).is_some() {
                    cluster.stop(false);
                    inner.set_quota(&name, None);
                }
                continue;
            };
            match self.accounts.get_mut(&name) {
                Some(account) if account.wish == wish => {}
                Some(account) => {
                    account.wish = wish;
                    account.quota.change(wish, now);
                }
                None => {
                    let kept = inner.state.counted(&name).unwrap_or_default();
                    let quota = Quota::new(wish, kept, now);
                    let read = total(inner, &cluster);
                    let standing = Standing::Within;
                    self.accounts.insert(name, Account { quota, wish, read, standing, kept });
                }
            }
        }
        self.count(inner);
    }

    /// Counts what has been transferred since the last time. Returns whether a rate has to change.
    pub(super) fn count(&mut self, inner: &Arc<Inner>) -> bool {
        let now = now_seconds();
        let mut changed = false;
        let clusters = inner.clusters();
        for (name, account) in &mut self.accounts {
            let Some(cluster) = clusters.get(name) else { continue };
            let total = total(inner, cluster);
            let before = std::mem::replace(&mut account.read, total);
            // Meters of ports that moved between two readings may be missed for one of them.
            account.quota.count(total.saturating_sub(before), now);
            let standing = account.quota.standing(now);
            if standing != account.standing {
                account.standing = standing;
                changed = true;
                tracing::warn!(cluster = %name, ?standing, "traffic of this month");
            }
            cluster.stop(standing == Standing::Over(QuotaAction::Stop));
            inner.set_quota(name, Some(account.quota.report(now)));
        }
        if changed {
            self.write(inner);
        }
        changed
    }

    /// Keeps the accounts on disk for another process, and no more from then on.
    pub(super) fn hand_over(&mut self, inner: &Arc<Inner>) {
        self.keep(inner);
        self.handed_over = true;
    }

    /// No other process keeps them after all.
    pub(super) fn keep_on(&mut self) {
        self.handed_over = false;
    }

    /// Keeps the accounts on disk.
    pub(super) fn keep(&mut self, inner: &Arc<Inner>) {
        self.count(inner);
        if !self.handed_over {
            for (name, account) in &mut self.accounts {
                account.quota.count(inner.state.take_late(name), now_seconds());
            }
        }
        self.write(inner);
    }

    fn write(&mut self, inner: &Inner) {
        if self.handed_over {
            return;
        }
        for (name, account) in &mut self.accounts {
            let counted = account.quota.counted();
            if counted == account.kept {
                continue;
            }
            match inner.state.keep_counted(name, counted) {
                Ok(()) => account.kept = counted,
                Err(error) => tracing::error!(cluster = %name, %error, "traffic cannot be kept"),
            }
        }
    }

    /// Clusters whose flows have to be slow.
    pub(super) fn shaped(&self, inner: &Arc<Inner>) -> BTreeMap<String, Shaped> {
        let slow = self
            .accounts
            .iter()
            .filter(|(_, it)| it.standing == Standing::Over(QuotaAction::Shape));
        let shaped = slow.map(|(name, account)| {
            let table = inner.table();
            let listeners = table.listeners().filter(|it| it.cluster.name == *name);
            let ports: BTreeSet<_> = listeners.map(|it| (it.key.protocol, it.key.port)).collect();
            let bits_per_second = account.wish.shape_bits_per_second;
            (name.to_string(), Shaped { bits_per_second, ports })
        });
        shaped.filter(|(_, it)| !it.ports.is_empty()).collect()
    }
}

/// The stricter of what the configuration says and what the cluster's objects ask for.
fn wish(inner: &Inner, name: &ClusterName, cluster: &Cluster) -> Option<QuotaWish> {
    let own = cluster.config().quota.map(|it| it.as_wish());
    let asked = inner.table().quota(name);
    match (own, asked) {
        (Some(own), Some(asked)) => Some(quota::stricter(own, asked)),
        (own, asked) => own.or(asked),
    }
}

/// Bytes of a cluster since the process began.
fn total(inner: &Inner, cluster: &Cluster) -> u64 {
    let table = inner.table();
    let listeners = table.listeners().filter(|it| it.cluster.name == cluster.name);
    let open: u64 = listeners.map(|it| bytes(&it.meter)).sum();
    open + cluster.traffic.left()
}
