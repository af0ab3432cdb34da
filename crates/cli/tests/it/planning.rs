//! `plan` and `render` without a cluster and without a host.

use expect_test::expect;

use super::program::{Ran, portcullis, run};

const ADDRESSES: &str = "crates/cli/testdata/edge-a.addresses.json";

#[test]
fn the_example_is_planned_for_a_fresh_host() {
    let ran = portcullis(["plan", "-f", "examples/forward", "--addresses", ADDRESSES]);
    let ran = ran.expect_code(0);
    assert_eq!(ran.stderr, "");
    expect![[r#"
        Host edge-a (nftables, this machine): has 0, wants 6 host ports
          * write the whole table inet portcullis: it does not exist
          + 25/tcp -> nodes-with-mail/smtp-12:30025 (Service mail/smtp)
          + 80/tcp -> nodes-all-2:30080 (Service web/blog)
          + 443/tcp -> nodes-all-1:30443 (Service web/blog)
          + 53/tcp internal -> allow-F56E1A63-dns/resolver:30053 (Service dns/resolver)
          + 53/udp internal -> allow-335D0CEB-dns/resolver:30053 (Service dns/resolver)
          + 27015/udp external -> pods-udp-27015-external (Pod games/arena-0)
          + chain from-external
          + chain from-internal
          + chain nat-output
          + chain nat-prerouting
          + interface eth0 from-external
          + interface wg0 from-internal
          + destination 10.8.0.1
          + destination 2001:db8::7
          + destination 203.0.113.7
    "#]]
    .assert_eq(&ran.stdout);
}

#[test]
fn exit_code_3_means_that_something_would_change() {
    let plan = ["plan", "-f", "examples/forward", "--addresses", ADDRESSES, "--exit-code"];
    portcullis(plan).expect_code(3);
}

#[test]
fn what_was_rendered_and_listed_needs_no_change() {
    let Some(listing) = listing_of(&render()) else { return };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("listing.json");
    std::fs::write(&file, listing).expect("a listing");
    let file = file.to_str().expect("a path of text");

    let plan = ["plan", "-f", "examples/forward", "--addresses", ADDRESSES, "--listing", file];
    let ran = portcullis(plan.into_iter().chain(["--exit-code", "-o", "json"])).expect_code(0);
    let host = &ran.json()["hosts"][0];
    assert_eq!(host["inSync"], true, "{host}");
    assert_eq!(host["present"], host["forwards"]);

    // Without its last Service, there is something to remove.
    let files = ["examples/forward/host.yaml", "examples/forward/nodes.yaml"];
    let files = files.into_iter().flat_map(|it| ["-f", it]);
    let plan = ["plan", "--addresses", ADDRESSES, "--listing", file, "--exit-code"];
    let ran = portcullis(plan.into_iter().chain(files)).expect_code(3);
    assert!(ran.stdout.contains("- 443/tcp"), "{}", ran.stdout);
}

#[test]
fn the_json_of_a_plan_is_stable() {
    let plan = ["plan", "-f", "examples/forward", "-o", "json"];
    let json = portcullis(plan).expect_code(0).json();
    let host = &json["hosts"][0];
    let keys: Vec<_> = host.as_object().expect("an object").keys().cloned().collect();
    assert_eq!(
        keys,
        [
            "backend", "executor", "findings", "forwards", "host", "inSync", "kept", "present",
            "steps"
        ]
    );
    assert_eq!(host["host"], "edge-a");
    assert_eq!(host["backend"], "nftables");
    assert_eq!(host["forwards"], 6);
    let finding = &host["findings"][0];
    assert_eq!(finding["object"]["kind"], "Host");
    for key in ["severity", "reason", "field", "value", "problem", "remedy"] {
        assert!(finding[key].is_string(), "no {key} in {finding}");
    }
    assert_eq!(json["problems"], serde_json::json!([]));
}

#[test]
fn objects_come_from_standard_input_as_kubectl_prints_them() {
    let list = r#"{"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "status": {
            "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}],
            "conditions": [{"type": "Ready", "status": "True"}]}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "a", "name": "b",
            "annotations": {"epok.getbetter.ro/externalports": "22:30022"}},
            "spec": {"type": "NodePort", "ports": [{"port": 22, "nodePort": 30022}]}}]}"#;
    let ran = run(["plan", "-f", "-", "--interfaces", "eth0", "--host", "here"]).stdin(list).end();
    let ran = ran.expect_code(0);
    assert!(
        ran.stdout.contains("Host here (nftables, this machine): has 0, wants 1"),
        "{}",
        ran.stdout
    );
    assert!(ran.stdout.contains("+ 22/tcp"), "{}", ran.stdout);
}

#[test]
fn both_backends_are_rendered() {
    let render = render().stdout;
    assert!(render.contains("table inet portcullis"), "{render}");
    let arguments =
        ["render", "-f", "examples/forward/nodes.yaml", "-f", "examples/forward/services.yaml"];
    let declared = ["--interfaces", "eth0", "--backend", "iptables", "--host", "old"];
    let render = portcullis(arguments.into_iter().chain(declared)).expect_code(0).stdout;
    assert!(render.contains("*nat"), "{render}");
    assert!(render.contains("--to-destination"), "{render}");
}

#[test]
fn a_declared_host_is_planned_like_an_object() {
    let object = portcullis(["render", "-f", "examples/forward", "--addresses", ADDRESSES]);
    let files = ["nodes", "pods", "services"].map(|it| format!("examples/forward/{it}.yaml"));
    let files = files.iter().flat_map(|it| ["-f", it]);
    let declared = ["render", "--addresses", ADDRESSES, "--interfaces", "eth0,wg0"];
    let more = ["--external-interface", "eth0", "--extra-internal-addresses", "10.8.0.1"];
    let flags =
        portcullis(declared.into_iter().chain(more).chain(["--host", "edge-a"]).chain(files));
    assert_eq!(flags.expect_code(0).stdout, object.expect_code(0).stdout);
}

fn render() -> Ran {
    portcullis(["render", "-f", "examples/forward", "--addresses", ADDRESSES]).expect_code(0)
}

/// Loads a ruleset in a network namespace of its own and returns what nft lists there.
fn listing_of(ran: &Ran) -> Option<String> {
    let lab = testkit::require(testkit::Lab::new("plan"))?;
    let machine = lab.machine("host").expect("a machine");
    machine.run_with_input("nft", &["-f", "-"], &ran.stdout).expect("the kernel takes it");
    Some(machine.run("nft", &["-j", "list", "table", "inet", "portcullis"]).expect("a listing"))
}
