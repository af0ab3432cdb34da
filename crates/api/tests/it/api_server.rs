//! What a real API server says about Hosts: the same as we do, with the same words.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api::edge_gateway::EdgeGateway;
use api::host::{Host, HostSpec};
use expect_test::expect;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, Client, CustomResourceExt};
use serde_json::{Value, json};
use testkit::kubernetes::ControlPlane;
use testkit::require;
use testkit::wait::until;
use tokio::sync::OnceCell;

use crate::refusals::{ACCEPTED, REFUSALS, Server, host, manifest};

#[tokio::test]
async fn the_api_server_refuses_what_we_refuse_with_the_same_words() -> Result<()> {
    let Some(server) = api_server().await? else { return Ok(()) };
    for refusal in REFUSALS {
        let Err(kube::Error::Api(status)) = create(&server, manifest(refusal.changes)).await else {
            panic!("not refused: {:?}", refusal.changes);
        };
        for problem in host(refusal.changes).settings().expect_err("a refused host") {
            let message = match refusal.server {
                Server::Same => format!("{}; {}", problem.problem, problem.remedy),
                Server::Schema(message) => message.to_owned(),
            };
            let message = message.as_str();
            assert!(status.message.contains(message), "no {message:?} in {:?}", status.message);
            // A rule about two fields is told about the object that holds both.
            let parent = problem.field.rsplit_once('.').map_or("", |it| it.0);
            let fields = [&problem.field, parent].map(|it| format!("{it}: "));
            let named = fields.iter().any(|it| status.message.contains(it));
            assert!(named, "no {fields:?} in {:?}", status.message);
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_api_server_accepts_what_we_accept_and_fills_in_the_same() -> Result<()> {
    let Some(server) = api_server().await? else { return Ok(()) };
    for changes in ACCEPTED {
        let filled =
            create(&server, manifest(changes)).await.with_context(|| format!("{changes:?}"))?;
        let spec: HostSpec = serde_json::from_value(filled.data["spec"].clone())?;
        assert_eq!(spec, host(changes).spec, "{changes:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_value_of_the_wrong_type_never_gets_into_a_list() -> Result<()> {
    let Some(server) = api_server().await? else { return Ok(()) };
    for changes in [
        ("interfaces", r#""eth0""#),
        ("interfaces", "[0]"),
        ("masquerade", r#""true""#),
        ("executor", r#""local""#),
        ("executor.ssh.port", r#""22""#),
        ("executor.ssh.port", "22.5"),
    ] {
        let manifest = manifest(&[changes]);
        assert!(serde_json::from_value::<Host>(manifest.clone()).is_err(), "{changes:?}");
        assert!(create(&server, manifest).await.is_err(), "{changes:?}");
    }
    Ok(())
}

#[tokio::test]
async fn kubectl_shows_the_state_of_a_host() -> Result<()> {
    let Some(server) = api_server().await? else { return Ok(()) };
    let hosts: Api<Host> = Api::all(server);
    let spec = HostSpec {
        interfaces: vec!["eth0".into(), "wg0".into()],
        external_interface: Some("eth0".into()),
        ..HostSpec::default()
    };
    hosts.create(&PostParams::default(), &Host::new("shown-by-kubectl", spec)).await?;
    let condition = |name: &str, status: &str| {
        json!({
            "type": name, "status": status, "reason": "Test", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    };
    let status = json!({ "status": {
        "observedGeneration": 1,
        "conditions": [condition("Applied", "False"), condition("Reachable", "True")],
        "appliedRevision": "0123abcd",
        "lastAppliedTime": "2026-01-01T00:00:00Z",
        "forwards": 12,
        "addresses": ["198.51.100.1", "2001:db8::1"],
        "drift": 3,
        "lastError": "nft is not installed",
        "nodes": 2,
        "nodeTargets": [{ "name": "a", "addresses": ["10.0.0.1", "2001:db8::1"] }],
    }});
    let patched = hosts
        .patch_status("shown-by-kubectl", &PatchParams::default(), &Patch::Merge(&status))
        .await?;
    // A status changes no generation, or the controller would chase its own tail.
    assert_eq!(patched.metadata.generation, Some(1));
    let read = serde_json::to_value(patched.status)?;
    assert_eq!(read, status["status"]);

    let table = |arguments: &[&str]| -> Result<String> {
        let text = get(arguments)?;
        // The age differs, and with it the width of its column.
        let lines = text.lines().map(|it| it.rsplit_once("   ").map_or(it, |(rest, _)| rest));
        Ok(lines.map(|it| format!("{}\n", it.trim_end())).collect())
    };
    let shown = table(&["hosts.portcullis.dev", "shown-by-kubectl"])?;
    expect![[r#"
        NAME               APPLIED   REACHABLE   FORWARDS   NODES   DRIFT
        shown-by-kubectl   False     True        12         2       3
    "#]]
    .assert_eq(&shown);
    assert_eq!(table(&["phost", "shown-by-kubectl"])?, shown);
    expect![[r#"
        NAME               APPLIED   REACHABLE   FORWARDS   NODES   DRIFT   BACKEND    EXTERNAL   ERROR
        shown-by-kubectl   False     True        12         2       3       nftables   eth0       nft is not installed
    "#]].assert_eq(&table(&["phost", "shown-by-kubectl", "-o", "wide"])?);
    // The category holds other kinds too, later.
    let by_category = get(&["portcullis", "-o", "name"])?;
    assert!(by_category.contains("host.portcullis.dev/shown-by-kubectl"), "{by_category}");
    Ok(())
}

#[tokio::test]
async fn kubectl_refuses_a_field_that_nobody_knows_as_we_do() -> Result<()> {
    let Some(server) = api_server().await? else { return Ok(()) };
    let mut manifest = manifest(&[]);
    manifest["spec"]["externalInteface"] = json!("eth0");
    let (_, problems) = api::host::read_manifest(manifest.clone())?;
    assert_eq!(
        problems.iter().map(|it| it.field.as_str()).collect::<Vec<_>>(),
        ["spec.externalInteface"]
    );
    let resource = Host::api_resource();
    let uri = format!(
        "/apis/{}/{}?dryRun=All&fieldValidation=Strict",
        resource.api_version, resource.plural
    );
    let request = http::Request::post(uri).header("content-type", "application/json");
    let request = request.body(serde_json::to_vec(&manifest)?)?;
    let refused = server.request::<Value>(request).await.expect_err("an unknown field");
    assert!(refused.to_string().contains(r#"unknown field "spec.externalInteface""#), "{refused}");
    Ok(())
}

/// A client of an API server that knows our kinds; `None` where no API server can be started.
pub(crate) async fn api_server() -> Result<Option<Client>> {
    static DEFINED: OnceCell<()> = OnceCell::const_new();
    let Some(()) = require(ControlPlane::available()) else { return Ok(None) };
    let server = ControlPlane::shared()?;
    let define = async || -> Result<()> {
        for definition in [Host::crd(), EdgeGateway::crd()] {
            server.apply_manifest(&serde_json::to_string(&definition)?).await?;
            let path = format!("/apis/portcullis.dev/v1alpha1/{}", definition.spec.names.plural);
            let served = || get(&["--raw", &path]).ok();
            until("the kind is served", Duration::from_secs(60), served)?;
        }
        Ok(())
    };
    DEFINED.get_or_try_init(define).await?;
    Ok(Some(server.client().await?))
}

/// Creates a Host as `kubectl create --dry-run=server` does.
async fn create(client: &Client, manifest: Value) -> Result<DynamicObject, kube::Error> {
    create_any(client, &Host::api_resource(), manifest).await
}

/// Creates an object of a cluster-scoped kind as `kubectl create --dry-run=server` does.
pub(crate) async fn create_any(
    client: &Client,
    resource: &ApiResource,
    manifest: Value,
) -> Result<DynamicObject, kube::Error> {
    let hosts: Api<DynamicObject> = Api::all_with(client.clone(), resource);
    let object: DynamicObject =
        serde_json::from_value(manifest).map_err(kube::Error::SerdeError)?;
    hosts.create(&PostParams { dry_run: true, ..PostParams::default() }, &object).await
}

/// What `kubectl get` prints.
pub(crate) fn get(arguments: &[&str]) -> Result<String> {
    let output = ControlPlane::shared()?.kubectl()?.arg("get").args(arguments).output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "kubectl get {arguments:?}: {error}");
    Ok(String::from_utf8(output.stdout)?)
}
