//! What is written to a real API server, with the shipped role.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use api::host::{Host, HostStatus};
use api::object::{ObjectKind, ObjectRef};
use cluster::kubernetes::watch;
use cluster::report::{CONTROLLER, FORWARDED, Report, Reporter, Seen, ServiceReport};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use planner::finding::{Finding, Severity};
use serde_json::json;

use crate::site::{Follower, LIMIT, Site, quick, quick_limits};
use crate::watching::service;

#[tokio::test]
async fn a_service_of_our_class_gets_its_addresses_and_a_condition() -> Result<()> {
    let Some(Stage { site, reporter, mut follower, services, .. }) = Stage::set().await? else {
        return Ok(());
    };
    let (ours, theirs) = (service_ref(&site, "ours"), service_ref(&site, "theirs"));
    reporter.publish(Report {
        services: Some(BTreeMap::from([
            (ours.clone(), said(true, "192.0.2.1")),
            (theirs.clone(), said(false, "192.0.2.1")),
        ])),
        ..Report::default()
    });
    let told = until(&mut follower, &services, "ours", |it| forwarded(it).is_some()).await?;
    assert_eq!(addresses(&told), [("192.0.2.1".to_owned(), "Proxy".to_owned())]);
    let condition = forwarded(&told).context("no condition")?;
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("True", "Forwarded"));

    // A Service of another class gets the condition, and keeps the addresses that it has.
    let told = until(&mut follower, &services, "theirs", |it| forwarded(it).is_some()).await?;
    assert_eq!(addresses(&told), [("198.51.100.9".to_owned(), "VIP".to_owned())]);
    assert_eq!(forwarded(&told).map(|it| it.status), Some("False".to_owned()));

    // Said again, it is not written again.
    let before = reporter.health().borrow().written;
    for pass in 0..20 {
        let mut report = (*reporter.current()).clone();
        // Something else changes, so that the reporter looks at everything again.
        report.findings = (pass % 2 == 0).then(BTreeSet::new);
        reporter.publish(report);
        follower.during(Duration::from_millis(10)).await;
    }
    assert_eq!(reporter.health().borrow().written, before);

    // No longer ours to say.
    reporter.publish(Report { services: Some(BTreeMap::new()), ..Report::default() });
    let told = until(&mut follower, &services, "ours", |it| forwarded(it).is_none()).await?;
    assert_eq!(addresses(&told), []);
    let told = until(&mut follower, &services, "theirs", |it| forwarded(it).is_none()).await?;
    assert_eq!(addresses(&told).len(), 1);
    Ok(())
}

#[tokio::test]
async fn whoever_overwrites_our_condition_does_not_start_a_race() -> Result<()> {
    let Some(Stage { site, reporter, mut follower, services, .. }) = Stage::set().await? else {
        return Ok(());
    };
    let ours = service_ref(&site, "ours");
    let report = BTreeMap::from([(ours, said(true, "192.0.2.1"))]);
    reporter.publish(Report { services: Some(report), ..Report::default() });
    until(&mut follower, &services, "ours", |it| forwarded(it).is_some()).await?;
    for _ in 0..40 {
        let clear = json!({ "status": { "loadBalancer": { "ingress": [{ "ip": "10.9.9.9" }] } } });
        let patch = kube::api::Patch::Merge(&clear);
        services.patch_status("ours", &kube::api::PatchParams::default(), &patch).await?;
        follower.during(Duration::from_millis(20)).await;
    }
    let written = reporter.health().borrow().written;
    assert!(written < 12, "{written} writes in less than two seconds or so");
    let right = ("192.0.2.1".to_owned(), "Proxy".to_owned());
    until(&mut follower, &services, "ours", |it| addresses(it) == [right.clone()]).await?;
    Ok(())
}

#[tokio::test]
async fn ep_11_a_finding_becomes_one_event_on_the_object() -> Result<()> {
    let Some(Stage { site, seen, reporter, mut follower, .. }) = Stage::set().await? else {
        return Ok(());
    };
    let finding = finding(&service_ref(&site, "ours"));
    let findings = Some(BTreeSet::from([finding.clone()]));
    reporter.publish(Report { findings: findings.clone(), ..Report::default() });
    let events: Api<Event> = Api::namespaced(site.admin.clone(), &site.namespace);
    let told = until_events(&mut follower, &events, |it| it.len() == 1).await?;
    let event = &told[0];
    assert_eq!(event.reporting_controller.as_deref(), Some(CONTROLLER));
    assert_eq!(event.reason.as_deref(), Some("InvalidValue"));
    let note = event.note.clone().unwrap_or_default();
    assert!(note.contains("portcullis.dev/host-ports") && note.contains("write a port"), "{note}");
    assert!(note.len() <= 1024);
    let regarding = event.regarding.clone().context("about nothing")?;
    assert_eq!(regarding.name.as_deref(), Some("ours"));
    assert!(regarding.uid.is_some_and(|it| !it.is_empty()), "describe finds Events by uid");

    // Said in every pass, it is told once.
    for pass in 0..10 {
        let hosts = BTreeMap::from([(format!("none-{pass}"), HostStatus::default())]);
        reporter.publish(Report { findings: findings.clone(), hosts, ..Report::default() });
        follower.during(Duration::from_millis(10)).await;
    }
    assert_eq!(reporter.health().borrow().events, 1);

    // Told by another replica, it is the same Event, seen again.
    let other = Reporter::kubernetes(&site.controller, &seen, "other", quick_limits());
    other.publish(Report { findings, ..Report::default() });
    let again = |it: &[Event]| it.len() == 1 && it[0].series.as_ref().map(|it| it.count) == Some(2);
    until_events(&mut follower, &events, again).await?;
    Ok(())
}

#[tokio::test]
async fn a_host_is_told_its_status() -> Result<()> {
    let Some(Stage { site, reporter, mut follower, .. }) = Stage::set().await? else {
        return Ok(());
    };
    let hosts: Api<Host> = Api::all(site.admin.clone());
    let name = format!("host-{}", site.namespace);
    let host = json!({ "apiVersion": "portcullis.dev/v1alpha1", "kind": "Host",
        "metadata": { "name": name }, "spec": { "interfaces": ["eth0"] } });
    hosts.create(&PostParams::default(), &serde_json::from_value(host)?).await?;

    let condition = Condition {
        type_: "Applied".to_owned(),
        status: "True".to_owned(),
        reason: "Applied".to_owned(),
        message: String::new(),
        observed_generation: Some(1),
        last_transition_time: Time(jiff::Timestamp::UNIX_EPOCH),
    };
    let mut status = HostStatus {
        observed_generation: Some(1),
        conditions: vec![condition],
        forwards: Some(3),
        last_error: Some("no route".to_owned()),
        ..HostStatus::default()
    };
    let say = |status: &HostStatus| {
        let hosts = BTreeMap::from([(name.clone(), status.clone())]);
        reporter.publish(Report { hosts, ..Report::default() });
    };
    say(&status);
    let told = until(&mut follower, &hosts, &name, |it| it.status.is_some()).await?;
    let told = told.status.context("no status")?;
    assert_eq!((told.forwards, told.last_error.as_deref()), (Some(3), Some("no route")));
    let since = told.conditions[0].last_transition_time.clone();
    assert!(since.0 > jiff::Timestamp::UNIX_EPOCH);

    // What is no longer said is removed, and an unchanged condition keeps its time.
    status.last_error = None;
    status.conditions[0].message = "again".to_owned();
    say(&status);
    let is_told = |it: &Host| it.status.as_ref().is_some_and(|it| it.last_error.is_none());
    let told = until(&mut follower, &hosts, &name, is_told).await?;
    let told = told.status.context("no status")?;
    assert_eq!(told.conditions[0].message, "again");
    assert_eq!(told.conditions[0].last_transition_time, since);
    reporter.finish(LIMIT).await;
    hosts.delete(&name, &DeleteParams::default()).await?;
    Ok(())
}

/// Two Services, of our class and of another, watched and reported about.
struct Stage {
    site: Site,
    seen: Arc<Seen>,
    reporter: Reporter,
    follower: Follower,
    services: Api<Service>,
}

impl Stage {
    async fn set() -> Result<Option<Self>> {
        let Some(site) = Site::shared().await? else { return Ok(None) };
        let services: Api<Service> = Api::namespaced(site.admin.clone(), &site.namespace);
        for (name, class) in [("ours", "portcullis.dev/host"), ("theirs", "example.com/lb")] {
            let mut service = service(name, &json!({ "portcullis.dev/host-ports": "443" }))?;
            let spec = service.spec.as_mut().context("no spec")?;
            spec.type_ = Some("LoadBalancer".to_owned());
            spec.load_balancer_class = Some(class.to_owned());
            services.create(&PostParams::default(), &service).await?;
        }
        let theirs =
            json!({ "status": { "loadBalancer": { "ingress": [{ "ip": "198.51.100.9" }] } } });
        let patch = kube::api::Patch::Merge(&theirs);
        services.patch_status("theirs", &kube::api::PatchParams::default(), &patch).await?;

        let seen = Arc::new(Seen::default());
        let mut follower = Follower::new(watch(&site.controller, &quick(), &seen));
        follower.until("every kind is followed", |it| it.health().is_current()).await?;
        let reporter = Reporter::kubernetes(&site.controller, &seen, "test", quick_limits());
        Ok(Some(Self { site, seen, reporter, follower, services }))
    }
}

fn service_ref(site: &Site, name: &str) -> ObjectRef {
    site.object(ObjectKind::Service, name)
}

fn said(forwarded: bool, address: &str) -> ServiceReport {
    ServiceReport {
        forwarded,
        reason: "Forwarded".to_owned(),
        message: "on edge-a".to_owned(),
        addresses: Some(vec![address.parse().expect("an address")]),
    }
}

fn finding(object: &ObjectRef) -> Finding {
    Finding {
        severity: Severity::Error,
        reason: "InvalidValue",
        object: object.clone(),
        field: "portcullis.dev/host-ports".to_owned(),
        value: "x".repeat(3000),
        problem: "not a port".to_owned(),
        remedy: "write a port".to_owned(),
    }
}

fn forwarded(service: &Service) -> Option<Condition> {
    let conditions = service.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|it| it.type_ == FORWARDED).cloned()
}

fn addresses(service: &Service) -> Vec<(String, String)> {
    let ingress = service.status.as_ref().and_then(|it| it.load_balancer.as_ref()?.ingress.clone());
    let text = |it: Option<String>| it.unwrap_or_default();
    ingress.unwrap_or_default().into_iter().map(|it| (text(it.ip), text(it.ip_mode))).collect()
}

/// Asks for an object until it is as wanted, and keeps the watches going meanwhile.
async fn until<K>(
    follower: &mut Follower,
    objects: &Api<K>,
    name: &str,
    is_so: impl Fn(&K) -> bool,
) -> Result<K>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let begin = std::time::Instant::now();
    loop {
        let object = objects.get(name).await?;
        if is_so(&object) {
            return Ok(object);
        }
        anyhow::ensure!(begin.elapsed() < LIMIT, "{name} stayed as it is: {object:#?}");
        follower.during(Duration::from_millis(5)).await;
    }
}

async fn until_events(
    follower: &mut Follower,
    events: &Api<Event>,
    is_so: impl Fn(&[Event]) -> bool,
) -> Result<Vec<Event>> {
    let begin = std::time::Instant::now();
    loop {
        let found = events.list(&ListParams::default()).await?.items;
        if is_so(&found) {
            return Ok(found);
        }
        anyhow::ensure!(begin.elapsed() < LIMIT, "other Events: {found:#?}");
        follower.during(Duration::from_millis(5)).await;
    }
}
