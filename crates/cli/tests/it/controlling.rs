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

/// The systemd unit gives the service an account of its own and one capability.
#[test]
fn one_capability_is_enough_for_both_backends() {
    let setpriv = testkit::requirement::program("setpriv", "util-linux");
    let Some(_setpriv) = testkit::require(setpriv) else { return };
    let Some(lab) = testkit::require(Lab::as_root("capability")) else { return };
    let machine = lab.machine("host").expect("a machine");
    let directory = tempfile::tempdir_in("/var/tmp").expect("a temporary directory");
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory.path(), readable).expect("everybody may read");
    for name in ["nodes.yaml", "services.yaml"] {
        let from = root().join("examples/forward").join(name);
        std::fs::copy(from, directory.path().join(name)).expect("a manifest");
    }
    // Where the program was built, other accounts may not look.
    let program = directory.path().join("portcullis");
    let cp = std::process::Command::new("cp").arg(PROGRAM).arg(&program).status();
    assert!(cp.expect("cp runs").success());
    let program = program.to_str().expect("a path of text");
    let manifests = directory.path().to_str().expect("a path of text");
    for (backend, listing) in
        [("nftables", "nft list table inet portcullis"), ("iptables", "iptables-save")]
    {
        let one = ["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"];
        let capability = [
            "--inh-caps=-all,+net_admin",
            "--ambient-caps=-all,+net_admin",
            "--bounding-set=-all,+net_admin",
        ];
        let controller = [program, "controller", "--manifests", manifests, "--host", "here"];
        let more = ["--interfaces", "lo", "--backend", backend];
        let arguments: Vec<_> =
            one.into_iter().chain(capability).chain(controller).chain(more).collect();
        let controller = machine.spawn("setpriv", &arguments).expect("the controller starts");
        let mut words = listing.split(' ');
        let listing = words.next().expect("a program");
        let words: Vec<_> = words.collect();
        let applied = |_: &testkit::lab::Daemon| {
            machine.run(listing, &words).ok().filter(|it| it.contains("30443"))
        };
        controller.wait_until("rules", LIMIT, applied).expect("the rules come");
        machine.run("kill", &["-TERM", &controller.pid().to_string()]).expect("the signal");
        assert!(controller.wait(LIMIT).expect("it ends").success(), "{}", controller.log());
    }
}
