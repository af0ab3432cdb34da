//! An agent with the shipped role on a real API server, and a gateway in this process: from objects
//! to the statuses of objects.

use std::time::SystemTime;

use agent::AuthoritySource;
use anyhow::{Context as _, Result, ensure};
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tunnel::trust::{AUTHORITY_FILE, Authorities};

use super::site::{Site, condition, free_port};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_users_ask_for_is_listened_on_and_every_object_says_so() -> Result<()> {
    let Some(site) = Site::open().await? else { return Ok(()) };
    let public = free_port()?;
    site.apply(
        "gateway.networking.k8s.io/v1",
        "GatewayClass",
        None,
        "portcullis",
        json!({
            "spec": { "controllerName": "portcullis.dev/gateway-controller" },
        }),
    )
    .await?;
    site.apply(
        "gateway.networking.k8s.io/v1",
        "Gateway",
        Some("default"),
        "public",
        json!({
            "spec": { "gatewayClassName": "portcullis", "listeners": [
                { "name": "tcp", "protocol": "TCP", "port": public } ] },
        }),
    )
    .await?;
    let balanced = free_port()?;
    site.apply(
        "v1",
        "Service",
        Some("default"),
        "blog",
        json!({
            "spec": { "type": "LoadBalancer", "loadBalancerClass": "portcullis.dev/gateway",
                "allocateLoadBalancerNodePorts": false,
                "ports": [{ "name": "web", "port": balanced, "targetPort": 8080 }] },
        }),
    )
    .await?;
    site.apply(
        "gateway.networking.k8s.io/v1",
        "TCPRoute",
        Some("default"),
        "blog",
        json!({
            "spec": { "parentRefs": [{ "name": "public" }],
                "rules": [{ "backendRefs": [{ "name": "blog", "port": balanced }] }] },
        }),
    )
    .await?;
    site.slice("blog", &["10.77.0.1"]).await?;
    let _agent = site.start_agent("agent-0").await?;

    site.until("GatewayClass", None, "portcullis", |it| condition(it, "Accepted") == "True")
        .await?;
    let gateway = site
        .until("Gateway", Some("default"), "public", |it| condition(it, "Programmed") == "True")
        .await?;
    assert_eq!(gateway["addresses"][0]["value"], "127.0.0.1", "{gateway:#}");
    let route = site
        .until("TCPRoute", Some("default"), "blog", |it| {
            condition(&it["parents"][0], "Accepted") == "True"
        })
        .await?;
    assert_eq!(route["parents"][0]["controllerName"], "portcullis.dev/gateway-controller");
    let service = site
        .until("Service", Some("default"), "blog", |it| !it["loadBalancer"]["ingress"][0].is_null())
        .await?;
    let ingress = &service["loadBalancer"]["ingress"][0];
    assert_eq!((&ingress["ip"], &ingress["ipMode"]), (&json!("127.0.0.1"), &json!("Proxy")));
    let edge = site
        .until("EdgeGateway", None, "g1", |it| {
            condition(it, "Connected") == "True" && it["publishedPorts"] == 2
        })
        .await?;
    assert_eq!(condition(&edge, "Adopted"), "True", "{edge:#}");
    // The one use of the secret is spent, and noted where it is kept.
    let secret = site.api("Secret", Some("portcullis-system")).get("g1-adoption").await?;
    let (left, by) = (&secret.data["data"]["redemptions"], &secret.data["data"]["redeemedBy"]);
    assert_eq!((left, by), (&json!("MA=="), &json!("YWdlbnQtMA==")), "0, by agent-0");
    // And it listens.
    let visit = tokio::net::TcpStream::connect(("127.0.0.1", public)).await;
    ensure!(visit.is_ok(), "{visit:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_other_controllers_say_of_a_route_stays() -> Result<()> {
    let Some(site) = Site::open().await? else { return Ok(()) };
    let public = free_port()?;
    site.apply(
        "gateway.networking.k8s.io/v1",
        "GatewayClass",
        None,
        "portcullis",
        json!({
            "spec": { "controllerName": "portcullis.dev/gateway-controller" },
        }),
    )
    .await?;
    site.apply(
        "gateway.networking.k8s.io/v1",
        "Gateway",
        Some("default"),
        "shared",
        json!({
            "spec": { "gatewayClassName": "portcullis", "listeners": [
                { "name": "tcp", "protocol": "TCP", "port": public } ] },
        }),
    )
    .await?;
    let route = json!({
        "spec": { "parentRefs": [{ "name": "shared" }, { "name": "elsewhere" }],
            "rules": [{ "backendRefs": [{ "name": "nobody", "port": 80 }] }] },
    });
    site.apply("gateway.networking.k8s.io/v1", "TCPRoute", Some("default"), "both", route).await?;
    let theirs = json!({ "status": { "parents": [{
        "controllerName": "example.com/other", "parentRef": { "name": "elsewhere" },
        "conditions": [{ "type": "Accepted", "status": "True", "reason": "Accepted",
            "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z" }] }] } });
    let routes = site.api("TCPRoute", Some("default"));
    routes.patch_status("both", &PatchParams::default(), &Patch::Merge(&theirs)).await?;
    let _agent = site.start_agent("agent-0").await?;

    let both = site
        .until("TCPRoute", Some("default"), "both", |it| {
            it["parents"].as_array().is_some_and(|it| it.len() == 2)
        })
        .await?;
    let parents = both["parents"].as_array().context("a list")?;
    assert_eq!(parents[0]["controllerName"], "example.com/other");
    assert_eq!(parents[0]["conditions"][0]["lastTransitionTime"], "2026-01-01T00:00:00Z");
    assert_eq!(condition(&parents[1], "ResolvedRefs"), "False", "{both:#}");

    // Without the parent that is ours, what we said goes, and theirs stays.
    let spec = json!({ "spec": { "parentRefs": [{ "name": "elsewhere" }] } });
    routes.patch("both", &PatchParams::default(), &Patch::Merge(&spec)).await?;
    let left = site
        .until("TCPRoute", Some("default"), "both", |it| {
            it["parents"].as_array().is_some_and(|it| it.len() == 1)
        })
        .await?;
    assert_eq!(left["parents"][0]["controllerName"], "example.com/other");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_gateway_api_services_are_published_all_the_same() -> Result<()> {
    let Some(site) = Site::open_with(false).await? else { return Ok(()) };
    let port = free_port()?;
    site.apply(
        "v1",
        "Service",
        Some("default"),
        "plain",
        json!({
            "metadata": { "annotations": { "portcullis.dev/gateway": "*" } },
            "spec": { "ports": [{ "name": "web", "port": port, "targetPort": 8080 }] },
        }),
    )
    .await?;
    site.slice("plain", &["10.77.0.2"]).await?;
    let _agent = site.start_agent("agent-0").await?;
    site.until("Service", Some("default"), "plain", |it| {
        condition(it, "portcullis.dev/Published") == "True"
    })
    .await?;
    // Nobody asks any more: what was said is taken back.
    let asks_not = json!({ "metadata": { "annotations": { "portcullis.dev/gateway": null } } });
    let services = site.api("Service", Some("default"));
    services.patch("plain", &PatchParams::default(), &Patch::Merge(&asks_not)).await?;
    site.until("Service", Some("default"), "plain", |it| {
        condition(it, "portcullis.dev/Published").is_empty()
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_leads_without_a_link_tells_what_the_others_see() -> Result<()> {
    let Some(site) = Site::open().await? else { return Ok(()) };
    let port = free_port()?;
    site.apply(
        "v1",
        "Service",
        Some("default"),
        "plain",
        json!({
            "metadata": { "annotations": { "portcullis.dev/gateway": "*" } },
            "spec": { "ports": [{ "name": "web", "port": port, "targetPort": 8080 }] },
        }),
    )
    .await?;
    // The first agent leads. No gateway lets it in: another authority has signed its certificate.
    let elsewhere = tempfile::tempdir()?;
    let authorities = Authorities::create("home", SystemTime::now())?;
    std::fs::write(elsewhere.path().join(AUTHORITY_FILE), authorities.to_pem())?;
    let authority = AuthoritySource::Directory(elsewhere.path().to_owned());
    let _leader = site.start_agent_trusting("agent-0", authority).await?;
    site.until("EdgeGateway", None, "g1", |it| condition(it, "Connected") == "False").await?;

    let other = site.start_agent("agent-1").await?;
    let edge = site
        .until("EdgeGateway", None, "g1", |it| {
            condition(it, "Connected") == "True" && it["publishedPorts"] == 1
        })
        .await?;
    assert_eq!(edge["agents"][0]["name"], "agent-1", "{edge:#}");
    site.until("Service", Some("default"), "plain", |it| {
        condition(it, "portcullis.dev/Published") == "True"
    })
    .await?;
    // What nobody says any more counts no more.
    drop(other);
    site.until("EdgeGateway", None, "g1", |it| condition(it, "Connected") == "False").await?;
    Ok(())
}
