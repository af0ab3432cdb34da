//! The controller as a process: from a directory of manifests to rules, and gone without a trace
//! of haste.

use std::time::Duration;

use testkit::Lab;

use super::program::{PROGRAM, root};

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn manifests_become_rules_and_stay_after_a_graceful_stop() {
    let Some(lab) = testkit::require(Lab::new("controller")) else { return };
    let machine = lab.machine("host").expect("a machine");
    let directory = tempfile::tempdir().expect("a temporary directory");
    for name in ["nodes.yaml", "services.yaml"] {
        let from = root().join("examples/forward").join(name);
        std::fs::copy(from, directory.path().join(name)).expect("a manifest");
    }
    let manifests = directory.path().to_str().expect("a path of text");
    let arguments =
        ["controller", "--manifests", manifests, "--host", "here", "--interfaces", "lo"];
    let controller = machine.spawn(PROGRAM, &arguments).expect("the controller starts");
    let listing = || machine.run("nft", &["list", "table", "inet", "portcullis"]);
    let applied = |_: &testkit::lab::Daemon| listing().ok().filter(|it| it.contains("443"));
    controller.wait_until("rules", LIMIT, applied).expect("the rules come");

    let status = |_: &testkit::lab::Daemon| {
        machine.run(PROGRAM, &["status"]).ok().filter(|it| it.contains("ok   here"))
    };
    controller.wait_until("the status", LIMIT, status).expect("the status follows");
    let status = machine.run(PROGRAM, &["status", "-o", "json"]).expect("the status");
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!(status["hosts"]["here"]["forwards"], 5, "{status}");

    machine.run("kill", &["-TERM", &controller.pid().to_string()]).expect("the signal");
    let ended = controller.wait(LIMIT).expect("it ends");
    assert!(ended.success(), "{ended:?}\n{}", controller.log());
    let rules = listing().expect("the rules stay");
    assert!(rules.contains("443"), "{rules}");
}
