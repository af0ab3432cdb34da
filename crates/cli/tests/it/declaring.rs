//! Gateways are declared in a real cluster: what `gateway create`, `list` and `rotate` write, and what
//! they say when something is missing.

use std::thread;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use testkit::kubernetes::{ControlPlane, ControlPlaneOptions};
use tunnel::trust::{AUTHORITY_FILE, AUTHORITY_SECRET, NAMESPACE, OneTimeSecret};

use super::program::{Ran, portcullis, run};

/// A control plane of its own: nothing is installed in it yet.
struct Cluster {
    plane: ControlPlane,
    runtime: tokio::runtime::Runtime,
}

impl Cluster {
    fn start() -> anyhow::Result<Option<Self>> {
        let Some(()) = testkit::require(ControlPlane::available()) else { return Ok(None) };
        let plane = ControlPlane::start(ControlPlaneOptions::default())?;
        Ok(Some(Self { plane, runtime: tokio::runtime::Runtime::new()? }))
    }

    fn install(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let all = ["install"].iter().chain(arguments).copied();
        let manifests = portcullis(all).expect_code(0).stdout;
        self.runtime.block_on(self.plane.apply_manifest(&manifests))?;
        Ok(())
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let kubeconfig = self.plane.admin().kubeconfig().to_str().expect("a path of text");
        run(arguments.iter().copied().chain(["--kubeconfig", kubeconfig])).end()
    }

    fn gateway(&self, arguments: &[&str]) -> Ran {
        self.run(&[&["gateway"], arguments].concat())
    }

    /// What a Secret of ours holds.
    fn secret(&self, name: &str) -> anyhow::Result<Option<Value>> {
        self.runtime.block_on(async {
            let secrets = Api::<Secret>::namespaced(self.plane.client().await?, NAMESPACE);
            let Some(secret) = secrets.get_opt(name).await? else { return Ok(None) };
            let mut values = json!({});
            for (key, value) in secret.data.unwrap_or_default() {
                values[key] = String::from_utf8(value.0)?.into();
            }
            Ok(Some(values))
        })
    }

    fn edge_gateway(&self, name: &str) -> anyhow::Result<Value> {
        let said = self.plane.kubectl()?.args(["get", "egw", name, "-o", "json"]).output()?;
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        serde_json::from_slice(&said.stdout).context(text)
    }
}

#[test]
fn agents_may_read_the_secrets_that_they_need_and_no_other() -> anyhow::Result<()> {
    let Some(cluster) = Cluster::start()? else { return Ok(()) };
    // A cluster without the Gateway API takes all but the class.
    let manifests = cluster.plane.directory().join("agents.yaml");
    let text = portcullis(["install", "agent"]).expect_code(0).stdout;
    std::fs::write(&manifests, &text)?;
    let applied = cluster.plane.kubectl()?.args(["apply", "-f"]).arg(&manifests).output()?;
    let said = String::from_utf8(applied.stderr)?;
    assert!(said.contains("no matches for kind \"GatewayClass\""), "{said}");
    let created = String::from_utf8(applied.stdout)?.matches(" created\n").count();
    assert_eq!(created + 1, text.matches("\nkind: ").count(), "all others");
    let may = |verb: &str, object: &str| -> anyhow::Result<bool> {
        let account = "system:serviceaccount:portcullis-system:portcullis-agent";
        let asked = ["auth", "can-i", verb, object, "-n", NAMESPACE, "--as", account];
        let said = cluster.plane.kubectl()?.args(asked).output()?;
        match String::from_utf8(said.stdout)?.trim() {
            "yes" => Ok(true),
            "no" => Ok(false),
            other => anyhow::bail!("{other}{}", String::from_utf8_lossy(&said.stderr)),
        }
    };
    assert!(!may("get", "secret/portcullis-gateway-fra1")?, "before it is declared");
    cluster.gateway(&["create", "fra1", "--endpoint", "gw.example.com"]).expect_code(0);
    for (verb, object, expected) in [
        ("get", "secret/portcullis-ca", true),
        ("patch", "secret/portcullis-ca", false),
        ("get", "secret/portcullis-gateway-fra1", true),
        ("patch", "secret/portcullis-gateway-fra1", true),
        ("delete", "secret/portcullis-gateway-fra1", false),
        ("get", "secret/portcullis-gateway-ams1", false),
        ("get", "secret/others", false),
        ("patch", "secret/others", false),
        ("list", "secrets", false),
        ("create", "secrets", false),
        ("create", "leases.coordination.k8s.io", true),
        ("update", "lease.coordination.k8s.io/portcullis-agents", true),
        ("get", "lease.coordination.k8s.io/others", false),
        ("update", "lease.coordination.k8s.io/others", false),
    ] {
        assert_eq!(may(verb, object)?, expected, "{verb} {object}");
    }
    Ok(())
}

#[test]
fn a_gateway_is_declared_in_a_cluster_and_declared_again() -> anyhow::Result<()> {
    let Some(cluster) = Cluster::start()? else { return Ok(()) };
    let create = ["create", "fra1", "--endpoint", "gw.example.com", "-o", "json"];

    // Before anything is installed nothing is written, and what to do is said.
    let refused = cluster.gateway(&create).expect_code(1);
    assert!(refused.stderr.contains("portcullis install agent"), "{}", refused.stderr);
    assert_eq!(refused.stdout, "");
    assert!(cluster.secret("portcullis-gateway-fra1")?.is_none());
    assert!(cluster.secret(AUTHORITY_SECRET)?.is_none());
    let listed = cluster.gateway(&["list"]).expect_code(1);
    assert!(listed.stderr.contains("portcullis install agent"), "{}", listed.stderr);
    let status = cluster.run(&["status", "--kube"]).expect_code(1);
    assert!(status.stderr.contains("portcullis install"), "{}", status.stderr);

    cluster.install(&["agent", "--no-gateway-class"])?;
    let rotated = cluster.gateway(&["rotate"]).expect_code(2);
    assert!(rotated.stderr.contains("portcullis gateway create"), "{}", rotated.stderr);
    let more = ["--address", "10.0.0.1=203.0.113.7", "--redemptions", "3", "--valid-for", "1h"];
    let made = cluster.gateway(&[&create[..], &more].concat()).expect_code(0).json();

    let object = cluster.edge_gateway("fra1")?;
    let spec = &object["spec"];
    assert_eq!(spec["endpoints"], json!([{ "host": "gw.example.com", "port": 7443 }]));
    assert_eq!(spec["addresses"][0]["advertise"], "203.0.113.7");
    let reference = &spec["adoption"]["secretRef"];
    assert_eq!((&reference["namespace"], &reference["key"]), (&NAMESPACE.into(), &"secret".into()));
    let name = reference["name"].as_str().context("a name")?;
    let kept = cluster.secret(name)?.context("the one-time secret")?;
    let secret: OneTimeSecret = kept["secret"].as_str().context("a text")?.parse()?;
    assert_eq!(made["secretHash"], secret.hash().to_string());
    assert_eq!((&kept["redemptions"], &kept["expires"]), (&"3".into(), &made["expires"]));
    let authority = cluster.secret(AUTHORITY_SECRET)?.context("the authority")?;
    assert!(authority[AUTHORITY_FILE].as_str().is_some_and(|it| it.contains("PRIVATE KEY")));
    assert!(made["cluster"].as_str().is_some_and(|it| it.starts_with("cluster-")), "{made}");

    // Again: what an administrator has changed since stays, and what agents have counted is over.
    let kubeconfig = cluster.plane.admin();
    cluster.runtime.block_on(async {
        let client = kubeconfig.client().await?;
        let secrets = Api::<Secret>::namespaced(client, NAMESPACE);
        let used = json!({ "stringData": {
            "redemptions": "0", "redeemedBy": "agent-0", "redeemedAt": "2026-01-01T00:00:00Z" } });
        secrets.patch(name, &PatchParams::default(), &Patch::Merge(&used)).await?;
        anyhow::Ok(())
    })?;
    let edit = r#"{"spec":{"carrier":"tls"}}"#;
    let edit = ["patch", "egw", "fra1", "--type=merge", "-p", edit];
    assert!(cluster.plane.kubectl()?.args(edit).output()?.status.success());
    let again = cluster.gateway(&create).expect_code(0).json();
    assert_ne!(again["secretHash"], made["secretHash"]);
    assert_eq!((&again["pin"], &again["cluster"]), (&made["pin"], &made["cluster"]));
    assert_eq!(cluster.edge_gateway("fra1")?["spec"]["carrier"], "tls");
    let kept = cluster.secret(name)?.context("the one-time secret")?;
    let secret: OneTimeSecret = kept["secret"].as_str().context("a text")?.parse()?;
    assert_eq!(again["secretHash"], secret.hash().to_string());
    assert_eq!((&kept["redemptions"], &kept["redeemedBy"]), (&"1".into(), &"".into()));

    // Of two sources of the secret one is left.
    let file = r#"{"spec":{"adoption":{"secretRef":null,"secretFile":"/srv/fra1.secret"}}}"#;
    let edit = ["patch", "egw", "fra1", "--type=merge", "-p", file];
    assert!(cluster.plane.kubectl()?.args(edit).output()?.status.success());
    let said = cluster.gateway(&create[..4]).expect_code(0).stderr;
    assert!(said.contains("adoption.secretFile /srv/fra1.secret is taken out"), "{said}");
    let adoption = &cluster.edge_gateway("fra1")?["spec"]["adoption"];
    let sources: Vec<_> = adoption.as_object().context("an object")?.keys().collect();
    assert_eq!(sources, ["secretRef"], "{adoption}");

    let lines = cluster.gateway(&["list"]).expect_code(0).stdout;
    assert!(lines.contains("fra1  gw.example.com:7443  Unknown"), "{lines}");
    let status = cluster.run(&["status", "--kube"]).expect_code(0).stdout;
    assert!(status.contains("FAIL gateway fra1: 0 agents"), "{status}");
    let json = cluster.run(&["status", "--kube", "-o", "json"]).expect_code(0).json();
    assert_eq!((&json["hosts"], &json["gateways"][0]["name"]), (&json!([]), &"fra1".into()));
    Ok(())
}

#[test]
fn an_authority_is_made_once_and_replaced_step_by_step() -> anyhow::Result<()> {
    let Some(cluster) = Cluster::start()? else { return Ok(()) };
    // `install manifests` knows the kind too.
    cluster.install(&["manifests"])?;
    // Whoever comes first makes the authority; everybody else takes that one.
    let pins: Vec<Value> = thread::scope(|scope| {
        let create = |name: &'static str| {
            let arguments =
                ["create", name, "--endpoint", "gw.example.com", "--cluster", "home", "-o", "json"];
            cluster.gateway(&arguments).expect_code(0).json()["pin"].clone()
        };
        let makers = ["fra1", "ams1", "nyc1"].map(|name| scope.spawn(move || create(name)));
        makers.into_iter().map(|it| it.join().expect("no panic")).collect()
    });
    assert!(pins.iter().all(|it| *it == pins[0]), "{pins:?}");
    let wrong = cluster.gateway(&["create", "x", "--endpoint", "a", "--cluster", "other"]);
    let wrong = wrong.expect_code(2);
    assert!(wrong.stderr.contains("belongs to cluster home"), "{}", wrong.stderr);

    let first = cluster.gateway(&["rotate", "-o", "json"]).expect_code(0).json();
    assert_eq!(first["pins"].as_array().map(Vec::len), Some(2), "{first}");
    assert_eq!(first["pins"][0], pins[0], "the present one signs for another week");
    let again = cluster.gateway(&["rotate"]).expect_code(2);
    assert!(again.stderr.contains("already waits"), "{}", again.stderr);
    let kept = cluster.secret(AUTHORITY_SECRET)?.context("the authority")?;
    let text = kept[AUTHORITY_FILE].as_str().context("a text")?;
    assert_eq!(text.matches("BEGIN CERTIFICATE").count(), 2);
    // A gateway that is created now starts with the authority that signs now.
    let made = cluster.gateway(&["create", "sgp1", "--endpoint", "a", "-o", "json"]);
    assert_eq!(made.expect_code(0).json()["pin"], pins[0]);
    Ok(())
}
