//! What we say about EdgeGateways, and that the API server says the same.

use anyhow::{Context as _, Result};
use api::edge_gateway::{EdgeGateway, EdgeGatewaySpec};
use expect_test::expect;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, CustomResourceExt};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::api_server::{api_server, create_any, get};

/// A change that makes a good EdgeGateway bad: a path below `spec`, what is put there, what we say,
/// and what the API server says where a schema says it and not a rule.
type Refusal = (&'static str, &'static str, &'static str, Option<&'static str>);

const REFUSALS: &[Refusal] = &[
    (
        "endpoints",
        "[]",
        r#"spec.endpoints: "": no agent could dial the gateway; name at least one endpoint"#,
        Some("spec.endpoints in body should have at least 1 items"),
    ),
    (
        "endpoints",
        r#"[{"host": "-x"}]"#,
        r#"spec.endpoints[0].host: "-x": neither an IP address nor a host name; write it without user and port, such as edge-a.example.com or 2001:db8::1"#,
        None,
    ),
    (
        "endpoints",
        r#"[{"host": "a.example.com", "port": 65536}]"#,
        r#"spec.endpoints[0].port: "65536": not a port between 1 and 65535; leave it out for port 7443"#,
        Some("spec.endpoints[0].port in body should be less than or equal to 65535"),
    ),
    (
        "addresses",
        r#"[{"address": "203.0.113.0/24"}]"#,
        r#"spec.addresses[0].address: "203.0.113.0/24": not an IP address; write an address such as 10.8.0.1 or 2001:db8::1, without a prefix length or zone"#,
        None,
    ),
    (
        "addresses",
        r#"[{"address": "203.0.113.7"}, {"address": "203.0.113.7"}]"#,
        r#"spec.addresses[1].address: "203.0.113.7": in the list twice; leave one out"#,
        Some(r#"spec.addresses[1]: Duplicate value: {"address":"203.0.113.7"}"#),
    ),
    (
        "addresses",
        r#"[{"address": "10.0.0.7", "advertise": "a b"}]"#,
        r#"spec.addresses[0].advertise: "a b": neither an IP address nor a host name; write it without user and port, such as edge-a.example.com or 2001:db8::1"#,
        None,
    ),
    (
        "carrier",
        r#""pigeon""#,
        r#"spec.carrier: "pigeon": not a carrier of tunnels; write auto, quic or tls, or leave it out for auto"#,
        Some(
            r#"spec.carrier: Unsupported value: "pigeon": supported values: "auto", "quic", "tls""#,
        ),
    ),
    (
        "ssh",
        r#"{"user": "tunnel", "hostKey": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGWaSTbTvLkTAZlfKaiVFKzGnIVcvfGjX2LcVaGJPPPP"}"#,
        r#"spec.ssh: "": exactly one of keySecretRef and keyFile must be set; name the Secret or the file that holds the private key"#,
        None,
    ),
    (
        "ssh",
        r#"{"user": "-oProxyCommand", "hostKey": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGWaSTbTvLkTAZlfKaiVFKzGnIVcvfGjX2LcVaGJPPPP", "keyFile": "/etc/key"}"#,
        r#"spec.ssh.user: "-oProxyCommand": not the name of a user; use 1 to 32 letters, digits or ._-, beginning with a letter, a digit or _"#,
        None,
    ),
    (
        "grants",
        r#"[{"namespaces": []}]"#,
        r#"spec.grants[0].namespaces: "": the grant is for no namespace; name namespaces, or write *"#,
        Some("spec.grants[0].namespaces in body should have at least 1 items"),
    ),
    (
        "grants",
        r#"[{"namespaces": ["web", "a.b"]}]"#,
        r#"spec.grants[0].namespaces[1]: "a.b": not the name of a namespace; use lower case letters, digits and -, or * for every namespace"#,
        None,
    ),
    (
        "grants",
        r#"[{"namespaces": ["*"], "ports": ["443", "53/sctp"]}]"#,
        r#"spec.grants[0].ports[1]: "53/sctp": not a port or a range of ports; write entries such as 443, 53/udp, 8000-8100 or *; without a protocol TCP is meant"#,
        None,
    ),
    (
        "grants",
        r#"[{"namespaces": ["*"], "hostnames": ["*.example.com", "192.0.2.1"]}]"#,
        r#"spec.grants[0].hostnames[1]: "192.0.2.1": not a host name; write www.example.com, *.example.com, or * for every name"#,
        None,
    ),
    (
        "grants",
        r#"[{"namespaces": ["*"], "maxPorts": -1}]"#,
        r#"spec.grants[0].maxPorts: "-1": not a number between 0 and 65535; leave it out for any number"#,
        Some("spec.grants[0].maxPorts in body should be greater than or equal to 0"),
    ),
    (
        "adoption",
        "{}",
        r#"spec.adoption: "": exactly one of secretRef and secretFile must be set; name the Secret or the file that holds the one-time secret"#,
        None,
    ),
    (
        "adoption",
        r#"{"secretRef": {"namespace": "a.b", "name": "x"}}"#,
        r#"spec.adoption.secretRef.namespace: "a.b": not the name of a namespace; use lower case letters, digits and -"#,
        None,
    ),
    (
        "adoption",
        r#"{"secretFile": "secret"}"#,
        r#"spec.adoption.secretFile: "secret": not an absolute path; write the whole path, such as /etc/portcullis/id_ed25519"#,
        None,
    ),
    (
        "quota",
        r#"{"bytesPerMonth": 0}"#,
        r#"spec.quota.bytesPerMonth: "0": not a number above zero; write 1 or more"#,
        Some("spec.quota.bytesPerMonth in body should be greater than or equal to 1"),
    ),
    (
        "quota",
        r#"{"bytesPerMonth": 1, "resetDay": 32}"#,
        r#"spec.quota.resetDay: "32": not a day of the month; write a number between 1 and 31"#,
        Some("spec.quota.resetDay in body should be less than or equal to 31"),
    ),
    (
        "quota",
        r#"{"bytesPerMonth": 1, "action": "shape"}"#,
        r#"spec.quota: "shape": shapeBitsPerSecond belongs to action shape, and to it alone; set both, or neither"#,
        None,
    ),
    (
        "quota",
        r#"{"bytesPerMonth": 1, "shapeBitsPerSecond": 1}"#,
        r#"spec.quota: "warn": shapeBitsPerSecond belongs to action shape, and to it alone; set both, or neither"#,
        None,
    ),
    (
        "quota",
        r#"{"bytesPerMonth": 1, "action": "pay"}"#,
        r#"spec.quota.action: "pay": not something to do at the limit; write warn, shape or stop"#,
        Some(
            r#"spec.quota.action: Unsupported value: "pay": supported values: "warn", "shape", "stop""#,
        ),
    ),
];

/// Changes after which the EdgeGateway is still good.
const ACCEPTED: &[(&str, &str)] = &[
    ("carrier", r#""tls""#),
    ("endpoints", r#"[{"host": "2001:db8::1", "port": 443}, {"host": "a"}]"#),
    (
        "addresses",
        r#"[{"address": "10.0.0.7", "advertise": "edge.example.com"}, {"address": "2001:db8::7"}]"#,
    ),
    ("addresses", "[]"),
    ("grants", "[]"),
    (
        "grants",
        r#"[{"namespaces": ["web", "*"], "ports": ["*", "443", "1-65535/udp"], "hostnames": ["*", "*.Example.com"], "maxPorts": 0}]"#,
    ),
    ("adoption", r#"{"secretRef": {"namespace": "portcullis-system", "name": "fra1"}}"#),
    ("adoption", r#"{"secretFile": "/etc/portcullis/fra1"}"#),
    (
        "quota",
        r#"{"bytesPerMonth": 1000000000000, "resetDay": 31, "action": "shape", "shapeBitsPerSecond": 1000000}"#,
    ),
    (
        "ssh",
        r#"{"user": "tunnel", "hostKey": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGWaSTbTvLkTAZlfKaiVFKzGnIVcvfGjX2LcVaGJPPPP", "keyFile": "/etc/key"}"#,
    ),
];

fn manifest((path, value): (&str, &str)) -> Value {
    let mut manifest = json!({
        "apiVersion": "portcullis.dev/v1alpha1",
        "kind": "EdgeGateway",
        "metadata": { "name": "fra1" },
        "spec": { "endpoints": [{ "host": "fra1.example.com" }] },
    });
    manifest["spec"][path] = serde_json::from_str(value).expect("a change is JSON");
    manifest
}

fn gateway(change: (&str, &str)) -> EdgeGateway {
    serde_json::from_value(manifest(change)).expect("text of any kind can be read")
}

#[test]
fn every_problem_is_named_with_its_field_its_value_and_a_remedy() {
    for (path, value, problem, _) in REFUSALS {
        let problems = gateway((path, value)).settings().expect_err("a refused gateway");
        let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(told, [*problem], "{path}: {value}");
    }
}

#[test]
fn a_good_gateway_is_accepted() {
    for change in ACCEPTED {
        if let Err(problems) = gateway(*change).settings() {
            panic!("{change:?}: {problems:?}");
        }
    }
}

#[test]
fn two_carriers_are_one_too_many() {
    let mut both = gateway(ACCEPTED[9]);
    both.spec.carrier = "quic".to_owned();
    let problems = both.settings().expect_err("two carriers");
    let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            r#"spec.carrier: "quic": carrier and ssh together name two carriers; remove one of the two"#
        ]
    );
}

#[test]
fn a_grant_allows_what_it_lists_and_nothing_else() {
    use api::port::{Port, Protocol};

    let settings = gateway((
        "grants",
        r#"[{"namespaces": ["web"], "ports": ["443", "8000-8100", "53/udp"]},
            {"namespaces": ["*"], "hostnames": ["*.example.com"], "ports": ["443"]}]"#,
    ))
    .settings()
    .expect("a good gateway");
    let grants = settings.grants.expect("grants");
    let allowed = |namespace: &str, protocol, port, name: Option<&str>| {
        let name = name.map(|it| it.parse().expect("a name"));
        let port = Port::new(port).expect("a port");
        let mut grants = grants.iter().filter(|it| it.is_for(namespace));
        grants.any(|it| it.allows(protocol, port, name.as_ref()))
    };
    assert!(allowed("web", Protocol::Tcp, 443, None));
    assert!(allowed("web", Protocol::Tcp, 8100, Some("a.example.net")));
    assert!(allowed("web", Protocol::Udp, 53, None));
    assert!(!allowed("web", Protocol::Tcp, 53, None));
    assert!(!allowed("web", Protocol::Udp, 443, None));
    assert!(!allowed("web", Protocol::Tcp, 8101, None));
    assert!(allowed("mail", Protocol::Tcp, 443, Some("a.example.com")));
    assert!(!allowed("mail", Protocol::Tcp, 443, Some("example.com")));
    assert!(!allowed("mail", Protocol::Tcp, 443, Some("*")));
    assert!(!allowed("mail", Protocol::Tcp, 443, None), "a whole port has every name");
}

proptest! {
    #[test]
    fn no_text_makes_reading_fail(host in ".{0,40}", address in ".{0,40}", port: i64, text in ".{0,20}") {
        let gateway = EdgeGateway::new("x", serde_json::from_value(json!({
            "endpoints": [{ "host": host, "port": port }],
            "addresses": [{ "address": address, "advertise": text }],
            "grants": [{ "namespaces": [text], "ports": [text], "hostnames": [text], "maxPorts": port }],
            "carrier": text,
        })).expect("any text"));
        if let Err(problems) = gateway.settings() {
            prop_assert!(!problems.is_empty());
        }
    }
}

#[tokio::test]
async fn the_api_server_refuses_what_we_refuse_with_the_same_words() -> Result<()> {
    let Some(server) = api_server().await? else { return Ok(()) };
    for (path, value, _, schema) in REFUSALS {
        let made = create_any(&server, &EdgeGateway::api_resource(), manifest((path, value))).await;
        let Err(kube::Error::Api(status)) = made else { panic!("not refused: {path}: {value}") };
        for problem in gateway((path, value)).settings().expect_err("a refused gateway") {
            let same = format!("{}; {}", problem.problem, problem.remedy);
            let message = schema.unwrap_or(&same);
            assert!(status.message.contains(message), "no {message:?} in {:?}", status.message);
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_api_server_accepts_what_we_accept_and_fills_in_the_same() -> Result<()> {
    let Some(server) = api_server().await? else { return Ok(()) };
    let resource = EdgeGateway::api_resource();
    for change in ACCEPTED {
        let filled = create_any(&server, &resource, manifest(*change));
        let filled = filled.await.with_context(|| format!("{change:?}"))?;
        let spec: EdgeGatewaySpec = serde_json::from_value(filled.data["spec"].clone())?;
        assert_eq!(spec, gateway(*change).spec, "{change:?}");
    }
    Ok(())
}

#[tokio::test]
async fn kubectl_shows_the_state_of_a_gateway() -> Result<()> {
    let Some(server) = api_server().await? else { return Ok(()) };
    let gateways: Api<EdgeGateway> = Api::all(server);
    let mut shown = gateway(("carrier", r#""auto""#));
    shown.metadata.name = Some("shown-by-kubectl".to_owned());
    gateways.create(&PostParams::default(), &shown).await?;
    let status = json!({ "status": {
        "observedGeneration": 1,
        "conditions": [{
            "type": "Ready", "status": "False", "reason": "NotConnected", "message": "no agent is connected",
            "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z",
        }],
        "agents": [{ "name": "a-1", "node": "n1", "carrier": "quic", "roundTripMicroseconds": 900, "flows": 2, "since": "2026-01-01T00:00:00Z" }],
        "connectedAgents": 1,
        "publishedPorts": 7,
        "bytes": { "received": 10, "sent": 20 },
        "quota": { "usedBytes": 30, "limitBytes": 40, "resetsAt": "2026-02-01T00:00:00Z" },
        "version": "0.1.0",
    }});
    let patched = gateways
        .patch_status("shown-by-kubectl", &PatchParams::default(), &Patch::Merge(&status))
        .await?;
    assert_eq!(patched.metadata.generation, Some(1));
    assert_eq!(serde_json::to_value(patched.status)?, status["status"]);
    // The age differs, and with it the width of its column.
    let text = get(&["egw", "shown-by-kubectl"])?;
    let lines = text.lines().map(|it| it.rsplit_once("   ").map_or(it, |(rest, _)| rest));
    let table: String = lines.map(|it| format!("{}\n", it.trim_end())).collect();
    expect![[r#"
        NAME               ADDRESS            READY   REASON         AGENTS   PORTS
        shown-by-kubectl   fra1.example.com   False   NotConnected   1        7
    "#]]
    .assert_eq(&table);
    Ok(())
}
