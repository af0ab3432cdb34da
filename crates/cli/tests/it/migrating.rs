//! From Epok: the report from files, and the take-over of a host that Epok left behind.

use std::time::Duration;

use testkit::lab::Daemon;
use testkit::probe::{EchoServer, Probe};
use testkit::{Lab, Machine, Protocol};

use super::program::{PROGRAM, portcullis, run};

const LIMIT: Duration = Duration::from_secs(20);

/// What Epok wrote for one Service on two nodes, and for a Service that cannot be read now.
const RULES: &str = "*nat
-A PREROUTING -i eth0 -p tcp -m tcp --dport 443 -m state --state NEW -m statistic --mode nth --every 2 --packet 0 -m comment --comment \"service: web/blog; node: b; epok_rule_id: 1f::service::2f::3f\" -j DNAT --to-destination 10.0.0.2:30443
-A PREROUTING -i eth0 -p tcp -m tcp --dport 443 -m state --state NEW -m comment --comment \"service: web/blog; node: a; epok_rule_id: 1f::service::2f::4f\" -j DNAT --to-destination 10.0.0.1:30443
-A PREROUTING -i eth0 -p tcp -m tcp --dport 2222 -m state --state NEW -m comment --comment \"service: web/gone; node: a; epok_rule_id: 1f::service::3f::4f\" -j DNAT --to-destination 10.0.0.1:30022
-A PREROUTING -p tcp -m tcp --dport 9 -j RETURN
COMMIT
";

const OBJECTS: &str = "
apiVersion: v1
kind: Node
metadata: { name: a }
status:
  addresses: [{ type: InternalIP, address: 10.0.0.1 }]
  conditions: [{ type: Ready, status: 'True' }]
---
apiVersion: v1
kind: Node
metadata: { name: b }
status:
  addresses: [{ type: InternalIP, address: 10.0.0.2 }]
  conditions: [{ type: Ready, status: 'True' }]
---
apiVersion: v1
kind: Service
metadata: { namespace: web, name: blog, annotations: { epok.getbetter.ro/externalports: '443:30443' } }
spec: { type: NodePort, ports: [{ port: 443, nodePort: 30443 }] }
";

const BROKEN: &str = "---
apiVersion: v1
kind: Service
metadata: { namespace: web, name: gone, annotations: { epok.getbetter.ro/externalports: '2222:30022:sctpx' } }
spec: { type: NodePort, ports: [{ port: 22, nodePort: 30022 }] }
";

#[test]
fn the_report_says_what_maps_what_differs_and_what_is_rejected() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), RULES).expect("a listing");
    let listing = file.path().to_str().expect("a path of text");
    let report = |objects: &str, code| {
        let arguments = ["migrate", "epok", "-f", "-", "--listing", listing, "-o", "json"];
        let epok = ["-i", "eth0", "--batch-commands=false", "local"];
        run(arguments.into_iter().chain(epok)).stdin(objects).end().expect_code(code).json()
    };
    let good = report(OBJECTS, 0);
    contains(&good["maps"], "Service web/blog: host port 443/tcp");
    contains(&good["maps"], "3 rules of Epok's on the host, for 2 host ports");
    contains(&good["differs"], "--batch-commands (EPOK_BATCH_COMMANDS) has no effect");
    contains(
        &good["differs"],
        "tcp/2222 -> 10.0.0.1:30022 (service: web/gone; node: a): no object asks",
    );
    assert_eq!(good["rejected"], serde_json::json!([]));
    assert_eq!(good["host"]["spec"]["interfaces"], serde_json::json!(["eth0"]));

    let bad = report(&format!("{OBJECTS}{BROKEN}"), 3);
    contains(&bad["rejected"], "Service web/gone: epok.getbetter.ro/externalports");
    contains(&bad["rejected"], "--take-over leaves the rule alone");
}

#[track_caller]
fn contains(list: &serde_json::Value, text: &str) {
    let lines = list.as_array().expect("a list");
    let found = lines.iter().any(|it| it.as_str().is_some_and(|it| it.contains(text)));
    assert!(found, "no {text:?} in {list:#}");
}

#[test]
fn the_deployment_of_epok_becomes_a_host() {
    let file = "crates/cli/testdata/epok-deployment.yaml";
    let arguments = ["migrate", "epok", "--deployment", file, "--write-host"];
    let ran = portcullis(arguments).expect_code(2);
    assert!(ran.stderr.contains("--host"), "the address is in a Secret: {}", ran.stderr);

    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGVkZ2UtYSBob3N0IGtleSBmb3IgdGVzdHMgb25seSEh";
    let run = run(arguments).env("EPOK_SSH_HOST", "epok@10.0.0.1").env("EPOK_SSH_HOST_KEY", key);
    let ran = run.end().expect_code(0);
    assert!(ran.stderr.contains("EPOK_SSH_HOST comes from elsewhere"), "{}", ran.stderr);
    expect_test::expect![[r#"
        apiVersion: portcullis.dev/v1alpha1
        kind: Host
        metadata:
          name: "10.0.0.1"
        spec:
          acceptForwarded: false
          backend: nftables
          executor:
            ssh:
              address: "10.0.0.1"
              hostKey: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGVkZ2UtYSBob3N0IGtleSBmb3IgdGVzdHMgb25seSEh
              keyFile: /opt/secrets/id_rsa
              mode: sudo
              port: 22
              user: epok
          externalInterface: eth0
          hairpin: false
          interfaces:
          - eth0
          - wg0
          masquerade: false
    "#]].assert_eq(&ran.stdout);
}

/// EP-02, from the command line: `migrate epok --take-over` and `epok` itself.
#[test]
fn ep_02_a_host_is_taken_over_without_a_lost_connection() -> anyhow::Result<()> {
    let Some(lab) = testkit::require(Lab::new("migrate")) else { return Ok(()) };
    let directory = tempfile::tempdir()?;
    std::fs::write(directory.path().join("objects.yaml"), OBJECTS)?;
    let manifests = directory.path().to_str().expect("a path of text");
    let options = ["-i", "eth0", "local"];

    for long_run in [false, true] {
        let (host, client, _server) = border(&lab)?;
        host.run_with_input("iptables-restore", &["--noflush"], RULES)?;
        let probe = Probe::new("203.0.113.1:443".parse()?, Protocol::Tcp);
        let prober = client.prober(probe, Duration::from_millis(5))?;
        let mut seen = testkit::wait::until("connections", LIMIT, || {
            prober.read().ok().filter(|it| !it.is_empty())
        })?;

        let mut epok = None;
        if long_run {
            let arguments: Vec<_> =
                ["epok", "--manifests", manifests].into_iter().chain(options).collect();
            let daemon = host.spawn(PROGRAM, &arguments)?;
            let taken = |_: &Daemon| (!marked(&host).contains("epok_rule_id")).then_some(());
            daemon.wait_until("the take-over", LIMIT, taken)?;
            epok = Some(daemon);
        } else {
            let arguments = ["migrate", "epok", "-f", manifests, "--take-over"];
            let arguments: Vec<_> = arguments.into_iter().chain(options).collect();
            let said = host.run(PROGRAM, &arguments)?;
            assert!(said.contains("then 3 rules of Epok's removed in one transaction"), "{said}");
        }
        let rules = marked(&host);
        assert!(!rules.contains("epok_rule_id"), "{rules}");
        assert!(rules.contains("--dport 9 -j RETURN"), "rules of others stay: {rules}");
        assert!(host.run("nft", &["list", "table", "inet", "portcullis"])?.contains("443"));

        seen.extend(prober.stop()?);
        let lost = seen.iter().filter(|it| it.outcome.answer().is_none()).count();
        assert_eq!(lost, 0, "of {}", seen.len());
        assert!(client.probe(probe)?.answer().is_some());
        if let Some(epok) = epok {
            host.run("kill", &["-TERM", &epok.pid().to_string()])?;
            assert!(epok.wait(LIMIT)?.success(), "{}", epok.log());
            assert!(client.probe(probe)?.answer().is_some(), "the rules stay");
        }
    }
    Ok(())
}

#[test]
fn a_rule_whose_object_cannot_be_read_stays() -> anyhow::Result<()> {
    let Some(lab) = testkit::require(Lab::new("broken")) else { return Ok(()) };
    let (host, _client, _server) = border(&lab)?;
    host.run_with_input("iptables-restore", &["--noflush"], RULES)?;
    let directory = tempfile::tempdir()?;
    std::fs::write(directory.path().join("objects.yaml"), format!("{OBJECTS}{BROKEN}"))?;
    let manifests = directory.path().to_str().expect("a path of text");
    let arguments = ["migrate", "epok", "-f", manifests, "--take-over", "-i", "eth0"];
    let output = host.output(PROGRAM, &arguments, "")?;
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let rules = marked(&host);
    assert!(rules.contains("--dport 2222") && !rules.contains("--dport 443"), "{rules}");
    Ok(())
}

#[test]
fn epok_clean_removes_what_both_programs_wrote() -> anyhow::Result<()> {
    let Some(lab) = testkit::require(Lab::new("epok-clean")) else { return Ok(()) };
    let (host, _client, _server) = border(&lab)?;
    host.run_with_input("iptables-restore", &["--noflush"], RULES)?;
    host.nft("table inet portcullis {\n}\n")?;
    let (_directory, link) = super::program::named("epok-clean");
    let link = link.to_str().expect("a path of text");

    let said = host.run(link, &["--dry-run", "local"])?;
    assert!(said.contains("would remove tcp/443 -> 10.0.0.2:30443"), "{said}");
    assert!(marked(&host).contains("epok_rule_id"));

    let said = host.run(link, &["--batch-commands=false", "local"])?;
    assert!(said.contains("removed tcp/443 -> 10.0.0.2:30443"), "{said}");
    let rules = marked(&host);
    assert!(!rules.contains("epok_rule_id") && rules.contains("RETURN"), "{rules}");
    assert!(!host.run("nft", &["list", "tables"])?.contains("portcullis"));
    Ok(())
}

fn marked(host: &Machine) -> String {
    host.run("iptables-save", &["-t", "nat"]).expect("a listing")
}

fn border(lab: &Lab) -> anyhow::Result<(Machine, Machine, EchoServer)> {
    let (host, client, node) = (lab.machine("host")?, lab.machine("client")?, lab.machine("node")?);
    lab.link(&host, "eth0", &["203.0.113.1/24"], &client, "eth0", &["203.0.113.9/24"])?;
    lab.link(&host, "br0", &["10.0.0.254/24"], &node, "eth0", &["10.0.0.1/24", "10.0.0.2/24"])?;
    node.route("default", "10.0.0.254")?;
    host.forwarding(true)?;
    let server = node.serve("node", "[::]:30443".parse()?, Protocol::Tcp)?;
    Ok((host, client, server))
}
