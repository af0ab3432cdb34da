//! The API server goes away, for a moment or for hours, loudly or silently.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use api::object::ObjectKind;
use cluster::backoff::Limits;
use cluster::kubernetes::{Settings, watch};
use cluster::report::Seen;
use cluster::source::State;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::DeleteParams;
use testkit::kubernetes::{ControlPlane, ControlPlaneOptions};
use testkit::require;

use crate::site::{Follower, Wire, address, install_role, quick, quick_limits};
use crate::watching::create_services;

#[tokio::test]
async fn ep_10_what_is_deleted_during_an_outage_disappears_afterwards() -> Result<()> {
    let Some(lab) = Lab::start(quick()).await? else { return Ok(()) };
    let Lab { plane, wire, mut follower, namespace } = lab;

    wire.cut();
    follower.until("the outage is noticed", is_retrying).await?;
    let services: Api<Service> = Api::namespaced(plane.client().await?, &namespace);
    services.delete("s0", &DeleteParams::default()).await?;
    // Long enough for the position to be given up, so that the list is read again.
    let errors = follower.health().kinds[&ObjectKind::Service].errors;
    follower.during_until(|it| it.health().kinds[&ObjectKind::Service].errors > errors + 5).await?;
    assert_eq!(follower.count(ObjectKind::Service, &namespace), 3, "an outage deletes nothing");

    wire.mend();
    follower.until("s0 is gone", |it| it.count(ObjectKind::Service, &namespace) == 2).await?;
    follower.until("all is well", |it| it.health().is_current()).await?;
    assert!(follower.resets[&ObjectKind::Service] > 1);
    Ok(())
}

#[tokio::test]
async fn a_short_cut_is_bridged_without_reading_everything_again() -> Result<()> {
    let Some(lab) = Lab::start(quick()).await? else { return Ok(()) };
    let Lab { plane, wire, mut follower, namespace } = lab;
    wire.cut();
    follower.until("the outage is noticed", is_retrying).await?;
    wire.mend();
    let services: Api<Service> = Api::namespaced(plane.client().await?, &namespace);
    services.delete("s0", &DeleteParams::default()).await?;
    follower.until("s0 is gone", |it| it.count(ObjectKind::Service, &namespace) == 2).await?;
    Ok(())
}

#[tokio::test]
async fn ep_10_an_outage_of_hours_ends_like_one_of_seconds() -> Result<()> {
    let backoff = Limits { cap: Duration::from_secs(5), ..quick_limits() };
    let Some(lab) = Lab::start(Settings { backoff, ..quick() }).await? else { return Ok(()) };
    let Lab { plane, wire, mut follower, namespace } = lab;
    let services: Api<Service> = Api::namespaced(plane.client().await?, &namespace);
    wire.cut();
    follower.until("the outage is noticed", is_retrying).await?;
    services.delete("s0", &DeleteParams::default()).await?;

    // Two hours pass as fast as the tries fail.
    let before = follower.health().kinds[&ObjectKind::Service].errors;
    tokio::time::pause();
    follower.during(Duration::from_secs(2 * 3600)).await;
    tokio::time::resume();
    let tries = follower.health().kinds[&ObjectKind::Service].errors - before;
    assert!(tries > 1000, "it stopped trying: {tries}");
    assert_eq!(follower.count(ObjectKind::Service, &namespace), 3, "an outage deletes nothing");

    wire.mend();
    follower.until("s0 is gone", |it| it.count(ObjectKind::Service, &namespace) == 2).await?;
    follower.until("all is well", |it| it.health().is_current()).await
}

#[tokio::test]
async fn ep_10_a_connection_that_dies_in_silence_is_noticed() -> Result<()> {
    let settings = Settings {
        watch_timeout: Duration::from_secs(1),
        silence: Duration::from_millis(500),
        request_timeout: Duration::from_secs(1),
        ..quick()
    };
    let Some(lab) = Lab::start(settings).await? else { return Ok(()) };
    let Lab { plane, wire, mut follower, namespace } = lab;

    wire.freeze();
    follower.until("silence is noticed", is_retrying).await?;
    let services: Api<Service> = Api::namespaced(plane.client().await?, &namespace);
    services.delete("s0", &DeleteParams::default()).await?;
    wire.mend();
    follower.until("s0 is gone", |it| it.count(ObjectKind::Service, &namespace) == 2).await
}

#[tokio::test]
async fn x_05_an_api_server_that_restarts_is_followed_again() -> Result<()> {
    let Some(lab) = Lab::start(quick()).await? else { return Ok(()) };
    let Lab { plane, wire: _wire, mut follower, namespace } = lab;
    plane.stop_api_server()?;
    follower.until("the outage is noticed", is_retrying).await?;
    let restarted = tokio::task::spawn_blocking(move || plane.start_api_server().map(|()| plane));
    let plane = restarted.await??;
    follower.until("all is well", |it| it.health().is_current()).await?;
    let services: Api<Service> = Api::namespaced(plane.client().await?, &namespace);
    services.delete("s0", &DeleteParams::default()).await?;
    follower.until("s0 is gone", |it| it.count(ObjectKind::Service, &namespace) == 2).await
}

/// A control plane of its own behind a wire, with three Services, and a follower of them.
struct Lab {
    plane: ControlPlane,
    wire: Wire,
    follower: Follower,
    namespace: String,
}

impl Lab {
    async fn start(settings: Settings) -> Result<Option<Self>> {
        let Some(()) = require(ControlPlane::available()) else { return Ok(None) };
        let plane = ControlPlane::start(ControlPlaneOptions::default())?;
        let access = install_role(&plane).await?;
        let namespace = plane.namespace().await?;
        create_services(&plane.client().await?, &namespace, 3).await?;

        let wire = Wire::lay(address(&plane)?).await?;
        let client = wire.client(&access).await?;
        let mut follower = Follower::new(watch(&client, &settings, &Arc::new(Seen::default())));
        follower.until("all is well", |it| it.health().is_current()).await?;
        follower
            .until("three Services", |it| it.count(ObjectKind::Service, &namespace) == 3)
            .await?;
        Ok(Some(Self { plane, wire, follower, namespace }))
    }
}

fn is_retrying(follower: &Follower) -> bool {
    follower.health().kinds[&ObjectKind::Service].state == State::Retrying
}
