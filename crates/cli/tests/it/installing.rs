//! What `install` prints is accepted by whoever reads it.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::program::{portcullis, root};

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGVkZ2UtYSBob3N0IGtleSBmb3IgdGVzdHMgb25seSEh";

#[test]
fn sudoers_lines_pass_visudo() {
    let visudo = testkit::requirement::program("visudo", "sudo");
    let Some(visudo) = testkit::require(visudo) else { return };
    for mode in ["forced-command", "nft", "iptables", "epok"] {
        let lines = portcullis(["install", "sudoers", "--mode", mode, "--user", "epok"]);
        let lines = lines.expect_code(0).stdout;
        assert!(lines.contains("epok ALL=(root) NOPASSWD: "), "{lines}");
        assert!(!lines.contains("NOPASSWD: ALL"), "{lines}");
        let mut child = Command::new(&visudo)
            .args(["-c", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("visudo starts");
        let mut stdin = child.stdin.take().expect("an input");
        stdin.write_all(lines.as_bytes()).expect("visudo reads");
        drop(stdin);
        let output = child.wait_with_output().expect("visudo ends");
        assert!(output.status.success(), "{mode}: {output:?}\n{lines}");
    }
}

#[test]
fn the_unit_passes_systemd() {
    let systemd = testkit::requirement::program("systemd-analyze", "systemd");
    let Some(systemd) = testkit::require(systemd) else { return };
    let program = super::program::PROGRAM;
    let variants: [&[&str]; 3] =
        [&[], &["--manifests", "/srv/manifests"], &["--kubeconfig", "/etc/portcullis/kubeconfig"]];
    for variant in variants {
        let arguments = ["install", "systemd", "--program", program];
        let unit = portcullis(arguments.into_iter().chain(variant.iter().copied())).expect_code(0);
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("portcullis.service");
        std::fs::write(&file, &unit.stdout).expect("a unit");
        let output = Command::new(&systemd).arg("verify").arg(&file).output().expect("it runs");
        assert!(output.status.success(), "{output:?}");
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(!complaints.contains("portcullis.service"), "{complaints}");
        assert!(unit.stdout.contains("CapabilityBoundingSet=CAP_NET_ADMIN\n"), "{}", unit.stdout);
    }
}

#[test]
fn the_units_options_are_the_programs_options() {
    let unit = portcullis(["install", "systemd"]).expect_code(0).stdout;
    let arguments =
        unit.lines().find_map(|it| it.strip_prefix("Environment=PORTCULLIS_ARGUMENTS="));
    let arguments = arguments.expect("the unit passes arguments");
    let help = portcullis(["controller", "--help"]).expect_code(0).stdout;
    for flag in arguments.split(' ').filter_map(|it| it.split('=').next()) {
        assert!(help.contains(flag), "there is no {flag}");
    }
}

#[test]
fn the_key_line_restricts_the_key() {
    let line = |more: &[&str]| {
        let arguments = ["install", "authorized-keys", "--key", KEY];
        portcullis(arguments.into_iter().chain(more.iter().copied())).expect_code(0).stdout
    };
    assert_eq!(
        line(&[]),
        format!(
            "restrict,command=\"/usr/bin/sudo -n /usr/local/bin/portcullis host-apply\" {KEY} portcullis\n"
        )
    );
    assert_eq!(
        line(&["--user", "root", "--from", "10.0.0.0/8,2001:db8::1"]),
        format!(
            "restrict,from=\"10.0.0.0/8,2001:db8::1\",command=\"/usr/local/bin/portcullis host-apply\" {KEY} portcullis\n"
        )
    );
}

#[test]
fn hostile_values_reach_no_document() {
    refuses("authorized-keys", &["--key", "ssh-ed25519 AAAA\",command=\"sh"], "--key");
    refuses("authorized-keys", &["--key", &format!("{KEY}\n{KEY}")], "--key");
    refuses("authorized-keys", &["--key", KEY, "--user", "root ALL"], "--user");
    refuses("authorized-keys", &["--key", KEY, "--from", "10.0.0.0/8\""], "--from");
    refuses("authorized-keys", &["--key", KEY, "--program", "/bin/sh -c x"], "--program");
    refuses("sudoers", &["--user", "%wheel"], "--user");
    refuses("sudoers", &["--user", "a\nb ALL=(ALL) ALL"], "--user");
    refuses("sudoers", &["--program", "relative"], "--program");
    refuses("systemd", &["--program", "/bin/sh\nUser=root"], "--program");
    refuses("systemd", &["--manifests", "/a b"], "--manifests");
    refuses("epok-permissions", &["--account", "a/b\n  - c"], "--account");
    refuses("manifests", &["--image", "a: {b}"], "--image");
    refuses("manifests", &["--replicas", "0"], "--replicas");
}

#[track_caller]
fn refuses(document: &str, arguments: &[&str], flag: &str) {
    let all = ["install", document].into_iter().chain(arguments.iter().copied());
    let ran = portcullis(all).expect_code(2);
    assert!(ran.stderr.contains(flag), "{}", ran.stderr);
    assert_eq!(ran.stdout, "");
}

#[test]
fn manifests_are_whole_and_hardened() {
    let arguments =
        ["install", "manifests", "--image", "registry.example.com/p:1", "--replicas", "3"];
    let text = portcullis(arguments).expect_code(0).stdout;
    let documents: Vec<serde_json::Value> =
        serde_saphyr::from_multiple(&text).expect("a stream of documents");
    let kinds: Vec<_> =
        documents.iter().map(|it| it["kind"].as_str().unwrap_or_default()).collect();
    for kind in ["CustomResourceDefinition", "ClusterRole", "ServiceAccount", "Deployment"] {
        assert!(kinds.contains(&kind), "no {kind} in {kinds:?}");
    }
    let deployment = documents.iter().find(|it| it["kind"] == "Deployment").expect("a Deployment");
    assert_eq!(deployment["spec"]["replicas"], 3);
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    let container = &pod["containers"][0];
    assert_eq!(container["image"], "registry.example.com/p:1");
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(container["securityContext"]["capabilities"]["drop"][0], "ALL");
    let arguments: Vec<_> =
        container["args"].as_array().into_iter().flatten().filter_map(|it| it.as_str()).collect();
    let ran = portcullis(arguments.into_iter().chain(["--kubeconfig", "/nonexistent"]));
    let ran = ran.expect_code(2);
    assert!(ran.stderr.contains("/nonexistent"), "the arguments are understood: {}", ran.stderr);
    let account = documents.iter().find(|it| it["kind"] == "ServiceAccount").expect("an account");
    assert_eq!(pod["serviceAccountName"], account["metadata"]["name"]);
    assert_eq!(deployment["metadata"]["namespace"], account["metadata"]["namespace"]);
}

#[test]
fn checked_in_documents_are_what_is_printed() {
    let unit = std::fs::read_to_string(root().join("deploy/systemd/portcullis.service"));
    assert_eq!(portcullis(["install", "systemd"]).stdout, unit.expect("the unit is checked in"));
    assert!(Path::new(root()).join("deploy/kubernetes/deployment.yaml").is_file());
}
