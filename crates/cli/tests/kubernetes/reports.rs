//! What the user is told, where the user looks for it.

use serde_json::{Value, json};

use crate::objects::{NAMESPACE, Service, host, service};
use crate::scene::{Scene, condition, contains};

const FORWARDED: &str = "portcullis.dev/Forwarded";

#[test]
fn ep11_a_malformed_annotation_is_told_and_what_was_good_stays() -> anyhow::Result<()> {
    let objects = [host(""), service("blog", "8443"), service("other", "9443")];
    let Some(scene) = Scene::set(&objects)? else { return Ok(()) };
    let controller = scene.start()?;
    for port in [8443, 9443] {
        scene.answered_by(port, &["node-1", "node-2"])?;
    }
    let rules = scene.rules()?;

    scene.annotate("blog", "8443:30443; reboot, 7443")?;
    let event = event(&scene, "blog", "InvalidValue")?;
    assert_eq!(event["type"], "Warning");
    assert_eq!(event["reportingController"], "portcullis.dev/controller");
    for part in
        ["portcullis.dev/host-ports", "8443:30443; reboot", "what it asked for before stays"]
    {
        contains(&event["note"], part);
    }
    let told = forwarded(&scene, "blog", "False")?;
    contains(&told["message"], "forwards 8443/tcp");
    assert_eq!(scene.rules()?, rules, "a mistake changed the rules");
    assert_eq!(forwarded(&scene, "other", "True")?["reason"], "Forwarded");

    scene.annotate("blog", "7443")?;
    scene.answered_by(7443, &["node-1", "node-2"])?;
    scene.closed(8443)?;
    forwarded(&scene, "blog", "True")?;
    controller.nothing_was_forbidden();
    Ok(())
}

#[test]
fn ep15_who_loses_a_host_port_is_told_to_whom_and_gets_it_afterwards() -> anyhow::Result<()> {
    let Some(scene) = Scene::set(&[host(""), service("older", "8443")])? else { return Ok(()) };
    let controller = scene.start()?;
    scene.answered_by(8443, &["node-1", "node-2"])?;
    until_another_second(&scene, "older")?;
    scene.apply(&service("newer", "8443"))?;

    let told = forwarded(&scene, "newer", "False")?;
    contains(&told["message"], "older");
    let reason = told["reason"].as_str().expect("a reason");
    let event = event(&scene, "newer", reason)?;
    contains(&event["note"], "8443");
    contains(&event["note"], "older");
    forwarded(&scene, "older", "True")?;

    scene.delete_service("older")?;
    forwarded(&scene, "newer", "True")?;
    scene.answered_by(8443, &["node-1", "node-2"])?;
    controller.nothing_was_forbidden();
    Ok(())
}

#[test]
fn a_load_balancer_of_our_class_gets_the_hosts_addresses() -> anyhow::Result<()> {
    let spec = "type: LoadBalancer\nloadBalancerClass: portcullis.dev/host";
    let balanced = Service { name: "balanced", annotations: &[], spec, port: "" }.yaml();
    let foreign = "type: LoadBalancer\nloadBalancerClass: example.com/other";
    let foreign = Service { name: "foreign", annotations: &[], spec: foreign, port: "" }.yaml();
    let Some(scene) = Scene::set(&[host(""), balanced, foreign])? else { return Ok(()) };
    let controller = scene.start()?;
    let ingress = json!([
        { "ip": "198.51.100.1", "ipMode": "Proxy" },
        { "ip": "2001:db8::1", "ipMode": "Proxy" },
    ]);
    let wanted = |it: &Value| it["status"]["loadBalancer"]["ingress"] == ingress;
    scene.until("the addresses", || scene.stored("service/balanced"), wanted)?;
    scene.answered_by(443, &["node-1", "node-2"])?;
    let foreign = scene.stored("service/foreign")?;
    assert_eq!(foreign["status"]["loadBalancer"], json!({}));
    assert_eq!(condition(&foreign, FORWARDED), &Value::Null);
    // Kubernetes' own view of it: the column EXTERNAL-IP.
    let shown = scene.kubectl(&["get", "service", "-n", NAMESPACE, "balanced"])?;
    assert!(shown.contains("198.51.100.1,2001:db8::1"), "{shown}");
    controller.nothing_was_forbidden();
    Ok(())
}

#[test]
fn the_status_of_a_host_says_what_is_the_case() -> anyhow::Result<()> {
    let Some(scene) = Scene::set(&[host(""), service("blog", "8443")])? else { return Ok(()) };
    let controller = scene.start()?;
    let stored = || scene.stored("host/edge");
    let all_is_well = |it: &Value| {
        let types = ["Accepted", "Reachable", "Applied", "NoFindings"];
        types.iter().all(|type_| condition(it, type_)["status"] == "True")
            // One of the Service, one of the pods.
            && it["status"]["forwards"] == 2
    };
    let host = scene.until("all to be well", stored, all_is_well)?;
    let status = &host["status"];
    assert_eq!(status["nodes"], 2);
    assert_eq!(status["observedGeneration"], host["metadata"]["generation"]);
    let addresses = &status["nodeTargets"][0]["addresses"];
    assert_eq!(addresses, &json!(["10.200.0.11", "fd00:200::11"]));
    let drift = status["drift"].as_i64().expect("a count");

    // What others change is repaired, and counted.
    scene.edge.host.run("nft", &["delete", "table", "inet", "portcullis"])?;
    scene.answered_by(8443, &["node-1", "node-2"])?;
    scene.until("the drift to be counted", stored, |it| {
        it["status"]["drift"].as_i64().is_some_and(|it| it > drift)
    })?;

    // A mistake in any object is a finding of the Host that it is meant for.
    scene.annotate("blog", "none of this")?;
    scene.until("a finding", stored, |it| condition(it, "NoFindings")["status"] == "False")?;
    controller.nothing_was_forbidden();
    Ok(())
}

/// Waits for an Event with this reason about a Service.
fn event(scene: &Scene, service: &str, reason: &str) -> anyhow::Result<Value> {
    let about = format!("--field-selector=reason={reason}");
    let arguments = ["get", "events.events.k8s.io", "-n", NAMESPACE, &about, "-o", "json"];
    let of_service = |it: &Value| {
        let items = it["items"].as_array()?;
        items.iter().find(|it| it["regarding"]["name"] == service).cloned()
    };
    let ask = || Ok(serde_json::from_str::<Value>(&scene.kubectl(&arguments)?)?);
    let what = format!("an Event {reason} on {service}");
    let list = scene.until(&what, ask, |it| of_service(it).is_some())?;
    Ok(of_service(&list).expect("what was waited for"))
}

/// Waits until a Service's condition has this status, and returns it.
fn forwarded(scene: &Scene, service: &str, status: &str) -> anyhow::Result<Value> {
    let object = format!("service/{service}");
    let what = format!("{service} to be told {FORWARDED}={status}");
    let is_told = |it: &Value| condition(it, FORWARDED)["status"] == status;
    let stored = scene.until(&what, || scene.stored(&object), is_told)?;
    Ok(condition(&stored, FORWARDED).clone())
}

/// Waits until the clock of the API server has moved on: it tells ages by the second, and among
/// objects of one age the name decides.
fn until_another_second(scene: &Scene, service: &str) -> anyhow::Result<()> {
    let created = scene.stored(&format!("service/{service}"))?;
    let created = created["metadata"]["creationTimestamp"].clone();
    let ask = || {
        let probe = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{ name: clock, namespace: {NAMESPACE} }}"
        );
        let _earlier = scene.kubectl(&["delete", "configmap", "-n", NAMESPACE, "clock"]);
        scene.apply(&probe)?;
        scene.stored("configmap/clock")
    };
    scene.until("a second to pass", ask, |it| it["metadata"]["creationTimestamp"] != created)?;
    Ok(())
}
