//! One leader at a time, with a real Lease and the shipped role.

use std::time::{Duration, Instant};

use anyhow::Result;
use cluster::leader::{Leadership, Settings, run, unique_identity};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::DeleteParams;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;

use crate::site::{LIMIT, Site};

const SETTINGS: Settings = Settings {
    lease_duration: Duration::from_secs(3),
    renew_deadline: Duration::from_secs(2),
    retry_period: Duration::from_millis(200),
};

#[tokio::test]
async fn a_leader_that_stops_hands_over_at_once() -> Result<()> {
    let Some((site, _lock)) = site().await? else { return Ok(()) };
    let (one, other) = (candidate(&site), candidate(&site));
    let (first, second) = sort(one, other).await?;

    let begin = Instant::now();
    first.release(LIMIT).await;
    lead(&second).await?;
    // Sooner than a lease runs out: it was given back.
    assert!(begin.elapsed() < SETTINGS.lease_duration, "{:?}", begin.elapsed());
    second.release(LIMIT).await;

    let lease = leases(&site).get("portcullis").await?;
    let holder = lease.spec.and_then(|it| it.holder_identity);
    assert_eq!(holder.unwrap_or_default(), "");
    Ok(())
}

#[tokio::test]
async fn a_leader_that_is_killed_is_replaced_when_its_lease_has_run_out() -> Result<()> {
    let Some((site, _lock)) = site().await? else { return Ok(()) };
    let (first, second) = sort(candidate(&site), candidate(&site)).await?;

    let killed = Instant::now();
    drop(first);
    lead(&second).await?;
    // Not before: the killed one might have been alive.
    let patience = SETTINGS.lease_duration - SETTINGS.retry_period * 2;
    assert!(killed.elapsed() > patience, "{:?}", killed.elapsed());
    second.release(LIMIT).await;
    Ok(())
}

#[tokio::test]
async fn a_leader_whose_lease_is_taken_away_stops_leading() -> Result<()> {
    let Some((site, _lock)) = site().await? else { return Ok(()) };
    let leader = candidate(&site);
    lead(&leader).await?;
    let thief = serde_json::json!({ "spec": { "holderIdentity": "thief" } });
    let patch = kube::api::Patch::Merge(&thief);
    leases(&site).patch("portcullis", &kube::api::PatchParams::default(), &patch).await?;
    let stopped = timeout(LIMIT, leader.follow().changed(true)).await?;
    assert!(!stopped);
    assert!(!leader.is_leading());
    Ok(())
}

#[tokio::test]
async fn without_an_election_one_leads_alone() {
    assert!(Leadership::alone().is_leading());
}

/// One Lease is enough for all tests, so they take turns.
async fn site() -> Result<Option<(Site, MutexGuard<'static, ()>)>> {
    static TURN: Mutex<()> = Mutex::const_new(());
    let Some(site) = Site::shared().await? else { return Ok(None) };
    let turn = TURN.lock().await;
    // Absent already, before the first turn.
    let _ = leases(&site).delete("portcullis", &DeleteParams::default()).await;
    Ok(Some((site, turn)))
}

fn leases(site: &Site) -> Api<Lease> {
    Api::namespaced(site.admin.clone(), "portcullis")
}

fn candidate(site: &Site) -> Leadership {
    run(&site.controller, "portcullis", "portcullis", &unique_identity("test"), SETTINGS)
}

async fn lead(candidate: &Leadership) -> Result<()> {
    let mut leading = candidate.follow();
    anyhow::ensure!(timeout(LIMIT, leading.changed(false)).await?);
    Ok(())
}

/// Waits until one of two leads; the leader first.
async fn sort(one: Leadership, other: Leadership) -> Result<(Leadership, Leadership)> {
    let (mut a, mut b) = (one.follow(), other.follow());
    let either = async {
        tokio::select! {
            _ = a.changed(false) => {}
            _ = b.changed(false) => {}
        }
    };
    timeout(LIMIT, either).await?;
    anyhow::ensure!(one.is_leading() != other.is_leading(), "exactly one leads");
    Ok(if one.is_leading() { (one, other) } else { (other, one) })
}
